"""A stack's compute environment: whether it is beyond repair, and what runs in it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from batchreg.jobs import batch as jobs
from batchreg.stack.states import UPDATABLE, Stack

if TYPE_CHECKING:
    from types_boto3_batch import BatchClient


def invalid_reason(batch: BatchClient, stack: Stack | None) -> str | None:
    """Return why the compute environment is INVALID; None if it is not, or if nobody can tell.

    AWS Batch never makes it VALID again once none of its instances has joined the cluster: such an
    environment has to be replaced.
    """
    from botocore.exceptions import ClientError

    arn = stack.outputs.get("ComputeEnvironmentArn") if stack else None
    if not stack or not arn or stack.status not in UPDATABLE:
        return None
    with suppress(ClientError):  # without the permission, a deploy does what it always does
        for found in batch.describe_compute_environments(computeEnvironments=[arn])[
            "computeEnvironments"
        ]:
            if found["status"] == "INVALID":
                return found.get("statusReason") or "AWS Batch gives no reason."
    return None


def running(batch: BatchClient, stack: Stack | None) -> int:
    """Return how many jobs run in the stack's queues, 0 if nobody can tell."""
    from botocore.exceptions import ClientError

    with suppress(ClientError):
        return sum(
            len(found)
            for queue in (stack.arns("JobQueueArn") if stack else ())
            for found in jobs.per_state(batch, queue, ("STARTING", "RUNNING")).values()
        )
    return 0
