"""A batchreg that gets Ctrl-C while a request is under way."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from pathlib import Path

from account import BATCHREG
from wire import Wire

NOTHING = "batchreg: interrupted; no changes were made."

# All that batchreg prints on its way, as whole lines.
WHOLE = re.compile(
    r"Action  Resource +Type +Replacement|(Add|Modify)  +\w+ +AWS::\w+::\w+(  +.+)?"
    r"|Will be deleted +Type|\w+ +AWS::\w+::\w+"
    r"|\d\d:\d\d:\d\d  \S+ +[A-Z_]+(  .+)?"
)


class Interrupted:
    """A batchreg that gets SIGINT while a request is under way.

    `moment` is an operation, before or after AWS has had it, or a text in the answer.
    """

    def __init__(
        self, environ: dict[str, str], endpoint: str, folder: Path, moment: str, *command: str
    ) -> None:
        def reached(now: str) -> None:
            if now == moment:
                self.process.send_signal(signal.SIGINT)
                time.sleep(0.05)  # the answer must not come first

        def read(operation: str, body: bytes) -> bytes:
            _, _, text = moment.partition(" with ")
            if text and moment.startswith(operation) and f">{text}<".encode() in body:
                reached(moment)
            return body

        with Wire(
            endpoint,
            answer=read,
            before=lambda operation, count: reached(f"before {operation} {count}"),
            after=lambda operation, count: reached(f"after {operation} {count}"),
        ) as wire:
            self.process = subprocess.Popen(
                [BATCHREG, *command],
                cwd=folder,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**environ, "AWS_ENDPOINT_URL": wire.endpoint},
            )
            self.stdout, self.stderr = self.process.communicate(timeout=30)
        *self.before, self.last = self.stderr.splitlines()
        assert self.process.returncode == 130, self.stderr
        assert self.stderr.endswith("\n")
        assert [line for line in self.before if not WHOLE.fullmatch(line)] == []
