"""Follow an operation of CloudFormation to its end, and say why it failed and what to do."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from batchreg import aws
from batchreg.errors import BatchregError, Interrupted
from batchreg.stack import events, states
from batchreg.stack.events import plain_reason
from batchreg.stack.screen import Screen
from batchreg.stack.states import Sleep, Stack, StackFailed
from batchreg.waiting import TimedOut


@dataclass(frozen=True, kw_only=True)
class Operation:
    """An operation that CloudFormation is running on a stack.

    `token`: what its events carry. `verb`: as in "Updating genomics". `again`: the command to run
    next, as in "deploy again".
    """

    stack_id: str
    name: str
    token: str
    verb: str
    again: str = "deploy again"


def follow(client: Any, operation: Operation, screen: Screen, *, sleep: Sleep = time.sleep) -> str:
    """Show an operation until it finishes and return the stack's state.

    Raises StackFailed with the first cause if something failed, and BatchregError if AWS cannot be
    reached.
    """
    name, happened = operation.name, []
    try:
        with (
            explaining_interrupt(name, screen),
            screen.following(f"{operation.verb} {name}") as show,
        ):
            for event in events.follow(client, operation.stack_id, operation.token, sleep=sleep):
                show(event)
                happened.append(event)
    except Exception as error:
        line = aws.explain(error)
        if line is None:
            raise
        raise BatchregError(
            line, f"The operation on {name} continues; {operation.again} to watch it."
        ) from None
    final = happened[-1].status if happened and happened[-1].final else ""
    if failed := events.failures(happened):
        if final not in ("CREATE_COMPLETE", "UPDATE_COMPLETE", "DELETE_COMPLETE"):
            raise _failure(operation, failed)
        # The clean-up after an update may fail; the update itself took place.
        names = ", ".join(dict.fromkeys(event.logical_id for event in failed))
        screen.note(f"{name}: {names} could not be cleaned up: {plain_reason(failed[0].reason)}")
    if final:
        return final
    present = states.find(client, operation.stack_id)
    return present.status if present else "DELETE_COMPLETE"


def resume(
    client: Any,
    stack: Stack,
    screen: Screen,
    *,
    again: str = "deploy again",
    sleep: Sleep = time.sleep,
) -> Stack | None:
    """Follow an operation that an earlier run of batchreg started; return the stack after it.

    Raises BatchregError if something else started the operation.
    """
    token = events.latest_token(client, stack.id)
    if not token.startswith(states.PREFIX):
        raise BatchregError(
            f"{stack.name} is in {stack.status}, and batchreg did not start that operation.",
            f"Wait until it finishes, then {again}.",
        )
    screen.note(f"An earlier run left {stack.name} in {stack.status}; watching it.")
    operation = Operation(
        stack_id=stack.id, name=stack.name, token=token, verb="Watching", again=again
    )
    try:
        follow(client, operation, screen, sleep=sleep)
    except StackFailed as failure:
        screen.note(str(failure))
    return states.find(client, stack.name)


def _failure(operation: Operation, failed: Sequence[events.Event]) -> StackFailed:
    cause = failed[0]
    return StackFailed(
        f"{operation.name}: {cause.logical_id} ({cause.type}) failed: {plain_reason(cause.reason)}",
        next_step(cause.reason, operation.again),
        dict.fromkeys(event.logical_id for event in failed if not event.of_stack),
    )


# What the reason of a failed resource calls for.
NEXT_STEPS = {
    r"not authorized to perform|AccessDenied|access denied": "Ask for this permission, or give --role-arn",
    r"rate exceeded|throttl": "Wait a minute",
    r"security.?group": "Give security groups of the subnets' VPC with --security-group-id",
    r"subnet": "Give subnets of this region with --subnet-id",
    r"MIME|user ?data": "Fix the file of --user-data",
    r"JobQueue relationship": "Remove the compute environment from the queue that still uses it",
    r"limit ?exceeded|exceeded your|vcpu limit|quota": "Ask for a higher quota in the Service Quotas console",
    r"instance ?type": "Give types that this region has with --instance-type",
}


def next_step(reason: str, again: str = "deploy again") -> str:
    """Return what to do about a failed resource."""
    for pattern, step in NEXT_STEPS.items():
        if re.search(pattern, reason, re.IGNORECASE):
            return f"{step}, then {again}."
    return f"Fix that, then {again}."


def without_failure(name: str, status: str, again: str = "deploy again") -> StackFailed:
    """Return the failure of an operation that ended badly although no resource failed."""
    return StackFailed(
        f"{name} ended in {status}, but no resource reported a failure.", f"{again.capitalize()}."
    )


@contextmanager
def explaining_interrupt(name: str, screen: Screen) -> Iterator[None]:
    """Say, after a Ctrl-C in the block or at the end of the time for it, that it continues."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted; the operation on {name} continues. To resume watching, run the same "
            f"command again; for its status: {screen.command('status', '--stack-name', name)}"
        ) from None
    except TimedOut as timeout:
        raise BatchregError(
            f"The operation on {name} {timeout.after}; it continues.",
            "To resume watching, run the same command again; for its status: "
            f"{screen.command('status', '--stack-name', name)}",
        ) from None
