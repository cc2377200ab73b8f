"""What people look at while AWS works: notes, tables and events, on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from batchreg.stack import Change, Event

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
        return not self.machine and sys.stderr.isatty() and self._rich().is_terminal and (
            not self._rich().is_dumb_terminal)

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
            print(text, file=sys.stderr, flush=True)

    def emit(self, kind: str, **fields: Any) -> None:
        """Print one JSON line, where a machine reads."""
        if self.machine:
            print(json.dumps({"type": kind, **fields}, default=str), flush=True)

    def table(self, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Print a table without borders; long cells wrap rather than vanish."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in headings:
            table.add_column(heading, overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell, _style(cell)) for cell in row))
        self._rich().print(table)

    def changes(self, changes: Sequence[Change]) -> None:
        """Show what a change set would do."""
        if self.machine:
            self.emit("changes", changes=[vars(change) for change in changes])
            return
        self.table(
            ["Action", "Resource", "Type", "Replacement"],
            [[change.action, change.logical_id, change.type,
              {"True": "yes: deleted and made anew", "Conditional": "perhaps"}.get(
                  change.replacement, "")] for change in changes])

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
        if event.repeats and not self._console.machine:
            return
        if self._console.machine:
            self._console.emit("event", time=event.time.isoformat(), resource=event.logical_id,
                               resource_type=event.type, status=event.status, reason=event.reason)
            return
        reason = f"  {' '.join(event.reason.split())}" if event.reason else ""
        stamp = event.time.astimezone().strftime("%H:%M:%S")
        print(f"{stamp}  {event.status:<20} {event.logical_id}{reason}", file=sys.stderr,
              flush=True)

    def close(self) -> None:
        pass


class LiveFollower:
    """Keeps one line a resource up to date: what is done, what runs, for how long."""

    def __init__(self, console: RichConsole, title: str) -> None:
        from rich.live import Live

        self._title, self._began = title, time.monotonic()
        self._states: dict[str, tuple[str, float, float | None, str]] = {}
        self._live = Live(console=console, get_renderable=self._draw, refresh_per_second=4)
        self._live.start()

    def show(self, event: Event) -> None:
        now = time.monotonic()
        if event.of_stack:
            self._title = f"{event.logical_id}: {event.status}"
            return
        running = event.status.endswith("_IN_PROGRESS")
        began = self._states.get(event.logical_id, ("", now, None, ""))[1]
        reason = event.reason if event.status.endswith("_FAILED") else ""
        self._states[event.logical_id] = (event.status, began, None if running else now, reason)

    def _draw(self) -> Any:
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        now = time.monotonic()
        table = Table(box=None, pad_edge=False, show_header=False)
        for name, (status, began, ended, reason) in self._states.items():
            mark = Spinner("dots") if ended is None else Text(
                "x" if status.endswith("_FAILED") else "+", _style(status))
            table.add_row(mark, name, Text(status, _style(status)),
                          Text(f"{(ended or now) - began:.0f} s", "dim"),
                          Text(" ".join(reason.split()), overflow="ellipsis", no_wrap=True))
        table.title = Text(f"{self._title}  {now - self._began:.0f} s", "bold", justify="left")
        table.title_justify = "left"
        return table

    def close(self) -> None:
        self._live.stop()


def _style(word: str) -> str:
    if word.endswith("_FAILED") or "ROLLBACK" in word or word in ("Remove", "INVALID"):
        return BAD
    if word.endswith("_COMPLETE") or word in ("Add", "VALID", "ENABLED"):
        return GOOD
    if word.endswith("_IN_PROGRESS") or word.startswith(("yes:", "perhaps")):
        return DOING
    return ""
