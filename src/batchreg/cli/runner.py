"""The order of every command: gather, resolve, ask, act.

1. gather: check what the user gave. What is wrong shows before AWS is asked.
2. resolve: look at what exists, and decide what to do.
3. ask: ask a person for what is still missing; without a terminal, name it.
4. act: do it, and show the result.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from batchreg import aws
from batchreg.cli.console import AnyScreen, JsonScreen
from batchreg.errors import BatchregError, Interrupted

Inputs = TypeVar("Inputs")
Plan = TypeVar("Plan")


class Command(Protocol[Inputs, Plan]):
    """The stages of a command. Each raises BatchregError or click.UsageError."""

    def gather(self) -> Inputs:
        """Return what the user gave, checked."""

    def resolve(self, inputs: Inputs) -> Plan:
        """Return what to do, after a look at AWS."""

    def ask(self, plan: Plan) -> Plan:
        """Return the plan with what was missing."""

    def act(self, plan: Plan) -> int:
        """Do it and return the exit status."""


def run(command: Command[Inputs, Plan], screen: AnyScreen, **about: Any) -> int:
    """Run a command's stages and return the exit status.

    With --json a failure is the last line of stdout as well: the result, with the fields `about`.
    """
    try:
        return command.act(command.ask(command.resolve(command.gather())))
    except (BatchregError, Interrupted) as error:
        if isinstance(error, BatchregError):
            error.place(screen.command)
        screen.emit("result", **about, error=str(error))
        raise
    except Exception as error:
        if isinstance(screen, JsonScreen) and (line := aws.explain(error)):
            screen.emit("result", **about, error=line)
        raise
