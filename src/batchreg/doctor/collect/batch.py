"""The stack, its compute environments, its queues and their jobs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from batchreg.doctor import facts
from batchreg.doctor.collect.calls import Caller, name_of
from batchreg.stack import events
from batchreg.stack import states as stacks

JOBS = 10  # per state
WAITING = ("RUNNABLE", "STARTING")
FAILED_WITHIN_SECONDS = 3600


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
    configured = resources.get("ec2Configuration") or [{}]
    return facts.Environment(
        name=name,
        type=resources.get("type", "UNMANAGED"),
        state=raw.get("state", ""),
        status=raw.get("status", ""),
        reason=raw.get("statusReason", ""),
        max_vcpus=resources.get("maxvCpus", 0),
        instance_types=tuple(resources.get("instanceTypes", ())),
        image_type=configured[0].get("imageType", ""),
        service_role=raw.get("serviceRole", ""),
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


def _queue(name: str, raw: dict[str, Any] | None) -> facts.Queue:
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


def asked_job(caller: Caller, job_id: str) -> dict[str, Any] | None:
    """Return the job that the user named, or None."""
    found = caller.ask("job", "batch", "describe_jobs", jobs=[job_id])["jobs"]
    return found[0] if found else None


def stuck_jobs(caller: Caller, queue: str, now: datetime) -> list[dict[str, Any]]:
    """Return the jobs that wait, and those that failed within an hour without an exit code."""

    def listed(state: str) -> list[str]:
        jobs = caller.ask(
            "jobs", "batch", "list_jobs", jobQueue=queue, jobStatus=state, maxResults=100
        )["jobSummaryList"]
        if state == "FAILED":
            jobs = [
                job
                for job in jobs
                if not job.get("container", {}).get("exitCode")
                and _ended(job) > now.timestamp() - FAILED_WITHIN_SECONDS
            ]
        return [job["jobId"] for job in jobs[:JOBS]]

    ids = [job_id for state in (*WAITING, "FAILED") for job_id in listed(state)]
    if not ids:
        return []
    found: list[dict[str, Any]] = caller.ask("jobs", "batch", "describe_jobs", jobs=ids)["jobs"]
    return found


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


def _iso(milliseconds: float | None) -> str:
    return (
        ""
        if milliseconds is None
        else datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")
    )
