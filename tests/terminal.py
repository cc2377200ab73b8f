"""A terminal with a program in it: what a test types, and what the program shows."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from pathlib import Path

# Gives the program the terminal as its controlling one, so that ^C becomes SIGINT.
CONTROL = (
    "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(2, termios.TIOCSCTTY, 0); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """Runs a command in a pseudo-terminal; stdout goes to a pipe of its own, as in `> file`."""

    def __init__(
        self, *command: str, environ: Mapping[str, str], folder: Path, columns: int = 80
    ) -> None:
        self.columns = columns
        self._ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (40, columns))
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-E", "-c", CONTROL, *command],
            cwd=folder,
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=theirs,
            env={"TERM": "xterm", **environ},
        )
        self._theirs = theirs  # kept, to see which modes the program leaves behind
        self.output, self._seen = "", 0

    def expect(self, text: str, seconds: float = 20) -> None:
        """Wait until the program has shown the text, after what was expected before."""
        end = time.monotonic() + seconds
        while text not in self.output[self._seen :]:
            assert self._read(end - time.monotonic()), f"{text!r} is not in {self.output!r}"
        self._seen = self.output.index(text, self._seen) + len(text)

    def type(self, text: str) -> None:
        if text == "\x03":
            time.sleep(0.05)  # as people do: Python's input() misses one in its first microseconds
        os.write(self._ours, text.encode())

    def signal(self, number: int) -> None:
        """Send a signal, such as the SIGHUP of a terminal that is closed."""
        time.sleep(0.05)  # Python's input() misses one in its first microseconds
        self._process.send_signal(number)

    def wait(self, seconds: float = 20) -> int:
        """Return the exit status; `output` and `stdout` are then complete."""
        end = time.monotonic() + seconds
        while self._process.poll() is None and time.monotonic() < end:
            self._read(0.02)
        while self._read(0.02):
            pass
        self.echoes = bool(termios.tcgetattr(self._theirs)[3] & termios.ECHO)
        self.stdout = self._process.communicate(timeout=1)[0].decode()
        return self._process.returncode

    def close(self) -> None:
        """End what still runs."""
        self._process.kill()
        self._process.communicate()
        os.close(self._theirs)
        os.close(self._ours)

    @property
    def lines(self) -> list[str]:
        """All lines ever shown, redrawn ones again, without colours and cursor movements."""
        return ESCAPE.sub("", self.output).replace("\r\n", "\n").replace("\r", "\n").split("\n")

    @property
    def screen(self) -> list[str]:
        """What the terminal shows in the end, lines that have scrolled out included."""
        lines, row, column = [""], 0, 0
        for escape, text in re.findall(rf"({ESCAPE.pattern})|([^\x1b])", self.output):
            if escape:
                count = int(re.sub(r"\D", "", escape) or 1)
                if escape.endswith("A"):
                    row = max(0, row - count)
                elif escape.endswith("K"):
                    lines[row] = "" if escape == "\x1b[2K" else lines[row][:column]
            elif text == "\r":
                column = 0
            elif text == "\n":
                row += 1
            else:
                if column == self.columns:  # a full line wraps with the next character
                    row, column = row + 1, 0
                lines += [""] * (row + 1 - len(lines))
                line = lines[row].ljust(column)
                lines[row] = line[:column] + text + line[column + 1 :]
                column += 1
            lines += [""] * (row + 1 - len(lines))
        return lines

    def _read(self, seconds: float) -> bool:
        if seconds < 0 or not select.select([self._ours], [], [], seconds)[0]:
            return False
        self.output += os.read(self._ours, 65536).decode(errors="replace")
        return True
