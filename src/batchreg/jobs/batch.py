"""Jobs of AWS Batch: submitting, following and ending them, with the client that is passed in."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchreg import aws
from batchreg.errors import BatchregError
from batchreg.jobs.log import Line, LogReader

if TYPE_CHECKING:
    from types_boto3_batch import BatchClient
    from types_boto3_batch.literals import JobStatusType
    from types_boto3_batch.type_defs import (
        ComputeEnvironmentDetailTypeDef,
        JobDetailTypeDef,
        JobSummaryTypeDef,
        SubmitJobRequestTypeDef,
    )
    from types_boto3_logs import CloudWatchLogsClient

UNFINISHED: tuple[JobStatusType, ...] = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING")
WAITING: tuple[JobStatusType, ...] = UNFINISHED[:-1]
STATES: tuple[JobStatusType, ...] = (*UNFINISHED, "SUCCEEDED", "FAILED")

Sleep = Callable[[float], None]


def submit(
    batch: BatchClient,
    *,
    name: str,
    queue: str,
    definition_arn: str,
    command: Sequence[str] = (),
    array_size: int | None = None,
) -> str:
    """Submit a job and return its id."""
    request: SubmitJobRequestTypeDef = {
        "jobName": name,
        "jobQueue": queue,
        "jobDefinition": definition_arn,
    }
    if command:
        request["containerOverrides"] = {"command": list(command)}
    if array_size:
        request["arrayProperties"] = {"size": array_size}
    return batch.submit_job(**request)["jobId"]


@dataclass(frozen=True)
class State:
    """A job's state and its reason. `children` counts an array job's children per state."""

    status: str
    reason: str
    children: tuple[tuple[str, int], ...] = ()


def find(batch: BatchClient, job_id: str) -> JobDetailTypeDef:
    """Return the job as Batch describes it; BatchregError if there is none."""
    found = batch.describe_jobs(jobs=[job_id])["jobs"]
    if not found:
        raise BatchregError(
            f"There is no job {job_id} in this region.",
            "Check the id and --region; AWS Batch forgets jobs after a week.",
        )
    return found[0]


def follow(
    batch: BatchClient,
    logs: CloudWatchLogsClient,
    job_id: str,
    *,
    since: int = 0,
    tail: int | None = None,
    sleep: Sleep = time.sleep,
    poll_seconds: float = 3,
    patience_seconds: float = 60,
) -> Iterator[State | Line | JobDetailTypeDef]:
    """Yield a job's states and log lines in order, and the job itself at the end.

    `since` and `tail` leave out lines from before, as LogReader does. A network that is unavailable
    for less than `patience_seconds` does not end it.
    """
    reader = LogReader(logs, since)
    shown: State | None = None
    pause, silence = min(0.2, poll_seconds), 0.0
    while True:
        began = time.monotonic()
        try:
            job = find(batch, job_id)
            now = state(job)
            finished = job["status"] not in UNFINISHED
            if not finished and now != shown:
                yield now
            shown = now
            if tail is not None:
                yield from reader.tail(job, tail)
                tail = None
            yield from reader.read(job)
            if finished:
                yield from reader.drain(job, sleep)
                yield now
                yield job
                return
            silence = 0
        except Exception as error:
            if silence > patience_seconds or not aws.is_transient(error):
                raise
            silence += pause + time.monotonic() - began
        sleep(pause)
        pause = min(pause * 1.5, poll_seconds)


def state(job: Mapping[str, Any]) -> State:
    """Return the state of a job as Batch describes or lists it."""
    children = job.get("arrayProperties", {}).get("statusSummary", {})
    return State(
        job["status"],
        " ".join(job.get("statusReason", "").split()),
        tuple((status, children[status]) for status in STATES if children.get(status)),
    )


def verdict(job: JobDetailTypeDef) -> tuple[int, str]:
    """Return (exit status, reason) of a job that has finished: its own exit code, or 1."""
    if job["status"] == "SUCCEEDED":
        return 0, ""
    container = job.get("container", {})
    said, code = container.get("reason", ""), container.get("exitCode")
    if code is not None and "CannotPull" in said:
        said = ""  # it ran, from an image that the instance had: the pull is not what failed it
    reason = said or job.get("statusReason") or "no reason given"
    # A status has eight bits: 256 would be a success.
    return code if code and 1 <= code <= 255 else 1, " ".join(reason.split())


_JOBS_SECRET = r"(Asm fetching secret|ResourceInitializationError.*(secret|registry auth))"
# The next step for a job that does not start, or ends without an exit code. CannotPull stands for
# CannotPullImageManifestError, of an image named by its tag, and for CannotPullContainerError. What
# the agent says of a secret that a job definition names is in the task's reason.
ADVICE = (
    (
        r"CannotPull.*(toomanyrequests|rate limit|\b429\b)",
        "The registry limits pulls: wait, or use credentials with a higher limit.",
    ),
    (r"CannotPull.*(manifest unknown|not found)", "Check the image's name and tag."),
    (
        r"CannotPull.*no space left",
        "The disk is full: batchreg deploy --root-volume-gib with a larger size.",
    ),
    (
        r"CannotPull.*no matching manifest",
        "The image is for another architecture than the instance types.",
    ),
    (
        r"CannotPull.*(timeout|deadline exceeded|dial tcp)",
        "The subnets do not reach the registry: check their route and the security groups.",
    ),
    (
        r"CannotPull.*no basic auth credentials",
        "The instance has no credentials for this registry: batchreg doctor finds out why.",
    ),
    (
        r"CannotPull",
        "The credentials may be wrong, or not allowed to pull this image: batchreg check "
        "--stack-name tells which.",
    ),
    (
        rf"{_JOBS_SECRET}.*(AccessDenied|not authorized)",
        "The execution role of the job definition needs secretsmanager:GetSecretValue on this "
        "secret, and kms:Decrypt on its customer managed key, if it has one.",
    ),
    (
        rf"{_JOBS_SECRET}.*(ResourceNotFound|can't find)",
        "The job definition names a secret that is not in this region: correct it, or create the "
        "secret.",
    ),
    (
        rf"{_JOBS_SECRET}.*(timeout|deadline exceeded|dial tcp)",
        "The subnets do not reach Secrets Manager: they need a route to the internet, or a VPC "
        "endpoint for secretsmanager.",
    ),
    (
        _JOBS_SECRET,
        "Check that the execution role of the job definition may read the secret "
        "(secretsmanager:GetSecretValue), and that the subnets reach Secrets Manager.",
    ),
    (r"CannotStartContainer", "Check the command after --."),
    (
        r"COMPUTE_ENVIRONMENT_MAX_RESOURCE",
        "The job is larger than the compute environment: "
        "use less --vcpus or --memory, or batchreg deploy --max-vcpus with more.",
    ),
    (
        r"JOB_RESOURCE_REQUIREMENT",
        "The job is larger than every instance type: "
        "use less --vcpus, --memory or --gpus, or batchreg deploy --instance-type with larger ones.",
    ),
    (
        r"INSUFFICIENT_INSTANCE_CAPACITY",
        "AWS has no capacity for these instance types: batchreg deploy --instance-type with more "
        "types, or wait.",
    ),
    (r"ACTION_REQUIRED", "batchreg doctor finds out what is wrong with the compute environment."),
    (
        r"SERVICE_ROLE_PERMISSIONS",
        "AWS Batch lacks a permission: check AWSServiceRoleForBatch in the IAM console.",
    ),
    (r"UNDETERMINED", "Check the subnets' route to AWS and the registry, and your EC2 vCPU quota."),
    (r"OutOfMemory", "Use more --memory."),
    (r"exceeded timeout", "Use a longer --timeout."),
    (r"Host EC2.*terminated", "The instance was terminated, as Spot Instances are: use --retries."),
)


def advice(reason: str) -> str:
    """Return the next step for a job with this reason, empty if the reason says enough."""
    return next(
        (step for pattern, step in ADVICE if re.search(pattern, reason, re.IGNORECASE | re.DOTALL)),
        "",
    )


def check_queue(batch: BatchClient, queue: str) -> list[ComputeEnvironmentDetailTypeDef]:
    """Return a queue's compute environments; refuse it if it or one of them is disabled or
    invalid.
    """
    queues = batch.describe_job_queues(jobQueues=[queue])["jobQueues"]
    if not queues:
        raise BatchregError(
            f"The job queue {queue.rsplit('/', 1)[-1]} no longer exists.",
            "Destroy the stack, then deploy it again.",
        )
    orders = queues[0]["computeEnvironmentOrder"]
    # The compute environment first: a queue is INVALID because of it.
    environments = batch.describe_compute_environments(
        computeEnvironments=[order["computeEnvironment"] for order in orders]
    )["computeEnvironments"]
    for environment in environments:
        _check(
            f"compute environment {environment['computeEnvironmentName']}",
            environment,
            "Fix the cause. If it stays INVALID, replace it: batchreg deploy --replace-environment",
        )
    name = f"job queue {queues[0]['jobQueueName']}"
    _check(name, queues[0], "Fix the cause, then run batchreg deploy.")
    return environments


def _check(name: str, found: Mapping[str, Any], step: str) -> None:
    if found["status"] == "INVALID":
        reason = " ".join(found.get("statusReason", "no reason given").split()).rstrip(".")
        raise BatchregError(f"The {name} is INVALID: {reason}.", step)
    if found["state"] != "ENABLED":
        raise BatchregError(f"The {name} is DISABLED.", "Enable it in the AWS Batch console.")


def in_state(batch: BatchClient, queue: str, state: JobStatusType) -> list[JobSummaryTypeDef]:
    """Return the queue's jobs in one state."""
    pages = batch.get_paginator("list_jobs").paginate(jobQueue=queue, jobStatus=state)
    return [job for page in pages for job in page["jobSummaryList"]]


