"""What people look at while AWS works, on stderr; and the same as JSON lines on stdout."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from batchreg import waiting
from batchreg.cli.display import ROOM_FOR_CTRL_C
from batchreg.cli.output import report
from batchreg.cli.tables import GAP, narrowed
from batchreg.stack.changesets import Change
from batchreg.stack.events import Event, plain_reason
from batchreg.stack.screen import Resource

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

    from batchreg.stack.preview import Change as Setting

GOOD, BAD, DOING = "green", "red", "yellow"

Show = Callable[[Event], None]


class BothScreens:
    """What does not depend on who reads."""

    def command(self, *words: str) -> str:
        return command_here(*words)

    def waiting(self, text: str) -> AbstractContextManager[None]:
        return waiting.pending(text)


class JsonScreen(BothScreens):
    """Prints a JSON line on stdout for everything that happens; the last one is the result."""

    def emit(self, kind: str, /, **fields: Any) -> None:
        """Print a JSON line of a kind."""
        write(sys.stdout, json.dumps({"type": kind, **fields}, default=str) + "\n")

    def product(self, kind: str, text: str, /, **fields: Any) -> None:
        """Print what the command was called for: the fields here, the text on a TextScreen."""
        self.emit(kind, **fields)

    def note(self, text: str) -> None:
        self.emit("note", text=text)

    def tell(self, text: str) -> None:
        """Print nothing: a line for people whose facts a program has already."""

    def problem(self, text: str) -> None:
        """Print nothing, as `tell` does."""

    def changes(self, changes: Sequence[Change]) -> None:
        replacements = {"True": True, "False": False, "Conditional": None}
        self.emit(
            "changes",
            changes=[
                {**vars(change), "replacement": replacements.get(change.replacement, False)}
                for change in changes
            ],
        )

    def settings(self, settings: Sequence[Setting]) -> None:
        self.emit("settings", settings=[vars(setting) for setting in settings])

    def deletions(self, resources: Sequence[Resource]) -> None:
        self.emit(
            "resources",
            resources=[
                {"resource": each.logical_id, "resource_type": each.type} for each in resources
            ],
        )

    def following(self, title: str) -> AbstractContextManager[Show]:
        return nullcontext(self._event)

    def _event(self, event: Event) -> None:
        self.emit(
            "event",
            time=event.time.isoformat(),
            resource=event.logical_id,
            resource_type=event.type,
            status=event.status,
            reason=event.reason,
        )


class TextScreen(BothScreens):
    """Prints lines and tables for people on stderr, and products on stdout."""

    @property
    def live(self) -> bool:
        """Tell whether a person watches a terminal that can redraw."""
        return (
            sys.stderr.isatty() and self._rich().is_terminal and not self._rich().is_dumb_terminal
        )

    def _rich(self) -> RichConsole:
        from rich.console import Console as RichConsole

        if not hasattr(self, "_console"):
            # A pipe has no width; 100 columns hold every name of ours.
            width = None if sys.stderr.isatty() else 100
            self._console = RichConsole(stderr=True, highlight=False, width=width)
        return self._console

    def emit(self, kind: str, /, **fields: Any) -> None:
        """Print nothing: a line for programs only."""

    def product(self, kind: str, text: str, /, **fields: Any) -> None:
        """Print what the command was called for, on stdout."""
        write(sys.stdout, text)

    def note(self, text: str) -> None:
        write(sys.stderr, f"{text}\n")

    def tell(self, text: str) -> None:
        """Show a line that says in words what `emit` says in fields."""
        self.note(text)

    def problem(self, text: str) -> None:
        """Show a problem as the failure of a command is shown."""
        report(text)

    def table(self, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Print a table without borders, whose cells wrap between words.

        Where that is not enough, each row becomes a block of lines: no word is ever broken.
        """
        from rich.table import Table
        from rich.text import Text

        cells = [list(row) for row in rows]
        widths = narrowed([list(headings), *cells], self._rich().width)
        if widths is None:
            self._blocks(headings, cells)
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading, width in zip(headings, widths, strict=True):
            table.add_column(heading, width=width)
        for row in cells:
            table.add_row(*(Text(cell, _style(cell)) for cell in row))
        with self._rich().capture() as text:
            self._rich().print(table)
        # rich fills every cell with blanks, which a narrower terminal or a diff would show.
        write(sys.stderr, re.sub(r"(?m)( |\x1b\[[0-9;]*m {2,}\x1b\[0m)+$", "", text.get()))

    def _blocks(self, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Print a line for each cell; the terminal wraps one that is too long, and copies it whole.

        A number and what it is for, of a list to choose from, are on one line.
        """
        width = max(map(len, headings))
        for row in rows:
            cells = list(zip(headings, row, strict=True))
            indent = ""
            if not headings[0]:
                self.note(f"{row[0]}  {row[1]}")
                cells, indent = cells[2:], " " * (len(row[0]) + GAP)
            for heading, cell in cells:
                if cell:
                    self.note(f"{indent}{heading:<{width}}  {cell}")

    def changes(self, changes: Sequence[Change]) -> None:
        self.table(
            ["Action", "Resource", "Type", "Replacement"],
            [
                [
                    change.action,
                    change.logical_id,
                    change.type,
                    {"True": "yes: deleted and recreated", "Conditional": "possibly"}.get(
                        change.replacement, ""
                    ),
                ]
                for change in changes
            ],
        )

    def settings(self, settings: Sequence[Setting]) -> None:
        if settings:
            rows = [[each.setting, _shown(each.old), _shown(each.new)] for each in settings]
            self.table(["Setting", "Now", "After"], rows)

    def deletions(self, resources: Sequence[Resource]) -> None:
        if resources:
            self.table(
                ["Will be deleted", "Type"], [[each.logical_id, each.type] for each in resources]
            )

    @contextmanager
    def following(self, title: str) -> Iterator[Show]:
        """Show events as they come: redrawn on a live terminal, a line each elsewhere."""
        if not self.live:
            yield self._event
            return
        with waiting.paused():
            view = LiveView(self._rich(), title)
            try:
                yield view.show
            finally:
                view.close()

    def _event(self, event: Event) -> None:
        if not event.repeats:
            stamp = event.time.astimezone().strftime("%H:%M:%S")
            reason = f"  {plain_reason(event.reason)}" if event.reason else ""
            self.note(f"{stamp}  {event.logical_id:<25}  {event.status}{reason}")


DEFAULT_STACK = "batchreg"  # of --stack-name
# Commands that are about a stack, unless they name something else.
ABOUT_A_STACK = (
    "check",
    "deploy",
    "destroy",
    "doctor",
    "engine",
    "image",
    "jobs",
    "rotate",
    "status",
)
NAMES_SOMETHING = {"--stack-name", "--queue", "--compute-environment"}


def command_here(*words: str) -> str:
    """Return a batchreg command for the same stack, region and profile as this one.

    `--stack-name` is left out where it is the default, and added where
    the user gave it and `words` name nothing else.
    """
    command, *rest = words
    stack = _given("stack_name")
    at = rest.index("--stack-name") if "--stack-name" in rest else None
    if stack is None and at is not None and rest[at + 1] == DEFAULT_STACK:
        del rest[at : at + 2]
    elif stack and command in ABOUT_A_STACK and not NAMES_SOMETHING & {*rest}:
        rest = ["--stack-name", stack, *rest]
    for option in ("region", "profile", "endpoint_url"):
        if (value := _given(option)) and _takes(command, option):
            rest += [f"--{option.replace('_', '-')}", value]
    return shlex.join(["batchreg", command, *rest])


def _takes(command: str, option: str) -> bool:
    root = click.get_current_context().find_root().command
    found = root.commands.get(command) if isinstance(root, click.Group) else None
    return found is None or any(each.name == option for each in found.params)


def _given(option: str) -> str | None:
    """Return what the user gave for this run alone: by a flag, or in a file that a flag names."""
    context = click.get_current_context(silent=True)
    if not context:
        return None
    own = {ParameterSource.COMMANDLINE}
    if context.get_parameter_source("config") is ParameterSource.COMMANDLINE:
        own.add(ParameterSource.DEFAULT_MAP)
    if context.get_parameter_source(option) not in own:
        return None
    return str(context.params[option])


AnyScreen = TextScreen | JsonScreen


def screen(json_output: bool) -> AnyScreen:
    """Return the screen for --json or for people."""
    return JsonScreen() if json_output else TextScreen()


REPLACED = ("CREATE_COMPLETE", "UPDATE_COMPLETE")


class LiveView:
    """Keeps one line per resource up to date: its state, and since when."""

    def __init__(self, console: RichConsole, title: str) -> None:
        from rich.live import Live

        self._title, self._began = title, time.monotonic()
        # A full last line would let ^C wrap, and each redraw would then start a line too low.
        self._width = console.width - ROOM_FOR_CTRL_C - 1
        self._ended: float | None = None
        self._cleans_up = False
        self._rows: dict[str, _Row] = {}
        self._live = Live(
            console=console,
            get_renderable=self._draw,
            refresh_per_second=4,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def show(self, event: Event) -> None:
        now = time.monotonic()
        if event.of_stack:
            self._title = f"{event.logical_id}: {event.status}"
            self._cleans_up = event.status == "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS"
            return
        if self._cleans_up and event.status.startswith("DELETE_"):
            before = self._rows.get(event.logical_id)
            if before and before.status in REPLACED and not event.status.endswith("_FAILED"):
                return  # the event is about what this one has taken the place of
        row = self._rows.get(event.logical_id) or _Row(event.status, now)
        # The reason of the failure stays while the resource is deleted.
        reason = plain_reason(event.reason) if event.status.endswith("_FAILED") else row.reason
        self._rows[event.logical_id] = _Row(
            event.status, row.began, None if event.status.endswith("_IN_PROGRESS") else now, reason
        )

    def _draw(self) -> Any:
        from rich.console import Group
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        now = self._ended or time.monotonic()
        table = Table(box=None, pad_edge=False, show_header=False, width=self._width)
        for ratio in (None, None, None, None, 1):  # the reason takes the rest
            table.add_column(no_wrap=True, overflow="ellipsis", ratio=ratio)
        for name, row in list(self._rows.items()):  # a thread draws
            mark = (
                Spinner("line")
                if row.ended is None
                else Text("x" if row.reason else "+", BAD if row.reason else GOOD)
            )
            table.add_row(
                mark,
                name,
                Text(row.status, _style(row.status)),
                Text(waiting.duration((row.ended or now) - row.began), "dim"),
                Text(row.reason),
            )
        return Group(Text(f"{self._title}  {waiting.duration(now - self._began)}", "bold"), table)

    def close(self) -> None:
        self._ended = time.monotonic()
        self._live.stop()


@dataclass(frozen=True)
class _Row:
    status: str
    began: float
    ended: float | None = None
    reason: str = ""


def write(stream: IO[str], text: str) -> None:
    """Write all of it at once; a reader that has left, as `head` does, is no failure."""
    waiting.hide()
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _shown(value: str | bool) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return value or "-"


def _style(word: str) -> str:
    if word.endswith("_FAILED") or "ROLLBACK" in word or word in ("Remove", "INVALID"):
        return BAD
    if word.endswith("_COMPLETE") or word in ("Add", "VALID", "ENABLED"):
        return GOOD
    if word.endswith("_IN_PROGRESS") or word.startswith(("yes:", "possibly", "! ")):
        return DOING
    return ""
