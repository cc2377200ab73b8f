"""Jobs of AWS Batch: definitions, submission, states and logs, over injected clients."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from batchreg.errors import BatchregError
from batchreg.image import Image

UNFINISHED = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING")
STATES = (*UNFINISHED, "SUCCEEDED", "FAILED")
LOG_GROUP = "/aws/batch/job"
TAG = "batchreg"  # on a job definition: the digest of what we registered

# Memory in MiB that Fargate allows for each number of vCPUs.
# Source: docs.aws.amazon.com/batch/latest/APIReference/API_ResourceRequirement.html
FARGATE = {
    0.25: (512, 1024, 2048),
    0.5: tuple(range(1024, 4097, 1024)),
    1: tuple(range(2048, 8193, 1024)),
    2: tuple(range(4096, 16385, 1024)),
    4: tuple(range(8192, 30721, 1024)),
    8: tuple(range(16384, 61441, 4096)),
    16: tuple(range(32768, 122881, 8192)),
}

Sleep = Callable[[float], None]


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What a job needs. `memory` is in MiB, `timeout` in seconds.

    `execution_role` and `secret` are ARNs, for jobs that carry their own registry login; on Fargate
    all do. Raises BatchregError for what Batch would refuse.
    """

    image: Image
    vcpus: float = 1
    memory: int = 2048
    gpus: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)
    job_role: str | None = None
    execution_role: str | None = None
    secret: str | None = None
    retries: int = 1
    timeout: int | None = None
    fargate: bool = False

    def __post_init__(self) -> None:
        if not self.fargate:
            if self.vcpus != int(self.vcpus) or self.vcpus < 1:
                raise BatchregError("On EC2 a job takes whole vCPUs: give --vcpus 1 or more.")
            return
        if self.gpus:
            raise BatchregError("Fargate has no GPUs: leave out --gpus or --fargate.")
        if self.memory not in FARGATE.get(self.vcpus, ()):
            pairs = [(vcpus, memory) for vcpus, sizes in FARGATE.items() for memory in sizes]
            near = sorted(pairs, key=lambda pair: abs(pair[0] - self.vcpus) * 4096
                          + abs(pair[1] - self.memory))[:3]
            fits = ", ".join(f"--vcpus {vcpus:g} --memory {memory}" for vcpus, memory in near)
            raise BatchregError(f"Fargate has no {self.vcpus:g} vCPUs with {self.memory} MiB; the "
                                f"nearest are {fits}.")


def definition(spec: Spec, command: Sequence[str] = ()) -> dict[str, Any]:
    """Return the job definition, in the form that RegisterJobDefinition takes."""
    resources = [{"type": "VCPU", "value": f"{spec.vcpus:g}"},
                 {"type": "MEMORY", "value": str(spec.memory)}]
    if spec.gpus:
        resources.append({"type": "GPU", "value": str(spec.gpus)})
    container: dict[str, Any] = {"image": spec.image.name, "resourceRequirements": resources}
    if command:
        container["command"] = list(command)
    if spec.environment:
        container["environment"] = _environment(spec.environment)
    if spec.job_role:
        container["jobRoleArn"] = spec.job_role
    if spec.execution_role:
        container["executionRoleArn"] = spec.execution_role
    if spec.secret:
        container["repositoryCredentials"] = {"credentialsParameter": spec.secret}
    if spec.fargate:
        # Without a public address, a job in a public subnet cannot reach the registry.
        container["networkConfiguration"] = {"assignPublicIp": "ENABLED"}
    body: dict[str, Any] = {
        "jobDefinitionName": definition_name(spec.image),
        "type": "container",
        "platformCapabilities": ["FARGATE" if spec.fargate else "EC2"],
        "containerProperties": container,
        "retryStrategy": {"attempts": spec.retries},
    }
    if spec.timeout:
        body["timeout"] = {"attemptDurationSeconds": spec.timeout}
    return body


def definition_name(image: Image) -> str:
    """Return a name for the image's job definition; its tag is left to the revisions."""
    return re.sub("[^A-Za-z0-9]+", "-", f"{image.registry}-{image.path}").strip("-")[:128]


def register(batch: Any, body: Mapping[str, Any]) -> str:
    """Return the ARN of a job definition like `body`: its latest revision, or a new one."""
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]
    pages = batch.get_paginator("describe_job_definitions").paginate(
        jobDefinitionName=body["jobDefinitionName"], status="ACTIVE")
    known = [found for page in pages for found in page["jobDefinitions"]]
    latest = max(known, key=lambda found: found["revision"], default=None)
    if latest and latest.get("tags", {}).get(TAG) == digest:
        return str(latest["jobDefinitionArn"])
    return str(batch.register_job_definition(**body, tags={TAG: digest})["jobDefinitionArn"])


