"""Take a stack down, stuck or not."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from batchreg.cli.console import Console
from batchreg.errors import BatchregError, Interrupted
from batchreg.jobs import batch as jobs
from batchreg.stack import states as stacks
from batchreg.stack.deploy import attach, explaining_interrupt, follow, leave_out, status_of
from batchreg.stack.states import Stack, StackFailed

AGAIN = "destroy again"


def destroy(
    client: Any,
    batch: Any,
    present: Stack,
    console: Console,
    ask: Callable[[str], bool],
    *,
    terminate_jobs: bool = False,
    retain: Sequence[str] = (),
    role_arn: str | None = None,
    wait: bool = True,
    sleep: stacks.Sleep = time.sleep,
) -> None:
    """Delete the stack; `retain` names resources to leave behind where a delete got stuck.

    Raises BatchregError where jobs still run or the stack is protected, StackFailed with the first
    cause where the delete fails twice.
    """
    if present.busy:
        settled = attach(client, present, console, again=AGAIN, sleep=sleep)
        if settled is None:
            console.note(f"{present.name} is gone.")
            return
        present = settled
    if present.protected:
        raise BatchregError(
            f"{present.name} has termination protection. To lift it: batchreg deploy "
            f"--stack-name {present.name} --no-termination-protection"
        )
    if retain and present.status != "DELETE_FAILED":
        raise BatchregError(
            "CloudFormation leaves resources behind only after a delete has "
            "failed: try without --retain first."
        )
    queues = _unfinished(batch, present)
    running = [job for found in queues.values() for job in found]
    doomed = _resources(client, present)
    if console.machine:
        console.emit(
            "resources",
            resources=[
                {
                    "resource": resource["LogicalResourceId"],
                    "resource_type": resource["ResourceType"],
                }
                for resource in doomed
            ],
        )
    elif doomed:
        console.table(
            ["Goes", "Type"],
            [[resource["LogicalResourceId"], resource["ResourceType"]] for resource in doomed],
        )
    if running and not terminate_jobs:
        raise BatchregError(
            f"{present.name} has {jobs.number(running)} that did not finish yet "
            f"({jobs.counted(running)}): wait, or end them with --terminate-jobs."
        )
    also = f" and end {jobs.number(running)}" if running else ""
    if not ask(f"Destroy {stacks.placed(present.id)}{also}?"):
        raise BatchregError(f"{present.name} is as it was.")
    if running:
        console.note(f"Ending {jobs.number(running)}.")
        try:
            for queue, found in queues.items():
                # Closed first, or a workflow that still submits would fill it again.
                batch.update_job_queue(jobQueue=queue, state="DISABLED")
                jobs.terminate(
                    batch, queue, found, f"{present.name} is being destroyed", sleep=sleep
                )
        except KeyboardInterrupt:
            raise Interrupted(
                f"interrupted; jobs are being ended, and {present.name} is as it "
                "was. To go on, run the same command again."
            ) from None
    with explaining_interrupt(present.name):
        token = stacks.delete(client, present, retain=retain, role_arn=role_arn)
        if not wait:
            console.note(f"Destroying {present.name}. Look at it: {status_of(present.name)}")
            return
        try:
            _follow(client, present, token, console, sleep)
        except StackFailed as failure:
            if retain:
                raise _explained(batch, present, failure) from None
            console.note(f"{failure} Trying once more.")
            # Much that is in the way, such as an instance, goes by itself.
            token = stacks.delete(client, present, role_arn=role_arn)
            try:
                _follow(client, present, token, console, sleep)
            except StackFailed as second:
                raise _explained(batch, present, second) from None
        console.note(f"{present.name} is gone.")


def _follow(client: Any, present: Stack, token: str, console: Console, sleep: stacks.Sleep) -> None:
    settled = follow(
        client, present.id, present.name, token, console, "Destroying", again=AGAIN, sleep=sleep
    )
    if settled != "DELETE_COMPLETE":
        raise StackFailed(f"{present.name} ended in {settled}: {AGAIN}.")


def _explained(batch: Any, present: Stack, failure: StackFailed) -> StackFailed:
    """Name the foreign queues that hold a compute environment, or the way on without what stays."""
    environments = present.arns("ComputeEnvironmentArn")
    pages = batch.get_paginator("describe_job_queues").paginate() if environments else []
    own = present.arns("JobQueueArn")
    others = [
        queue["jobQueueName"]
        for page in pages
        for queue in page["jobQueues"]
        if queue["jobQueueArn"] not in own
        and any(
            order["computeEnvironment"] in environments
            for order in queue.get("computeEnvironmentOrder", [])
        )
    ]
    if others:
        return StackFailed(
            f"{present.name}: the job queue {', '.join(others)} still uses its compute "
            f"environment: take it out there, then {AGAIN}.",
            failure.stuck,
        )
    return StackFailed(f"{failure}{leave_out(present.name, failure.stuck, True)}", failure.stuck)


def _unfinished(batch: Any, present: Stack) -> dict[str, list[dict[str, Any]]]:
    """Return {queue: jobs that wait or run}; a delete that got stuck may have taken the queue."""
    from botocore.exceptions import ClientError

    found = {}
    for queue in present.arns("JobQueueArn"):
        try:
            found[queue] = jobs.unfinished(batch, queue)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code")
            if present.status != "DELETE_FAILED" or code != "ClientException":
                raise
    return found


def _resources(client: Any, present: Stack) -> list[dict[str, Any]]:
    if present.status in stacks.NOT_CREATED:
        return []
    pages = client.get_paginator("list_stack_resources").paginate(StackName=present.id)
    return [
        resource
        for page in pages
        for resource in page["StackResourceSummaries"]
        if resource["ResourceStatus"] != "DELETE_COMPLETE"
    ]
