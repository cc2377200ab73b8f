"""How commands declare their options, where a value may come from, and how `--help` shows them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any

import click

from batchreg.cli import PREFIX

Function = Callable[..., Any]
Decorator = Callable[[Function], Function]


class Checked:
    """Reads a value and raises what is wrong with it; `schema` says the same in JSON Schema."""

    def __init__(self, read: Function, **schema: Any) -> None:
        self.read, self.schema = read, schema
        self.__name__ = read.__name__

    def __call__(self, text: Any) -> Any:
        return self.read(text)


class OnOff(click.types.BoolParamType):
    """A switch whose message does not list the nine spellings of each position."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value!r} is neither true nor false.", param, ctx)


class Option(click.Option):
    """An option, with its heading in the help and its key in batchreg.yaml, if it has one."""

    def __init__(
        self, names: Any, *, heading: str = "Other options", key: str = "", **attributes: Any
    ) -> None:
        super().__init__(names, **attributes)
        self.heading, self.key = heading, key
        if self.is_bool_flag:
            self.type = OnOff()


class Declaration:
    """A parameter of a command: a decorator for the command's function."""

    def __init__(self, kind: type[click.Parameter], *names: str, **attributes: Any) -> None:
        self.kind, self.names, self.attributes = kind, names, attributes

    def __call__(self, function: Function) -> Function:
        vars(function).setdefault("declared", []).insert(0, self)
        return function

    @property
    def name(self) -> str:
        """The long name without dashes: "max-vcpus"."""
        long = next(name for name in self.names if name.startswith("--"))
        return long.split("/")[0].removeprefix("--")

    @property
    def key(self) -> str:
        """The key of batchreg.yaml, "" if there is none."""
        return str(self.attributes.get("key", ""))

    @property
    def parameter(self) -> str:
        """The name of the function's parameter: "max_vcpus"."""
        own = [name for name in self.names if not name.startswith("-")]
        return own[0] if own else self.name.replace("-", "_")

    @property
    def multiple(self) -> bool:
        return bool(self.attributes.get("multiple"))

    @property
    def is_switch(self) -> bool:
        return any("/" in name for name in self.names) or bool(self.attributes.get("is_flag"))

    @property
    def help(self) -> str:
        return " ".join(str(self.attributes.get("help", "")).split())

    def make(self) -> click.Parameter:
        return self.kind(self.names, **self.attributes)


# Not click's own --help and --version, which look for translations: 1 ms of `render`.
def _printing(text: Callable[[click.Context], str], *names: str, **attributes: Any) -> Declaration:
    """Declare a flag that prints a text and ends the program."""

    def show(context: click.Context, _: click.Parameter, wanted: bool) -> None:
        if wanted and not context.resilient_parsing:
            click.echo(text(context))
            context.exit()

    return Declaration(
        Option, *names, is_flag=True, is_eager=True, expose_value=False, callback=show, **attributes
    )


help_option = _printing(click.Context.get_help, "-h", "--help", help="Show this message and exit.")


def version_option(text: str) -> Declaration:
    return _printing(lambda _: text, "--version", help="Show the version and exit.")


def argument(name: str, **attributes: Any) -> Decorator:
    """Declare an argument."""
    return Declaration(click.Argument, name, **attributes)


def option(*names: str, **attributes: Any) -> Decorator:
    """Declare an option that concerns one run: it is given on the command line only."""
    return Declaration(Option, *names, **attributes)


def variable(*names: str, **attributes: Any) -> Declaration:
    """Declare an option that BATCHREG_NAME sets as well."""
    declared = Declaration(Option, *names, **attributes)
    envvar = PREFIX + declared.name.replace("-", "_").upper()
    declared.attributes.setdefault("envvar", envvar)
    return declared


def setting(*names: str, key: str = "", **attributes: Any) -> Decorator:
    """Declare an option that BATCHREG_NAME and a key of batchreg.yaml set as well."""
    declared = variable(*names, **attributes)
    declared.attributes["key"] = key or declared.name.replace("-", "_")
    return declared


def together(*declared: Decorator) -> Decorator:
    """Make one decorator of several."""

    def decorate(function: Function) -> Function:
        for each in reversed(declared):
            function = each(function)
        return function

    return decorate


def settings_of(command: Command, *more: str) -> Decorator:
    """Declare the settings of another command, and those of its other options that are named."""
    names = {f"--{name}" for name in more}
    return together(*(each for each in command.declared if each.key or names & {*each.names}))


