"""The stack, its compute environments, its queues and their jobs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from batchreg.attach import environment as attaching
from batchreg.doctor import facts
from batchreg.doctor.collect.calls import Caller, Unseen, name_of, start
from batchreg.stack import events
from batchreg.stack import states as stacks

JOBS = 10  # per state
RUNNING_JOBS = 3  # whose images are looked at, and as many that succeeded
STATES = ("RUNNABLE", "STARTING", "FAILED", "RUNNING", "SUCCEEDED")
FAILED_WITHIN_SECONDS = 3600
BATCH_TYPES = ("AWS::Batch::ComputeEnvironment", "AWS::Batch::JobQueue")


@dataclass(frozen=True)
class Jobs:
    """A queue's jobs: those that wait or have failed within an hour, and what runs.

    Without those whose image could not be pulled, and has been since: somebody has seen to that.
    `whole`: every state that matters was listed.
    """

    stuck: tuple[Mapping[str, Any], ...]
    running: int | None
    running_images: tuple[str, ...]
    whole: bool


def stack(caller: Caller, name: str) -> stacks.Stack | None:
    """Return the stack, None where there is none."""
    client = caller.client("cloudformation")
    return caller.run("stack", "cloudformation:DescribeStacks", lambda: stacks.find(client, name))


def cause(caller: Caller, present: stacks.Stack) -> str:
    """Return the first failure of the stack's last operation, empty where it went well."""
    if present.status in stacks.UPDATABLE and "ROLLBACK" not in present.status:
        return ""
    client = caller.client("cloudformation")

    def read() -> list[events.Event]:
        return events.read(client, present.id, events.latest_token(client, present.id))

    happened = caller.run("stack's events", "cloudformation:DescribeStackEvents", read)
    for first in events.failures(happened):
        return f"{first.logical_id} ({first.type}): {events.plain_reason(first.reason)}"
    return ""


def template(caller: Caller, present: stacks.Stack) -> str:
    """Return the text of the deployed template."""
    client = caller.client("cloudformation")
    return caller.run(
        "template", "cloudformation:GetTemplate", lambda: stacks.template_of(client, present)
    )


def resources(caller: Caller, present: stacks.Stack) -> dict[str, list[str]]:
    """Return {type: names} of a stack's compute environments and job queues, whoever made it."""
    found = caller.ask(
        "stack's resources", "cloudformation", "describe_stack_resources", StackName=present.id
    )["StackResources"]
    return {
        kind: [
            one["PhysicalResourceId"]
            for one in found
            if one["ResourceType"] == kind and one.get("PhysicalResourceId")
        ]
        for kind in BATCH_TYPES
    }


