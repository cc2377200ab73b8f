"""What batchreg is waiting for: answers from AWS and from registries, and operations of AWS.

Whatever may take long is in here while it lasts, and a thread tells the display of the command line
about it. The thread starts with the first wait: `--help` and `render` have none.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from batchreg.errors import BatchregError

SAY_AFTER_SECONDS = 2.0
TICK_SECONDS = 0.25

Sleep = Callable[[float], None]


class Wait:
    """Something that has not happened yet. `text` says in words what is done meanwhile.

    `is_call`: one request, which says less than what it is part of. `plain_seconds`: when to say so
    where a line cannot be updated.
    """

    # Not a dataclass: that costs every --help a millisecond.
    def __init__(
        self,
        text: str,
        is_call: bool = False,
        plain_seconds: float = SAY_AFTER_SECONDS,
        began: float | None = None,
    ) -> None:
        self.text, self.is_call, self.plain_seconds = text, is_call, plain_seconds
        self.began = time.monotonic() if began is None else began

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began


class Display(Protocol):
    """Shows a wait to a person. Both methods are called by several threads, one at a time."""

    def show(self, wait: Wait) -> None:
        """Show the wait, again and again while it lasts."""

    def hide(self) -> None:
        """Take back what a terminal shows of it, before anything else is printed."""


_lock = threading.RLock()
_waits: list[Wait] = []
_begun = threading.Event()
_display: Display | None = None
_paused = 0
_thread: threading.Thread | None = None


def show_on(display: Display | None) -> None:
    """Show waits there from now on; with None, nowhere."""
    global _display
    with _lock:
        hide()
        _waits.clear()
        _display = display


def forget() -> None:
    """Drop all waits: Ctrl-C has ended them."""
    with _lock:
        hide()
        _waits.clear()


def hide() -> None:
    """Take back the line about a wait, if there is one."""
    with _lock:
        if _display:
            _display.hide()


def begin(text: str, *, is_call: bool = False, plain_seconds: float = SAY_AFTER_SECONDS) -> Wait:
    """Return a wait that lasts until `end`."""
    global _thread
    wait = Wait(text, is_call, plain_seconds)
    with _lock:
        _waits.append(wait)
        if _display and not _thread:
            _thread = threading.Thread(target=_watch, daemon=True)
            _thread.start()
    _begun.set()
    return wait


def end(wait: Wait | None) -> None:
    with _lock:
        if wait in _waits:
            _waits.remove(wait)
            hide()


@contextmanager
def pending(
    text: str, *, is_call: bool = False, plain_seconds: float = SAY_AFTER_SECONDS
) -> Iterator[None]:
    """Tell the display what is waited for as long as the block runs."""
    wait = begin(text, is_call=is_call, plain_seconds=plain_seconds)
    try:
        yield
    finally:
        end(wait)


@contextmanager
def paused() -> Iterator[None]:
    """Show no waits as long as the block runs: it shows by itself what happens."""
    global _paused
    with _lock:
        hide()
        _paused += 1
    try:
        yield
    finally:
        with _lock:
            _paused -= 1


def _watch() -> None:
    while _begun.wait():
        time.sleep(TICK_SECONDS)
        with _lock:
            if not _waits:
                _begun.clear()
            elif _display and not _paused and (wait := _longest()):
                _display.show(wait)


def _longest() -> Wait | None:
    """Return the wait to show: what has lasted longest, and of requests alone the latest."""
    late = [wait for wait in _waits if wait.seconds >= SAY_AFTER_SECONDS]
    works = [wait for wait in late if not wait.is_call]
    return works[0] if works else late[-1] if late else None


class TimedOut(BatchregError):
    """Something of AWS's has taken longer than the user wants to wait.

    Whoever waits for an operation says what continues. `after`: such as "has not finished after 3
    min".
    """

    def __init__(self, seconds: float) -> None:
        shown = f"{seconds:g} s" if seconds < 1 else duration(seconds)
        self.after = f"has not finished after {shown}"
        super().__init__(f"AWS {self.after}.", "To continue, run the same command again.")


def limited(seconds: float | None) -> Sleep:
    """Return a sleep for waits of so many seconds in all, from the first one on.

    It raises TimedOut then. Without a limit it is `time.sleep`.
    """
    if seconds is None:
        return time.sleep
    until: float | None = None

    def sleep(pause: float) -> None:
        nonlocal until
        if until is None:
            until = time.monotonic() + seconds
        left = until - time.monotonic()
        if left <= pause:
            time.sleep(max(0.0, left))
            raise TimedOut(seconds)
        time.sleep(pause)

    return sleep


def duration(seconds: float) -> str:
    """Return "45 s", "3 min" or "3 min 05 s"."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    return f"{minutes} min" + (f" {rest:02} s" if rest else "")
