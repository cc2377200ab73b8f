"""What is waited for, on stderr: a line that is redrawn on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import os
import sys
import time

from batchreg import waiting
from batchreg.waiting import Wait

AGAIN_SECONDS = 60.0  # between two lines about the same wait, where none can be redrawn
ROOM_FOR_CTRL_C = len("^C")  # which the terminal shows at the end of the line
CLEAR = "\r\x1b[K"


class StderrDisplay:
    """Shows on stderr what batchreg waits for."""

    def __init__(self) -> None:
        self._redraws = sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._drawn = False
        self._said: dict[str, float] = {}

    def show(self, wait: Wait) -> None:
        """Redraw the line, or print one if it is time for one."""
        if self._redraws:
            # A full line would let ^C wrap.
            room = os.get_terminal_size(sys.stderr.fileno()).columns - ROOM_FOR_CTRL_C - 1
            elapsed = f"  {waiting.duration(wait.seconds)}"
            self._drawn = True
            self._write(f"{CLEAR}{_shortened(wait.text, room - len(elapsed))}{elapsed}")
            return
        now = time.monotonic()
        again = self._said.get(wait.text, -AGAIN_SECONDS) + AGAIN_SECONDS
        if wait.seconds >= wait.plain_seconds and now >= again:
            self._said[wait.text] = now
            self._write(f"{wait.text}  {waiting.duration(wait.seconds)}\n")

    def hide(self) -> None:
        """Clear the line, if it is on the screen."""
        if self._drawn:
            self._drawn = False
            self._write(CLEAR)

    def _write(self, text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except (OSError, ValueError):  # nobody reads it
            self._redraws = self._drawn = False


def _shortened(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: max(0, room - 3)]}..."