def submit(batch: Any, *, name: str, queue: str, definition_arn: str, command: Sequence[str] = (),
           array_size: int | None = None) -> str:
    """Submit a job and return its id."""
    request: dict[str, Any] = {"jobName": name, "jobQueue": queue, "jobDefinition": definition_arn}
    if command:
        request["containerOverrides"] = {"command": list(command)}
    if array_size:
        request["arrayProperties"] = {"size": array_size}
    return str(batch.submit_job(**request)["jobId"])


@dataclass(frozen=True)
class State:
    """A job's state as it has just become. `children` counts an array's jobs per state."""

    status: str
    reason: str
    children: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Line:
    """A line of a job's log. `time` is in milliseconds since 1970."""

    text: str
    time: int


def find(batch: Any, job_id: str) -> dict[str, Any]:
    """Return the job as Batch describes it; BatchregError where there is none."""
    found: list[dict[str, Any]] = batch.describe_jobs(jobs=[job_id])["jobs"]
    if not found:
        raise BatchregError(f"There is no job {job_id} in this region; Batch forgets jobs after a "
                            "week.")
    return found[0]


def follow(batch: Any, logs: Any, job_id: str, *, sleep: Sleep = time.sleep,
           poll_seconds: float = 3) -> Iterator[State | Line | dict[str, Any]]:
    """Yield a job's states and log lines in order, and at last the job itself."""
    streams = LogReader(logs)
    shown: State | None = None
    pause = min(0.2, poll_seconds)
    while True:
        job = find(batch, job_id)
        state = State(job["status"], job.get("statusReason", ""), tuple(sorted(
            (status, count) for status, count in
            job.get("arrayProperties", {}).get("statusSummary", {}).items() if count)))
        finished = job["status"] not in UNFINISHED
        if not finished and state != shown:
            yield state
        shown = state
        yield from streams.read(job)
        if finished:
            yield from streams.drain(job, sleep)
            yield state
            yield job
            return
        sleep(pause)
        pause = min(pause * 1.5, poll_seconds)


class LogReader:
    """Reads a job's log streams, one an attempt, as they grow: no line twice, none lost."""

    def __init__(self, logs: Any) -> None:
        self._logs = logs
        self._tokens: dict[str, str | None] = {}
        self.lines = 0

    def read(self, job: Mapping[str, Any]) -> Iterator[Line]:
        """Yield what has come since the last call."""
        for stream in streams(job):
            yield from self._read(stream)

    def drain(self, job: Mapping[str, Any], sleep: Sleep, patience_seconds: float = 5
              ) -> Iterator[Line]:
        """Yield the last lines of a job that has ended; they can come some seconds late."""
        waited = 0.0
        while waited < patience_seconds and streams(job):
            before = self.lines
            yield from self.read(job)
            if self.lines == before and self.lines:
                return
            sleep(0.5)
            waited += 0.5

    def _read(self, stream: str) -> Iterator[Line]:
        while True:
            request: dict[str, Any] = {"logGroupName": LOG_GROUP, "logStreamName": stream,
                                       "startFromHead": True}
            token = self._tokens.get(stream)
            if token:
                request["nextToken"] = token
            try:
                answer = self._logs.get_log_events(**request)
            except self._logs.exceptions.ResourceNotFoundException:
                return  # the group or the stream comes with the first line
            for event in answer["events"]:
                self.lines += 1
                yield Line(event["message"], event["timestamp"])
            # At the end of what there is, the token that was sent comes back.
            self._tokens[stream] = answer["nextForwardToken"]
            if answer["nextForwardToken"] == token or not answer["events"]:
                return


def streams(job: Mapping[str, Any]) -> list[str]:
    """Return the names of a job's log streams, the first attempt's first."""
    attempts = [attempt.get("container", {}).get("logStreamName")
                for attempt in job.get("attempts", [])]
    attempts.append(job.get("container", {}).get("logStreamName"))
    return list(dict.fromkeys(filter(None, attempts)))


def verdict(job: Mapping[str, Any]) -> tuple[int, str]:
    """Return (exit status, reason) of a job that has ended: its own exit code, or 1."""
    container = job.get("container", {})
    if job["status"] == "SUCCEEDED":
        return 0, ""
    reason = container.get("reason") or job.get("statusReason") or "no reason given"
    code = container.get("exitCode")
    return (code, reason) if code else (1, reason)


