"""Wait for an update of a compute environment, which takes AWS some 10 to 30 minutes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from batchreg import aws
from batchreg.errors import BatchregError, Interrupted
from batchreg.stack.screen import Screen
from batchreg.stack.states import Sleep
from batchreg.waiting import TimedOut

BUSY = ("CREATING", "UPDATING")
POLL_SECONDS = 5.0
PATIENCE_SECONDS = 300.0  # for a network that is away


def until_settled(
    batch: Any, arn: str, screen: Screen, *, sleep: Sleep = time.sleep
) -> Mapping[str, Any]:
    """Return an environment as Describe gives it, once no update of it runs any more.

    Raises BatchregError if that takes longer than `sleep` allows.
    """
    pause, silence, said = 0.1, 0.0, False
    with screen.waiting(f"AWS Batch updates {arn.rpartition('/')[2]}"):
        while True:
            try:
                found = _describe(batch, arn)
                silence = 0.0
            except Exception as error:
                if silence > PATIENCE_SECONDS or not aws.is_transient(error):
                    raise
                silence += pause
            else:
                if found["status"] not in BUSY:
                    return found
                if not said:
                    name = found["computeEnvironmentName"]
                    screen.note(f"{name} is {found['status']}, which takes some 10 to 30 minutes.")
                    said = True
            try:
                sleep(pause)
            except TimedOut as timeout:
                name = arn.rpartition("/")[2]
                status = screen.command("status", "--compute-environment", name)
                raise BatchregError(
                    f"The update of {name} {timeout.after}; it continues.",
                    f"To resume watching, run the same command again; for its status: {status}",
                ) from None
            pause = min(pause * 1.5, POLL_SECONDS)


def until_valid(batch: Any, arn: str, screen: Screen, *, sleep: Sleep = time.sleep) -> None:
    """Wait for an update; BatchregError if the environment is not VALID afterwards."""
    found = until_settled(batch, arn, screen, sleep=sleep)
    if found["status"] != "VALID":
        name = found["computeEnvironmentName"]
        reason = " ".join(found.get("statusReason", "").split()).rstrip(".")
        raise BatchregError(
            f"{name} is {found['status']}: {reason or 'no reason given'}.",
            f"To put back what it had before: {screen.command('detach', name)}",
        )


@contextmanager
def explaining_interrupt(name: str) -> Iterator[None]:
    """Say, after a Ctrl-C in the block, that the update continues."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted; the update of {name} continues. To resume watching, run the same "
            "command again."
        ) from None


def _describe(batch: Any, arn: str) -> Mapping[str, Any]:
    answer = batch.describe_compute_environments(computeEnvironments=[arn])
    if not answer["computeEnvironments"]:
        raise BatchregError(f"{arn} does not exist any more.")
    found: Mapping[str, Any] = answer["computeEnvironments"][0]
    return found
