"""Write docs/reference.md: every command and option, as the code declares them."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator, Set
from pathlib import Path

import click

from batchreg.cli.commands import cli
from batchreg.cli.grammar import Command, Option

PAGE = Path(__file__).parent.parent / "docs" / "reference.md"

INTRO = """\
# Reference

Every command and option, written by `scripts/write_reference.py` from what the code declares. An
option with a variable also takes its value from the environment; one with a key also from
`batchreg.yaml`, or from the file that `--config` names. Where neither is listed, the option concerns
one run and is given on the command line only. A flag overrides the variable, which overrides the
file, which overrides what the stack has now.

In a variable, blanks separate several values (`BATCHREG_SUBNET_ID="subnet-0a1b subnet-2c3d"`), and an
empty one counts as unset. The password has a variable alone, `BATCHREG_PASSWORD`. `BATCHREG_DRY_RUN=1`
works as `--dry-run` does; `BATCHREG_YES` is refused, because it would confirm every command. About
any other variable that starts with `BATCHREG_`, and about a `batchreg.yml`, batchreg warns that
nothing reads it.
"""


HEAD = "| option | meaning | variable | key |\n|---|---|---|---|"
COMMON = 5  # options of more commands than that stand once, at the top


def page() -> str:
    """Return the page's text."""
    commands = cli.commands
    counts = Counter(row for command in commands.values() for row in _rows(command).values())
    common = {row for row, count in counts.items() if count > COMMON}
    return "\n".join(
        [
            INTRO,
            "## Options of many commands\n",
            HEAD,
            *(row for row in counts if row in common),
            "",
            *(
                line
                for name, command in commands.items()
                for line in _command(name, command, common)
            ),
        ]
    )


def _rows(command: click.Command) -> dict[str, str]:
    """Return the row of each option by its longest name."""
    rows = {}
    for option in command.params:
        if isinstance(option, Option):
            variables = (
                [option.envvar] if isinstance(option.envvar, str) else list(option.envvar or ())
            )
            cells = [
                _names(option),
                _meaning(option),
                ", ".join(f"`{variable}`" for variable in variables),
                f"`{option.key}`" if option.key else "",
            ]
            rows[option.opts[-1]] = f"| {' | '.join(cells)} |"
    return rows


def _command(name: str, command: click.Command, common: Set[str]) -> Iterator[str]:
    assert isinstance(command, Command)
    arguments = [_argument(each) for each in command.params if isinstance(each, click.Argument)]
    rows = _rows(command)
    own = [row for row in rows.values() if row not in common]
    yield f"## {name}\n"
    yield f"    batchreg {' '.join([name, '[OPTIONS]', *arguments])}\n"
    yield f"{inspect.cleandoc(command.help or '')}\n"
    yield f"Example:\n\n    {command.example}\n"
    if own:
        yield from [HEAD, *own, ""]
    shared = ", ".join(f"`{option}`" for option, row in rows.items() if row in common)
    yield f"{'Also' if own else 'Options'}: {shared}.\n"


def _argument(argument: click.Argument) -> str:
    name = (argument.name or "").upper()
    dots = "..." if argument.nargs == -1 else ""
    return f"{name}{dots}" if argument.required else f"[{name}{dots}]"


def _names(option: Option) -> str:
    value = "" if option.is_flag else f" {option.metavar}"
    names = [*option.opts, *option.secondary_opts]
    return ", ".join(f"`{name}{value if name == option.opts[-1] else ''}`" for name in names)


def _meaning(option: Option) -> str:
    words = [(option.help or "").replace("|", "\\|")]
    if option.required:
        words.append("Required.")
    if option.show_default:
        # A switch is on, or it would be shown by its other name.
        words.append(f"[default: {option.opts[-1] if option.is_flag else option.default}]")
    return " ".join(" ".join(words).split())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
