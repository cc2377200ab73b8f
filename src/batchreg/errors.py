"""The failures that batchreg expects; `cli.main` turns each into one line and an exit status."""

import shlex
from collections.abc import Callable


class BatchregError(Exception):
    """An expected failure: a fact, and the next step. Both are sentences; together they are a line.

    `command`: the words of the batchreg command that the step ends with; the command line knows its
    region and profile. `status` is what the process exits with.
    """

    status = 1

    def __init__(self, fact: str, step: str = "", command: tuple[str, ...] = ()) -> None:
        super().__init__(fact, step)
        self.fact, self.step, self.command = fact, step, command
        if command:
            self.step = f"{step} {shlex.join(['batchreg', *command])}"

    def place(self, here: Callable[..., str]) -> None:
        """Let `here` write the command, once."""
        if self.command:
            bare = shlex.join(["batchreg", *self.command])
            self.step = f"{self.step.removesuffix(bare)}{here(*self.command)}"
            self.command = ()

    def __str__(self) -> str:
        return f"{self.fact} {self.step}".strip()


class Interrupted(BaseException):
    """Ctrl-C, with the line to print: what continues, and how to watch it. Exit status 130."""
