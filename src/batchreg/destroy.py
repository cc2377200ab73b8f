"""Take a stack down, stuck or not."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from batchreg import jobs
from batchreg import stack as stacks
from batchreg.console import Console
from batchreg.deploy import attach, follow
from batchreg.errors import BatchregError
from batchreg.stack import Stack, StackFailed


def destroy(client: Any, batch: Any, present: Stack, console: Console,
            ask: Callable[[str], bool], *, terminate_jobs: bool = False,
            retain: Sequence[str] = (), role_arn: str | None = None, wait: bool = True,
            sleep: stacks.Sleep = time.sleep) -> None:
    """Delete the stack; `retain` names resources to leave behind where a delete got stuck.

    Raises BatchregError where jobs still run or the stack is protected, StackFailed with the first
    cause where the delete fails twice.
    """
    if present.busy:
        settled = attach(client, present, console, sleep=sleep)
        if settled is None:
            console.note(f"{present.name} is gone.")
            return
        present = settled
    if present.protected:
        raise BatchregError(
            f"{present.name} has termination protection. To lift it: batchreg deploy "
            f"--stack-name {present.name} --no-termination-protection")
    if retain and present.status != "DELETE_FAILED":
        raise BatchregError("CloudFormation leaves resources behind only after a delete has "
                            "failed: try without --retain first.")
    queue = present.outputs.get("JobQueueArn")
    running = jobs.unfinished(batch, queue) if queue else []
    resources = client.get_paginator("list_stack_resources").paginate(StackName=present.id)
    doomed = [resource for page in resources for resource in page["StackResourceSummaries"]
              if resource["ResourceStatus"] != "DELETE_COMPLETE"]
    if console.machine:
        console.emit("resources", resources=[
            {"resource": resource["LogicalResourceId"], "resource_type": resource["ResourceType"]}
            for resource in doomed])
    elif doomed:
        console.table(["Goes", "Type"], [
            [resource["LogicalResourceId"], resource["ResourceType"]] for resource in doomed])
    if running and not terminate_jobs:
        raise BatchregError(
            f"{len(running)} jobs in {present.name} have not finished ({jobs.counted(running)}): "
            "wait for them, or end them with --terminate-jobs.")
    also = f" and end {len(running)} jobs" if running else ""
    if not ask(f"Destroy {present.name}{also}?"):
        raise BatchregError(f"{present.name} is as it was.")
    if running and queue:
        console.note(f"Ending {len(running)} jobs.")
        jobs.terminate(batch, queue, running, f"{present.name} is being destroyed", sleep=sleep)
    token = stacks.delete(client, present, retain=retain, role_arn=role_arn)
    if not wait:
        console.note(f"Destroying {present.name}. Watch it: batchreg status "
                     f"--stack-name {present.name}")
        return
    try:
        follow(client, present.id, present.name, token, console, "Destroying", sleep=sleep)
    except StackFailed as failure:
        if retain:
            raise
        console.note(f"{failure} Trying once more.")
        _retry(client, batch, present, console, sleep)
    console.note(f"{present.name} is gone.")


def _retry(client: Any, batch: Any, present: Stack, console: Console,
           sleep: stacks.Sleep) -> None:
    """Delete a second time: much that is in the way, such as an instance, goes by itself."""
    environment = present.outputs.get("ComputeEnvironmentArn", "")
    token = stacks.delete(client, present)
    try:
        follow(client, present.id, present.name, token, console, "Destroying", sleep=sleep)
    except StackFailed as failure:
        others = [
            queue["jobQueueName"]
            for queue in batch.describe_job_queues()["jobQueues"]
            if any(order["computeEnvironment"] == environment
                   for order in queue.get("computeEnvironmentOrder", []))
        ]
        stuck = [event.logical_id for event in stacks.events(client, present.id)
                 if event.status == "DELETE_FAILED" and not event.of_stack]
        if others:
            raise StackFailed(
                f"{present.name}: the job queue {', '.join(others)} still uses its compute "
                "environment: take it out there, then destroy again.") from None
        options = " ".join(f"--retain {name}" for name in dict.fromkeys(stuck))
        raise StackFailed(f"{failure} Or leave it behind: batchreg destroy "
                          f"--stack-name {present.name} {options}") from None
