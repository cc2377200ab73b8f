"""A stack's compute environment: whether it is beyond repair, and what runs in it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from batchreg.jobs import batch as jobs
from batchreg.stack.states import UPDATABLE, Stack

if TYPE_CHECKING:
    from types_boto3_batch import BatchClient
    from types_boto3_ecs import ECSClient


def beyond_repair(
    batch: BatchClient, stack: Stack | None, ecs: Callable[[], ECSClient] | None = None
) -> str | None:
    """Return what is wrong with a compute environment that has to be replaced, as a predicate.

    None if nothing is, or if nobody can tell. AWS Batch never makes an environment VALID again once
    none of its instances has joined the cluster, and it never makes another cluster for one. `ecs`:
    returns the client that is asked for the cluster; without it, nobody asks.
    """
    from botocore.exceptions import ClientError

    arn = stack.outputs.get("ComputeEnvironmentArn") if stack else None
    if not stack or not arn or stack.status not in UPDATABLE:
        return None
    try:
        found = batch.describe_compute_environments(computeEnvironments=[arn])[
            "computeEnvironments"
        ]
    except ClientError:  # without the permission, a deploy does what it always does
        return None
    if not found:
        return "does not exist."
    if found[0]["status"] == "INVALID":
        return f"is INVALID: {found[0].get('statusReason') or 'AWS Batch gives no reason.'}"
    cluster = found[0].get("ecsClusterArn")
    if ecs and cluster:
        client = ecs()
        try:
            client.list_container_instances(cluster=cluster, maxResults=1)
        except client.exceptions.ClusterNotFoundException:
            return "has lost the ECS cluster that AWS Batch created for it."
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
