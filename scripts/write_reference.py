"""Write docs/reference.md: every command and option, as the code declares them."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import click

from batchreg.cli.commands import cli
from batchreg.render.settings import CONFIG_KEYS

PAGE = Path(__file__).parent.parent / "docs" / "reference.md"

INTRO = """\
# Reference

Every command and option, written by `scripts/write_reference.py` from what the code declares. An
option with a variable also takes its value from the environment; one with a key also from
`batchreg.yaml`, or from the file that `--config` names. A flag beats the variable, which beats the
file, which beats what the stack has now.
"""


HEAD = "| option | meaning | variable, key |\n|---|---|---|"
COMMON = 5  # options of more commands than that stand once, at the top


def page() -> str:
    """Return the page's text."""
    commands = sorted(cli.commands.items())
    counts = Counter(row for _, command in commands for row in _rows(command).values())
    common = {row for row, count in counts.items() if count > COMMON}
    return "\n".join(
        [
            INTRO,
            "## Options of many commands\n",
            HEAD,
            *(row for row in counts if row in common),
            "",
            *(line for name, command in commands for line in _command(name, command, common)),
        ]
    )


def _rows(command: click.Command) -> dict[str, str]:
    """Return the row of each option by its longest name."""
    return {
        option.opts[-1]: f"| {_names(option)} | {_meaning(option)} | {_sources(option)} |"
        for option in command.params
        if isinstance(option, click.Option) and not option.hidden
    }


def _command(name: str, command: click.Command, common: Set[str]) -> Iterator[str]:
    arguments = [_argument(each) for each in command.params if isinstance(each, click.Argument)]
    rows = _rows(command)
    own = [row for row in rows.values() if row not in common]
    yield f"## {name}\n"
    yield f"    batchreg {' '.join([name, '[OPTIONS]', *arguments])}\n"
    yield f"{inspect.cleandoc(command.help or '')}\n"
    if own:
        yield from [HEAD, *own, ""]
    shared = ", ".join(f"`{option}`" for option, row in rows.items() if row in common)
    yield f"{'Also' if own else 'Options'}: {shared}.\n"


def _argument(argument: click.Argument) -> str:
    name = (argument.name or "").upper()
    dots = "..." if argument.nargs == -1 else ""
    return f"{name}{dots}" if argument.required else f"[{name}{dots}]"


def _names(option: click.Option) -> str:
    value = "" if option.is_flag or option.count else f" {option.metavar or _kind(option.type)}"
    names = [*option.opts, *option.secondary_opts]
    return ", ".join(f"`{name}{value if name == option.opts[-1] else ''}`" for name in names)


def _kind(kind: Any) -> str:
    if isinstance(kind, click.types._NumberRangeBase):
        return "NUMBER"
    return "VALUE" if isinstance(kind, click.Choice) else str(kind.name).upper()


def _meaning(option: click.Option) -> str:
    words = [(option.help or "").replace("|", "\\|")]
    kind = option.type
    if isinstance(kind, click.Choice):
        words.append(f"One of {', '.join(f'`{choice}`' for choice in kind.choices)}.")
    if isinstance(kind, click.types._NumberRangeBase):
        words.append(f"From {kind.min:g}{'' if kind.max is None else f' to {kind.max:g}'}.")
    if option.required:
        words.append("Required.")
    if option.show_default and not option.is_flag:
        words.append(f"[default: {option.default}]")
    if option.show_default and option.is_flag:
        words.append(f"[default: {'on' if option.default else 'off'}]")
    return " ".join(" ".join(words).split())


def _sources(option: click.Option) -> str:
    variables = [option.envvar] if isinstance(option.envvar, str) else list(option.envvar or ())
    words = [f"`{variable}`" for variable in variables]
    if option.name in CONFIG_KEYS and variables:
        words.append(f"`{option.name}`")
    return ", ".join(words)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