# What a job that does not start or dies without an exit code calls for.
ADVICE = {
    r"CannotPullContainer.*(toomanyrequests|429)":
        "Docker Hub limits the pulls: use a login with a plan that allows more.",
    r"CannotPullContainer.*(manifest unknown|not found)": "Check the image's name and tag.",
    r"CannotPullContainer.*(no space left)":
        "The disk is full: batchreg deploy --root-volume-gib with more.",
    r"CannotPullContainer.*(no matching manifest|exec format)":
        "The image is for another architecture than the instance types.",
    r"CannotPullContainer.*(timeout|deadline|dial tcp|i/o)":
        "The subnets do not reach the registry: check their route and the security groups.",
    r"CannotPullContainer":
        "The login may be wrong, or may not read this image: check it, then batchreg deploy with "
        "the right one.",
    r"MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT|COMPUTE_ENVIRONMENT_MAX_RESOURCE":
        "The job is larger than the compute environment: give less --vcpus or --memory, or "
        "batchreg deploy --max-vcpus with more.",
    r"INSUFFICIENT_INSTANCE_CAPACITY":
        "AWS has no such instances free: allow more --instance-type, or wait.",
    r"OutOfMemory": "Give it more --memory.",
}


def advice(reason: str) -> str:
    """Return what to do about the reason of a job, empty where it speaks for itself."""
    return next((step for pattern, step in ADVICE.items()
                 if re.search(pattern, reason, re.IGNORECASE | re.DOTALL)), "")


def check_queue(batch: Any, queue: str) -> None:
    """Refuse a queue that cannot run a job: it, or its compute environment, is off or invalid."""
    found, = batch.describe_job_queues(jobQueues=[queue])["jobQueues"]
    if found["state"] != "ENABLED":
        raise BatchregError(f"The job queue {found['jobQueueName']} is DISABLED: enable it in the "
                            "AWS Batch console.")
    if found["status"] == "INVALID":
        raise BatchregError(f"The job queue {found['jobQueueName']} is INVALID: "
                            f"{found.get('statusReason', 'no reason given')}")
    arns = [order["computeEnvironment"] for order in found["computeEnvironmentOrder"]]
    for environment in batch.describe_compute_environments(
            computeEnvironments=arns)["computeEnvironments"]:
        if environment["status"] == "INVALID" or environment["state"] != "ENABLED":
            state = "INVALID" if environment["status"] == "INVALID" else "DISABLED"
            reason = environment.get("statusReason") or "no reason given"
            raise BatchregError(f"The compute environment {environment['computeEnvironmentName']} "
                                f"is {state}: {reason}")


def in_state(batch: Any, queue: str, state: str) -> list[dict[str, Any]]:
    """Return the queue's jobs in one state."""
    pages = batch.get_paginator("list_jobs").paginate(jobQueue=queue, jobStatus=state)
    return [job for page in pages for job in page["jobSummaryList"]]


def per_state(batch: Any, queue: str, states: Sequence[str] = STATES) -> dict[str, list[Any]]:
    """Return {state: jobs}; Batch lists one state a call, so the calls go out side by side."""
    with ThreadPoolExecutor(len(states)) as pool:
        found = pool.map(lambda state: in_state(batch, queue, state), states)
        return dict(zip(states, found, strict=True))


def unfinished(batch: Any, queue: str) -> list[dict[str, Any]]:
    """Return the queue's jobs that wait or run."""
    return [job for jobs in per_state(batch, queue, UNFINISHED).values() for job in jobs]


def counted(jobs: Sequence[dict[str, Any]]) -> str:
    """Say how many jobs there are of each state: "2 RUNNABLE, 1 RUNNING"."""
    counts = Counter(job["status"] for job in jobs)
    return ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])


def terminate(batch: Any, queue: str, jobs: Sequence[dict[str, Any]], reason: str, *,
              sleep: Sleep = time.sleep, patience_seconds: float = 300) -> None:
    """End the jobs and wait until the queue has none left.

    Raises BatchregError where some are still there after `patience_seconds`.
    """
    for job in jobs:
        batch.terminate_job(jobId=job["jobId"], reason=reason)
    pause, waited = 0.2, 0.0
    while left := unfinished(batch, queue):
        if waited > patience_seconds:
            raise BatchregError(f"{len(left)} jobs have not ended after {waited:.0f} s: wait, then "
                                "destroy again.")
        sleep(pause)
        waited += pause
        pause = min(pause * 2, 5)


def _environment(variables: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in variables.items()]