def under(heading: str, *declared: Decorator) -> Decorator:
    """Put options under a heading of the help."""
    for each in declared:
        if isinstance(each, Declaration):
            each.attributes["heading"] = heading
    return together(*declared)


class Formatter(click.HelpFormatter):
    """Click's formatter, except that it breaks no option's name at a hyphen.

    It also asks for the terminal's width without shutil, whose import takes 3 ms.
    """

    def __init__(self, width: int | None = None, max_width: int | None = None) -> None:
        if width is None:
            width = max(min(_columns(), max_width or 80) - 2, 50)
        super().__init__(width=width, max_width=max_width)

    def write_dl(
        self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        import textwrap

        rows = list(rows)
        column = min(max(len(name) for name, _ in rows), col_max) + col_spacing
        indent, width = self.current_indent, self.width - self.current_indent - column
        for name, text in rows:
            lines = textwrap.wrap(text, max(width, 20), break_on_hyphens=False)
            if len(name) + col_spacing > column:
                lines.insert(0, "")
            for number, line in enumerate(lines):
                self.write(f"{'':{indent}}{name if not number else '':<{column}}{line}".rstrip())
                self.write("\n")


def _columns() -> int:
    """Return the terminal's width, as shutil.get_terminal_size does: COLUMNS comes first."""
    given = os.environ.get("COLUMNS", "")
    try:
        return int(given) if given.isdecimal() and int(given) else os.get_terminal_size(1).columns
    except OSError:  # not a terminal
        return 80


class Context(click.Context):
    formatter_class = Formatter


class Command(click.Command):
    """A command with a section of `batchreg --help`, and an example of its use."""

    context_class = Context

    def __init__(
        self,
        *names: Any,
        group: Commands,
        section: str,
        example: str,
        declared: list[Declaration],
        **attributes: Any,
    ) -> None:
        super().__init__(*names, **attributes)
        self.add_help_option = False  # help_option is ours
        self.group, self.section, self.example = group, section, example
        self.declared = [*declared, help_option]
        del self.params  # from here on the property below

    # Made when they are looked at: all options of all commands cost `batchreg --help` 1.7 ms of 46.
    @cached_property
    def params(self) -> list[click.Parameter]:  # type: ignore[override]  # mypy: an attribute there
        return [each.make() for each in self.declared]

    @property
    def summary(self) -> str:
        """The first line of the help, which is a sentence."""
        return (self.help or "").partition("\n")[0]

    def invoke(self, ctx: click.Context) -> Any:
        if any(name.startswith(PREFIX) for name in os.environ):
            from batchreg.cli import unread

            known = set[str]()
            flags = {}
            for each in self.group.declarations():
                if each.kind is not click.Argument:
                    envvar = each.attributes.get("envvar")
                    known |= {envvar} if isinstance(envvar, str) else set(envvar or ())
                    flags[PREFIX + each.name.replace("-", "_").upper()] = f"--{each.name}"
            unread.check(known, flags, ctx)
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for each in self.get_params(ctx):
            record = each.get_help_record(ctx)
            if record and isinstance(each, click.Option):
                sections.setdefault(getattr(each, "heading", "Other options"), []).append(record)
        sections["Other options"] = sections.pop("Other options")  # --help is one: they come last
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Example"):
            formatter.write(f"{'':{formatter.current_indent}}{self.example}\n")


class Commands(click.Group):
    """The commands, in the order of their declaration."""

    context_class = Context

    def add(self, section: str, *, example: str, name: str = "") -> Callable[[Function], Command]:
        """Make a command of a function and of the declarations above it."""

        def decorate(function: Function) -> Command:
            command = click.command(
                name or function.__name__,
                cls=Command,
                group=self,
                section=section,
                example=example,
                declared=vars(function).pop("declared"),
            )(function)
            self.add_command(command)
            return command

        return decorate

    def declarations(self) -> Iterator[Declaration]:
        """Yield what all commands declare; an option that they share comes several times."""
        for command in self.commands.values():
            if isinstance(command, Command):
                yield from command.declared

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.commands))
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, command in self.commands.items():
            if isinstance(command, Command):
                row = (f"{name:<{width}}", command.summary)
                sections.setdefault(command.section, []).append(row)
        for section, rows in sections.items():
            with formatter.section(section):
                formatter.write_dl(rows)
