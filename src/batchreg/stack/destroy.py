"""Delete a stack, stuck or not."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from batchreg import aws
from batchreg.errors import BatchregError, Interrupted
from batchreg.jobs import batch as jobs
from batchreg.jobs import definitions
from batchreg.stack import registries, states
from batchreg.stack.deploy import leaving_behind
from batchreg.stack.following import (
    Operation,
    explaining_interrupt,
    follow,
    resume,
    without_failure,
)
from batchreg.stack.screen import Ask, Resource, Screen
from batchreg.stack.states import Sleep, Stack, StackFailed
from batchreg.waiting import TimedOut

AGAIN = "destroy again"


def destroy(
    client: Any,
    batch: Any,
    present: Stack,
    screen: Screen,
    ask: Ask,
    *,
    terminate_jobs: bool = False,
    keep_jobs: bool = False,
    retain: Sequence[str] = (),
    role_arn: str | None = None,
    wait: bool = True,
    sleep: Sleep = time.sleep,
) -> None:
    """Delete the stack; `retain` names resources to leave behind after a delete that got stuck.

    `keep_jobs`: its outputs name a queue that is not part of it, whose jobs are none of its business.
    Raises BatchregError if jobs still run or the stack is protected, StackFailed with the first
    cause if the delete fails twice.
    """
    if present.busy:
        after = resume(client, present, screen, again=AGAIN, sleep=sleep)
        if after is None:
            screen.note(f"{present.name} is gone.")
            return
        present = after
    if present.protected:
        command = screen.command(
            "deploy", "--stack-name", present.name, "--no-termination-protection"
        )
        raise BatchregError(
            f"{present.name} has termination protection.", f"To turn it off: {command}"
        )
    if retain and present.status != "DELETE_FAILED":
        raise BatchregError(
            "CloudFormation leaves resources behind only after a delete has failed.",
            "Try without --retain first.",
        )
    queues = {} if keep_jobs else _unfinished(batch, present)
    running = [job for found in queues.values() for job in found]
    screen.deletions(_resources(client, present))
    if running and not terminate_jobs:
        raise BatchregError(
            f"{present.name} has {jobs.number(running)} that did not finish yet "
            f"({jobs.counted(running)}).",
            "Wait, or terminate them with --terminate-jobs.",
        )
    also = f" and terminate {jobs.number(running)}" if running else ""
    if not ask(f"Destroy {states.placed(present.id)}{also}?"):
        raise BatchregError(f"No changes were made to {present.name}.")
    if running:
        _terminate(batch, present, queues, screen, sleep)
    _deregister(batch, present, screen)
    with explaining_interrupt(present.name, screen):
        token = states.delete(client, present, retain=retain, role_arn=role_arn)
        if not wait:
            status = screen.command("status", "--stack-name", present.name)
            screen.note(f"Deleting {present.name}. For its status: {status}")
            return
        try:
            _follow(client, present, token, screen, sleep)
        except StackFailed as failure:
            if retain:
                raise _explained(batch, present, failure, screen) from None
            screen.note(f"{failure} Trying once more.")
            # Much that is in the way, such as an instance, goes away by itself.
            token = states.delete(client, present, role_arn=role_arn)
            try:
                _follow(client, present, token, screen, sleep)
            except StackFailed as second:
                raise _explained(batch, present, second, screen) from None
        screen.note(f"{present.name} is gone.")
        if prefixes := [one.prefix for one in registries.of(present, None) if one.prefix]:
            screen.note(_left_in_ecr(prefixes, present))


def _left_in_ecr(prefixes: Sequence[str], present: Stack) -> str:
    """Return what stays: a repository belongs to no stack, and may be the only copy of an image.

    Only what is below the prefix of a rule comes from the cache: repositories next to it are others.
    """
    region = present.id.split(":")[3]
    chosen = " || ".join(f"starts_with(repositoryName, '{prefix}/')" for prefix in prefixes)
    below = ", ".join(f"{prefix}/" for prefix in prefixes)
    return (
        f"The images that ECR has cached below {below} stay there. To delete them: "
        f"aws ecr describe-repositories --region {region} --output text --query "
        f'"repositories[?{chosen}].[repositoryName]" | '
        f"xargs -r -n 1 aws ecr delete-repository --region {region} --force --repository-name"
    )


def _terminate(
    batch: Any,
    present: Stack,
    queues: dict[str, list[dict[str, Any]]],
    screen: Screen,
    sleep: Sleep,
) -> None:
    running = [job for found in queues.values() for job in found]
    screen.note(f"Terminating {jobs.number(running)}.")
    try:
        for queue, found in queues.items():
            # Disabled first, or a workflow that still submits would fill it again.
            batch.update_job_queue(jobQueue=queue, state="DISABLED")
            jobs.terminate(batch, queue, found, f"{present.name} is being destroyed", sleep=sleep)
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted; jobs are being terminated, and {present.name} still exists. "
            "To continue, run the same command again."
        ) from None
    except TimedOut as timeout:
        raise BatchregError(
            f"Ending the jobs {timeout.after}; it continues, and {present.name} still exists.",
            "To continue, run the same command again.",
        ) from None


def _deregister(batch: Any, present: Stack, screen: Screen) -> None:
    """Deregister the job definitions that submit registered; what AWS refuses here costs nothing.

    It comes before the delete: after it, a destroy that is run again finds no stack to clean up for.
    """
    if not present.arns("JobQueueArn"):  # without a queue, nobody has submitted anything
        return
    try:
        number = definitions.deregister_all(batch, present.name)
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted; {present.name} still exists. To continue, run the same command again."
        ) from None
    except Exception as error:
        if (line := aws.explain(error)) is None:
            raise
        screen.note(f"The job definitions of submit stay ACTIVE: {line}")
        return
    if number:
        screen.note(f"Deregistered {number} job definition{'' if number == 1 else 's'} of submit.")


def _follow(client: Any, present: Stack, token: str, screen: Screen, sleep: Sleep) -> None:
    operation = Operation(
        stack_id=present.id, name=present.name, token=token, verb="Deleting", again=AGAIN
    )
    final = follow(client, operation, screen, sleep=sleep)
    if final != "DELETE_COMPLETE":
        raise without_failure(present.name, final, AGAIN)


def _explained(batch: Any, present: Stack, failure: StackFailed, screen: Screen) -> StackFailed:
    """Name the queues of others that use a compute environment, or the way on without what stays."""
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
            f"{present.name}: the job queue {', '.join(others)} still uses its compute environment.",
            f"Remove it there, then {AGAIN}.",
            failure.stuck,
        )
    return leaving_behind(failure, present.name, screen, deletes=True)


def _unfinished(batch: Any, present: Stack) -> dict[str, list[dict[str, Any]]]:
    """Return {queue: jobs that wait or run}; a stuck delete may have deleted the queue."""
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


def _resources(client: Any, present: Stack) -> list[Resource]:
    if present.status in states.NOT_CREATED:
        return []
    pages = client.get_paginator("list_stack_resources").paginate(StackName=present.id)
    return [
        Resource(found["LogicalResourceId"], found["ResourceType"])
        for page in pages
        for found in page["StackResourceSummaries"]
        if found["ResourceStatus"] != "DELETE_COMPLETE"
    ]