def per_state(
    batch: BatchClient, queue: str, states: Sequence[JobStatusType] = STATES
) -> dict[str, list[Any]]:
    """Return {state: jobs}. Batch lists one state per call, so the calls run in parallel."""
    with ThreadPoolExecutor(len(states)) as pool:
        found = pool.map(lambda state: in_state(batch, queue, state), states)
        return dict(zip(states, found, strict=True))


def unfinished(batch: BatchClient, queue: str) -> list[Any]:
    """Return the queue's jobs that wait or run."""
    return [job for jobs in per_state(batch, queue, UNFINISHED).values() for job in jobs]


def number(jobs: Sequence[object]) -> str:
    """Say how many there are: "1 job", "2 jobs"."""
    return f"{len(jobs)} job{'' if len(jobs) == 1 else 's'}"


def counted(jobs: Sequence[Mapping[str, Any]]) -> str:
    """Say how many jobs there are of each state: "2 RUNNABLE, 1 RUNNING"."""
    counts = Counter(job["status"] for job in jobs)
    return ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])


def terminate(
    batch: BatchClient,
    queue: str,
    jobs: Sequence[Mapping[str, Any]],
    reason: str,
    *,
    sleep: Sleep = time.sleep,
    patience_seconds: float = 300,
) -> None:
    """Terminate the jobs and wait until the queue has none left.

    Raises BatchregError if some are unfinished after `patience_seconds`.
    """
    for job in jobs:
        batch.terminate_job(jobId=job["jobId"], reason=reason)
    pause, waited = 0.2, 0.0
    while left := unfinished(batch, queue):
        if waited > patience_seconds:
            raise BatchregError(
                f"{number(left)} did not finish within {waited:.0f} s.",
                "Wait, then destroy the stack again.",
            )
        sleep(pause)
        waited += pause
        pause = min(pause * 2, 5)
