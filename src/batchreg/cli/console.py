"""What people look at while AWS works: notes, tables and events, on stderr."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from batchreg.stack.changesets import Change
from batchreg.stack.states import Event, plain_reason

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

GOOD, BAD, DOING = "green", "red", "yellow"


class Console:
    """Notes for people on stderr or, with `machine`, JSON lines on stdout."""

    def __init__(self, *, machine: bool = False) -> None:
        self.machine = machine

    @property
    def live(self) -> bool:
        """Tell whether somebody watches a terminal that can redraw."""
        return (
            not self.machine
            and sys.stderr.isatty()
            and self._rich().is_terminal
            and (not self._rich().is_dumb_terminal)
        )

    def _rich(self) -> RichConsole:
        from rich.console import Console as RichConsole

        if not hasattr(self, "_console"):
            # In a pipe there is no width; 100 columns hold every name of ours.
            width = None if sys.stderr.isatty() else 100
            self._console = RichConsole(stderr=True, highlight=False, width=width)
        return self._console

    def note(self, text: str) -> None:
        """Say what happens, in one line."""
        if self.machine:
            self.emit("note", text=text)
        else:
            write(sys.stderr, f"{text}\n")

    def emit(self, kind: str, **fields: Any) -> None:
        """Print one JSON line, where a machine reads."""
        if self.machine:
            write(sys.stdout, json.dumps({"type": kind, **fields}, default=str) + "\n")

    def table(self, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Print a table without borders; long cells wrap rather than vanish."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in headings:
            table.add_column(heading, overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell, _style(cell)) for cell in row))
        with self._rich().capture() as text:
            self._rich().print(table)
        # rich fills every cell with blanks, which a narrower terminal or a diff would show.
        write(sys.stderr, re.sub(r"(?m)( |\x1b\[[0-9;]*m {2,}\x1b\[0m)+$", "", text.get()))

    def changes(self, changes: Sequence[Change]) -> None:
        """Show what a change set would do."""
        if self.machine:
            self.emit("changes", changes=[vars(change) for change in changes])
            return
        self.table(
            ["Action", "Resource", "Type", "Replacement"],
            [
                [
                    change.action,
                    change.logical_id,
                    change.type,
                    {"True": "yes: deleted and made anew", "Conditional": "perhaps"}.get(
                        change.replacement, ""
                    ),
                ]
                for change in changes
            ],
        )

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Show, where somebody watches, that something goes on; it vanishes with the block."""
        if self.live:
            from rich.status import Status

            with Status(text, console=self._rich(), spinner="line"):
                yield
        else:
            yield

    @contextmanager
    def following(self, title: str) -> Iterator[Follower | LiveFollower]:
        """Show events as they come: redrawn on a terminal, a line each elsewhere."""
        follower = LiveFollower(self._rich(), title) if self.live else Follower(self)
        try:
            yield follower
        finally:
            follower.close()


class Follower:
    """Prints a time-stamped line for each event."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def show(self, event: Event) -> None:
        if self._console.machine:
            self._console.emit(
                "event",
                time=event.time.isoformat(),
                resource=event.logical_id,
                resource_type=event.type,
                status=event.status,
                reason=event.reason,
            )
        elif not event.repeats:
            stamp = event.time.astimezone().strftime("%H:%M:%S")
            reason = f"  {plain_reason(event.reason)}" if event.reason else ""
            self._console.note(f"{stamp}  {event.logical_id:<25}  {event.status}{reason}")

    def close(self) -> None:
        pass


class LiveFollower:
    """Keeps one line a resource up to date: what is done, what runs, for how long."""

    def __init__(self, console: RichConsole, title: str) -> None:
        from rich.live import Live

        self._title, self._began = title, time.monotonic()
        self._ended: float | None = None
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
            return
        row = self._rows.get(event.logical_id) or _Row(event.status, now)
        # What happens after a failure, as the resource is removed, says nothing about the failure.
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
        table = Table(box=None, pad_edge=False, show_header=False, expand=True)
        for ratio in (None, None, None, None, 1):  # the reason takes what room is left
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
                Text(_elapsed((row.ended or now) - row.began), "dim"),
                Text(row.reason),
            )
        return Group(Text(f"{self._title}  {_elapsed(now - self._began)}", "bold"), table)

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
    """Write all of it at once; that the reader has left, as `head` does, changes nothing."""
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _elapsed(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"


def _style(word: str) -> str:
    if word.endswith("_FAILED") or "ROLLBACK" in word or word in ("Remove", "INVALID"):
        return BAD
    if word.endswith("_COMPLETE") or word in ("Add", "VALID", "ENABLED"):
        return GOOD
    if word.endswith("_IN_PROGRESS") or word.startswith(("yes:", "perhaps")):
        return DOING
    return ""
