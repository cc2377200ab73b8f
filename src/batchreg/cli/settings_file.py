"""batchreg.yaml as `init` and a first `deploy` write it: what is set, and what else could be."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchreg.cli import output, prompts, schema
from batchreg.cli.console import TextScreen
from batchreg.cli.grammar import Checked, Command, Declaration
from batchreg.cli.options import CONFIG_FILE, PLACES
from batchreg.registry.logins import DOCKER, RegistrySpec
from batchreg.render.constraints import DOCKER_HUB
from batchreg.stack.plan import NETWORK

if TYPE_CHECKING:
    from batchreg.stack.plan import Plan

WIDTH = 80
SCHEMA_FILE = "batchreg.schema.json"
# A path and no URL: it works offline, in every clone, and for the version that wrote it.
HEADER = f"""\
# yaml-language-server: $schema={SCHEMA_FILE}
#
# Settings of batchreg, which reads them in this directory. A flag overrides a BATCHREG_ variable,
# which overrides this file. A line such as "# max_vcpus: 256" is not set: remove the # to set it.
# Passwords do not belong here. batchreg asks for them, or reads BATCHREG_PASSWORD.
"""


def given(context: click.Context) -> dict[str, Any]:
    """Return {key: value} of the settings that the user gave on the command line or in variables."""
    assert isinstance(context.command, Command)
    sources = (click.core.ParameterSource.COMMANDLINE, click.core.ParameterSource.ENVIRONMENT)
    found = {
        each.key: context.params[each.parameter]
        for each in context.command.declared
        if each.key and context.get_parameter_source(each.parameter) in sources
    }
    if context.params.get("from_docker_config"):  # an option of one run
        specs = map(RegistrySpec.parse, found["registries"])
        found["registries"] = tuple(
            f"{one.url},username={one.username},password={DOCKER}" for one in specs
        )
    return found


def of_plan(plan: Plan, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with what a person was asked for, except for passwords."""
    names = {**NETWORK, "username": "Username"} if "registries" not in settings else NETWORK
    asked = {key: plan.parameters[name] for key, name in names.items() if name in plan.parameters}
    return {
        **settings,
        **{key: value if key == "username" else value.split(",") for key, value in asked.items()},
    }


def offer(plan: Plan, region: str, screen: TextScreen) -> None:
    """Ask a person at a terminal, after a first deploy without a file, whether to save one.

    The work is done: Ctrl-C here is a no.
    """
    context = click.get_current_context()
    has_one = PLACES in context.meta or os.path.lexists(CONFIG_FILE)
    if has_one or not prompts.interactive() or not os.access(".", os.W_OK):
        return
    try:
        wanted = click.confirm(f"Save these settings to {CONFIG_FILE}?", err=True)
    except (click.Abort, KeyboardInterrupt):
        click.echo(err=True)
        return
    if wanted:
        assert isinstance(context.command, Command)
        save(CONFIG_FILE, context.command, {"region": region, **of_plan(plan, given(context))})
        command = screen.command("deploy")
        screen.note(f"Settings written to {CONFIG_FILE}. To update the stack: {command}")


def save(path: str, command: Command, settings: Mapping[str, Any]) -> None:
    """Write the file and its schema next to it, or the file alone to stdout.

    Another file with the schema's name is left as it is.
    """
    folder = Path() if path in output.STDOUT else Path(os.path.realpath(path)).parent
    output.write(text(command.declared, settings, folder), path)
    beside = folder / SCHEMA_FILE
    if path in output.STDOUT or not Path(path).is_file():
        return
    if not beside.exists() or schema.TITLE in beside.read_text("utf-8", errors="replace"):
        schema.run("settings", command.group, str(beside))


def text(declared: Iterable[Declaration], settings: Mapping[str, Any], folder: Path) -> str:
    """Return the file's text; a relative path in it starts at `folder`.

    Each key is under the heading that its option has in the help. The help is a comment above what
    is set; what is not set is a line of its own with an example.
    """
    sections: dict[str, dict[str, Declaration]] = {}
    for each in declared:
        if each.key:
            sections.setdefault(each.attributes["heading"], {}).setdefault(each.key, each)
    lines = [HEADER]
    for heading, options in sections.items():
        lines.append(f"# --- {heading.removesuffix(' options')} ---\n")
        values = {key: _value(key, settings[key], folder) for key in options if key in settings}
        for key, value in values.items():
            if value not in ("", []):
                lines += [*_comment(options[key].help), _yaml({key: value})]
        unset = [options[key] for key in options if values.get(key, "") in ("", [])]
        lines += [f"# {each.key}: {example(each)}" for each in unset]
        lines.append("")
    return "\n".join(lines)


def _comment(help_text: str) -> Iterator[str]:
    """Yield the help without what only concerns the command line."""
    words = re.sub(r" ?\[or [^\]]*\]|[;.] [Rr]epeat it for more( registries)?\b", "", help_text)
    yield from textwrap.wrap(
        words, WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
    )


def _value(key: str, value: Any, folder: Path) -> Any:
    """Return a setting as the file has it."""
    if key == "user_data":
        return os.path.relpath(value, folder) if str(value) not in ("", ".") else ""
    if key == "registries":
        return [_registry(one) for one in value]
    if isinstance(value, tuple | list):
        return [one for one in value if one]
    return "docker-hub" if value == DOCKER_HUB else value


def _registry(entry: str) -> dict[str, str]:
    spec = RegistrySpec.parse(entry)
    url = entry.partition(",")[0]
    url = "docker-hub" if url == DOCKER_HUB else url
    fields = {"url": url, "username": spec.username, "password": spec.source}
    return {name: value for name, value in fields.items() if value}


def _yaml(setting: Mapping[str, Any]) -> str:
    import yaml

    shown: str = yaml.safe_dump(
        dict(setting), default_flow_style=False, sort_keys=False, allow_unicode=True, width=10**6
    )
    return shown.rstrip("\n")


def example(option: Declaration) -> str:
    """Return a value for a key that is not set: the default where the help has one."""
    kind = option.attributes.get("type")
    default = re.search(r"\[default: ([^\]\s]+)\]", option.help)
    if fixed := option.attributes.get("default"):
        return str(fixed)
    if option.key == "registries":
        return "[{url: ghcr.io, username: NAME, password: env:NAME}]"
    if option.is_switch:
        return "true"
    if isinstance(kind, click.Choice):
        return default[1] if default and default[1] in kind.choices else str(kind.choices[0])
    if isinstance(kind, Checked) and "minimum" in kind.schema:
        return default[1] if default and default[1].isdecimal() else str(kind.schema["minimum"])
    name = str(option.attributes.get("metavar", "")).strip("[]")
    return f"[{name}]" if option.multiple else name