def environments(caller: Caller, arns: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return {name: compute environment as Batch describes it}."""
    found = caller.ask(
        "compute environment",
        "batch",
        "describe_compute_environments",
        computeEnvironments=list(arns),
    )["computeEnvironments"]
    return {one["computeEnvironmentName"]: one for one in found}


def environment(name: str, raw: dict[str, Any] | None) -> facts.Environment:
    if raw is None:
        return facts.Environment(name=name, exists=False)
    resources = raw.get("computeResources", {})
    known = attaching.read(raw)
    creator = attaching.created_by(known)
    configured = resources.get("ec2Configuration") or [{}]
    return facts.Environment(
        name=name,
        type=resources.get("type", "UNMANAGED"),
        orchestration=known.orchestration,
        created_by="" if creator is attaching.UNKNOWN else creator.name,
        updatable=known.has_service_linked_role
        and known.allocation_strategy in attaching.UPDATABLE_STRATEGIES,
        state=raw.get("state", ""),
        status=raw.get("status", ""),
        reason=raw.get("statusReason", ""),
        max_vcpus=resources.get("maxvCpus", 0),
        desired_vcpus=resources.get("desiredvCpus", 0),
        strategy=known.allocation_strategy,
        instance_types=tuple(resources.get("instanceTypes", ())),
        image_type=configured[0].get("imageType", ""),
        custom_image=known.custom_image,
        service_role=raw.get("serviceRole", ""),
        cluster=name_of(raw.get("ecsClusterArn", "")),
    )


def queues(caller: Caller, arns: Sequence[str]) -> list[facts.Queue]:
    """Return the queues of these ARNs or names, including those that do not exist."""
    found = {
        one["jobQueueName"]: one
        for one in caller.ask("job queue", "batch", "describe_job_queues", jobQueues=list(arns))[
            "jobQueues"
        ]
    }
    return [_queue(name, found.get(name)) for name in map(name_of, arns)]


def _queue(name: str, raw: Mapping[str, Any] | None) -> facts.Queue:
    if raw is None:
        return facts.Queue(name=name, exists=False)
    return facts.Queue(
        name=name,
        state=raw.get("state", ""),
        status=raw.get("status", ""),
        reason=raw.get("statusReason", ""),
        environments=tuple(
            name_of(order["computeEnvironment"]) for order in raw.get("computeEnvironmentOrder", ())
        ),
    )


def all_queues(caller: Caller) -> list[dict[str, Any]]:
    """Return all queues of the region as AWS Batch describes them."""
    found: list[dict[str, Any]] = caller.ask(
        "job queues", "batch", "describe_job_queues", items="jobQueues"
    )
    return found


def using(queues: Sequence[Mapping[str, Any]], environment: str) -> list[facts.Queue]:
    """Return the queues that use a compute environment, by its name."""
    found = [_queue(raw["jobQueueName"], raw) for raw in queues]
    return [queue for queue in found if environment in queue.environments]


def asked_job(caller: Caller, job_id: str) -> dict[str, Any] | None:
    """Return the job that the user named, or None."""
    found = caller.ask("job", "batch", "describe_jobs", jobs=[job_id])["jobs"]
    return found[0] if found else None


def jobs(caller: Caller, queue: str, now: datetime) -> Jobs:
    """Return a queue's jobs. AWS Batch lists one state per call, so the calls run in parallel."""
    lists = {state: start(_listed, caller, queue, state) for state in STATES}
    found = {state: _result(one) for state, one in lists.items()}
    running, succeeded = found.pop("RUNNING"), found.pop("SUCCEEDED") or ()
    failed = [
        job
        for job in found["FAILED"] or ()
        if _ended(job) > now.timestamp() - FAILED_WITHIN_SECONDS
    ]
    chosen = [
        *(found["RUNNABLE"] or ())[:JOBS],
        *(found["STARTING"] or ())[:JOBS],
        *sorted(failed, key=_ended, reverse=True)[:JOBS],
    ]
    described = []
    started = [
        *(running or ())[:RUNNING_JOBS],
        *(sorted(succeeded, key=_ended, reverse=True)[:RUNNING_JOBS] if failed else ()),
    ]
    if ids := [job["jobId"] for job in [*chosen, *started]]:
        described = caller.ask("jobs", "batch", "describe_jobs", jobs=ids)["jobs"]
    stuck = {job["jobId"] for job in chosen}
    ran = [one for one in described if one["jobId"] not in stuck]
    return Jobs(
        stuck=tuple(
            one for one in described if one["jobId"] in stuck and not _pulled_since(one, ran)
        ),
        running=None if running is None else len(running),
        running_images=tuple(
            dict.fromkeys(
                one.get("container", {}).get("image", "")
                for one in ran
                if one["status"] == "RUNNING"
            )
        ),
        whole=all(one is not None for one in found.values()),
    )


def _listed(caller: Caller, queue: str, state: str) -> list[dict[str, Any]]:
    request: dict[str, Any] = {"jobQueue": queue, "jobStatus": state, "maxResults": 100}
    found: list[dict[str, Any]] = caller.ask("jobs", "batch", "list_jobs", **request)[
        "jobSummaryList"
    ]
    return found


def _result(future: Future[list[dict[str, Any]]]) -> list[dict[str, Any]] | None:
    try:
        return future.result()
    except Unseen:
        return None


def job(raw: dict[str, Any], *, asked: bool) -> facts.Job:
    """Take what matters from a job as Batch describes it: not its command, not its variables."""
    container = raw.get("container", {})
    needs = {one["type"]: float(one["value"]) for one in container.get("resourceRequirements", ())}
    return facts.Job(
        id=raw["jobId"],
        name=raw.get("jobName", ""),
        asked=asked,
        queue=name_of(raw.get("jobQueue", "")),
        status=raw.get("status", ""),
        reasons=tuple(dict.fromkeys(_reasons(raw))),
        exit_code=container.get("exitCode"),
        image=container.get("image", ""),
        vcpus=float(needs.get("VCPU", container.get("vcpus", 0))),
        memory=int(needs.get("MEMORY", container.get("memory", 0))),
        gpus=int(needs.get("GPU", 0)),
        fargate="FARGATE" in raw.get("platformCapabilities", ()),
        execution_role=container.get("executionRoleArn", ""),
        role=container.get("jobRoleArn", ""),
        own_credentials=bool(own_secret(raw)),
        created=_iso(raw.get("createdAt")),
    )


def own_secret(raw: dict[str, Any]) -> str:
    """Return the ARN of the secret in the job's repositoryCredentials, empty without one."""
    container = raw.get("container", {})
    return str(container.get("repositoryCredentials", {}).get("credentialsParameter", ""))


def _reasons(raw: dict[str, Any]) -> Iterator[str]:
    """Yield what is said about the job, its container and its attempts, the newest first."""
    for record in (raw, *reversed(raw.get("attempts", []))):
        for text in (record.get("container", {}).get("reason"), record.get("statusReason")):
            if text:
                yield " ".join(text.split())[:500]


def _ended(job: dict[str, Any]) -> float:
    """Return when a job ended, or at least was submitted, in seconds since 1970."""
    return float(job.get("stoppedAt") or job.get("createdAt") or 0) / 1000


def _pulled_since(job: dict[str, Any], ran: Sequence[dict[str, Any]]) -> bool:
    """Tell whether an image that a job failed to pull came, in the same way, for a later one."""
    if job["status"] != "FAILED" or not any("CannotPull" in text for text in _reasons(job)):
        return False
    image = job.get("container", {}).get("image")
    return any(
        one.get("container", {}).get("image") == image
        and own_secret(one) == own_secret(job)
        and (one.get("startedAt") or 0) / 1000 > _ended(job)
        for one in ran
    )


def _iso(milliseconds: float | None) -> str:
    return (
        ""
        if milliseconds is None
        else datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")
    )
