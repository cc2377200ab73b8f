"""AWS Batch's jobs while they run: dependencies, attempts, array children, time.

A runner beside this process asks what there is to do (`local_aws_work`) and reports what has become
of it (`local_aws_task`). Only the embedded AWS's own process imports this.
"""

from __future__ import annotations

import copy
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ministack.services import batch

from local_aws import environments
from local_aws.requests import find, name_in

Data = dict[str, Any]

ENDED = ("SUCCEEDED", "FAILED")
TIMED_OUT = "Job attempt duration exceeded timeout"
TOO_LARGE = (
    "MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE - CE(s) associated with the job queue cannot "
    "meet the CPU requirement specified in the job."
)

HURRY = 1.0  # how many times faster than on AWS the time of a job's timeout passes


@dataclass
class Work:
    """What the runner has to know of a job besides what DescribeJobs shows."""

    needs: list[str]  # the jobs that must succeed first
    container: Data  # with parameters put in
    deadline: float = 0.0  # of the present attempt, by time.monotonic()
    stop: str = ""  # why it is to end
    lost: str = ""  # why the present attempt ends before its time
    task: Data = field(default_factory=dict)  # the present attempt, as the runner reports it


works: dict[str, Work] = {}


def begin(job: Data) -> None:
    """Let a job run, once what it depends on has succeeded; an array's children do it for it."""
    job.update(status="SUBMITTED", statusReason="")
    for key in ("startedAt", "stoppedAt"):
        job.pop(key, None)
    job["container"].pop("exitCode", None)
    size = job.get("arrayProperties", {}).get("size", 0)
    for index in range(size):
        child = copy.deepcopy(job)
        identity = f"{job['jobId']}:{index}"
        child.update(
            jobId=identity, jobArn=batch._job_arn(identity), arrayProperties={"index": index}
        )
        batch._jobs[identity] = child
        works[identity] = Work(list(_needs_of_child(job, index)), _filled(child))
    if not size:
        works[job["jobId"]] = Work([need["jobId"] for need in job["dependsOn"]], _filled(job))
    advance()


def _needs_of_child(job: Data, index: int) -> Iterator[str]:
    for need in job["dependsOn"]:
        if need.get("type") == "N_TO_N":
            yield f"{need['jobId']}:{index}"
        elif "jobId" in need:
            yield need["jobId"]
        elif index:  # SEQUENTIAL
            yield f"{job['jobId']}:{index - 1}"


def _filled(job: Data) -> Data:
    """Put the job's parameters into its command."""
    container: Data = copy.deepcopy(job["container"])
    container["command"] = [
        re.sub(
            r"Ref::([A-Za-z0-9_-]+)",
            lambda found: str(job["parameters"].get(found[1], found[0])),
            word,
        )
        for word in container.get("command", [])
    ]
    return container


def advance() -> None:
    """Bring every job as far as other jobs let it."""
    moved = True
    while moved:
        moved = False
        for identity, work in works.items():  # of ended jobs too, which cost nothing
            job = batch._jobs[identity]
            if job["status"] not in ("SUBMITTED", "PENDING"):
                continue
            states = {batch._jobs[need]["status"] for need in work.needs if need in batch._jobs}
            if "FAILED" in states:
                end(job, "FAILED", "Dependent Job failed")
            elif states <= {"SUCCEEDED"}:
                job["status"] = "RUNNABLE"
            else:
                job["status"] = "PENDING"
                continue
            moved = True
        summed_up = [_sum_up(job) for job in batch._jobs.values()]
        moved = moved or any(summed_up)


def children_of(job: Data) -> list[Data]:
    size = job.get("arrayProperties", {}).get("size", 0)
    names = (f"{job['jobId']}:{index}" for index in range(size))
    return [batch._jobs[name] for name in names if name in batch._jobs]


def _sum_up(job: Data) -> bool:
    """Give an array job the state of its children; tell whether that is its end."""
    children = children_of(job)
    if not children or job["status"] in ENDED:
        return False
    counts = Counter(child["status"] for child in children)
    job["arrayProperties"]["statusSummary"] = dict(counts)
    if sum(counts[status] for status in ENDED) < len(children):
        job["status"] = "PENDING"
        return False
    if counts["FAILED"]:
        end(job, "FAILED", "Array Child Job failed")
    else:
        end(job, "SUCCEEDED", "")
    return True


def end(job: Data, status: str, reason: str) -> None:
    job.update(status=status, statusReason=reason, stoppedAt=batch._now_ms())


def local_aws_work(request: Data) -> Data:
    """Tell the runner which jobs to start and to stop, and about the environments."""
    now = time.monotonic()
    start, stop = [], []
    for identity, work in works.items():
        job = batch._jobs[identity]
        if job["status"] == "RUNNABLE" and (environment := _environment_for(job)):
            start.append(_task(job, work, environment))
        elif job["status"] in ("STARTING", "RUNNING"):
            if work.deadline and now > work.deadline and not work.stop:
                work.stop = TIMED_OUT
            if work.stop:
                stop.append(identity)
    start.sort(key=lambda task: -task["priority"])
    names = batch._compute_envs
    return {"start": start, "stop": stop, "environments": {n: _instance(names[n]) for n in names}}


def _environment_for(job: Data) -> Data | None:
    """Return the first environment of the job's queue that may start it."""
    queue = batch._job_queues[name_in(job["jobQueue"])]
    order = sorted(queue["computeEnvironmentOrder"], key=lambda entry: entry["order"])
    found = [find(batch._compute_envs, entry["computeEnvironment"]) for entry in order]
    usable = [
        each
        for each in found
        if each["state"] == "ENABLED" and each["status"] in ("VALID", "UPDATING")
    ]
    vcpus = vcpus_of(job["container"])
    for environment in usable:
        if vcpus <= environment.get("computeResources", {}).get("maxvCpus", vcpus):
            return environment
    if usable:
        job["statusReason"] = TOO_LARGE
    return None


def vcpus_of(container: Data) -> float:
    needs = {each["type"]: each["value"] for each in container.get("resourceRequirements", [])}
    return float(needs.get("VCPU") or container.get("vcpus", 1))


def _task(job: Data, work: Work, environment: Data) -> Data:
    queue = batch._job_queues[name_in(job["jobQueue"])]
    name, index = environment["computeEnvironmentName"], job.get("arrayProperties", {})
    variables = {
        "AWS_BATCH_JOB_ID": job["jobId"],
        "AWS_BATCH_JOB_ATTEMPT": str(len(job["attempts"]) + 1),
        "AWS_BATCH_JQ_NAME": queue["jobQueueName"],
        "AWS_BATCH_CE_NAME": name,
    }
    if "index" in index:
        variables["AWS_BATCH_JOB_ARRAY_INDEX"] = str(index["index"])
        parent = batch._jobs[job["jobId"].partition(":")[0]]
        variables["AWS_BATCH_JOB_ARRAY_SIZE"] = str(parent["arrayProperties"]["size"])
    return {
        "jobId": job["jobId"],
        "priority": queue["priority"],
        "environment": name,
        "definition": name_in(job["jobDefinition"]).partition(":")[0],
        "container": work.container,
        "variables": variables,
        "vcpus": vcpus_of(work.container),
    }


def _instance(environment: Data) -> Data:
    """Return what an instance of an environment starts with."""
    resources, name = (
        environment.get("computeResources") or {},
        environment["computeEnvironmentName"],
    )
    types = resources.get("instanceTypes", [])
    kind = types[0] if types and "." in types[0] else f"{(types or ['m7i'])[0]}.large"
    version = environments.template_for(environment, kind) or {}
    return {
        "arn": environment["computeEnvironmentArn"],
        "cluster": name_in(environment["ecsClusterArn"]),
        "clusterArn": environment["ecsClusterArn"],
        "fargate": resources.get("type", "").startswith("FARGATE"),
        "revision": environments.revisions.get(name, 1),
        "instanceType": kind,
        "instanceRole": resources.get("instanceRole", ""),
        "userData": version.get("LaunchTemplateData", {}).get("UserData", ""),
        "maxvCpus": resources.get("maxvCpus", 0),
        "updatePolicy": environment.get("updatePolicy", {}),
        "usable": environment["state"] == "ENABLED" and environment["status"] != "INVALID",
    }


def local_aws_task(request: Data) -> Data:
    """Take what the runner reports of a job's present attempt."""
    identity, status = request.pop("jobId"), request.pop("status")
    job, work = batch._jobs[identity], works.get(identity)
    if work is None or job["status"] in ENDED:
        return {}  # too late: an ended job stays so
    reason = request.pop("statusReason", "")
    work.task.update(request)
    job["container"].update(request)
    if status == "INTERRUPTED":  # its instance goes; the attempt ends for that reason
        work.lost = reason
    elif status == "STARTING":
        job["status"] = "STARTING"
    elif status == "RUNNING":
        job.update(status="RUNNING", startedAt=batch._now_ms())
        if "timeout" in job:
            seconds = job["timeout"]["attemptDurationSeconds"] / HURRY
            work.deadline = time.monotonic() + seconds
    else:
        _end_attempt(job, work, reason)
    advance()
    return {}


def _end_attempt(job: Data, work: Work, reason: str) -> None:
    """Keep the attempt, and let the job end or have another one."""
    code, why = work.task.get("exitCode"), work.task.get("reason", "")
    reason = work.stop or work.lost or reason
    lost, work.lost = bool(work.lost), ""
    now = batch._now_ms()
    job["attempts"].append(
        {
            "container": dict(work.task),
            "startedAt": job.get("startedAt", now),
            "stoppedAt": now,
            "statusReason": reason,
        }
    )
    work.deadline, work.task = 0.0, {}
    if code == 0 and not work.stop and not lost:
        end(job, "SUCCEEDED", reason)
    elif work.stop or not _again(job, code, why, reason):
        end(job, "FAILED", reason)
    else:
        for key in ("exitCode", "reason", "logStreamName", "taskArn", "containerInstanceArn"):
            job["container"].pop(key, None)
        job.pop("startedAt", None)
        job.update(status="RUNNABLE", statusReason=reason)


def _again(job: Data, code: int | None, why: str, reason: str) -> bool:
    """Tell whether the retry strategy gives a failed job another attempt."""
    strategy = job.get("retryStrategy", {})
    if len(job["attempts"]) >= strategy.get("attempts", 1):
        return False
    given = {"onExitCode": "" if code is None else str(code), "onReason": why}
    given["onStatusReason"] = reason
    for rule in strategy.get("evaluateOnExit", []):
        patterns = {key: rule[key] for key in given.keys() & rule.keys()}
        if all(_matches(pattern, given[key]) for key, pattern in patterns.items()):
            return bool(rule["action"].upper() == "RETRY")
    return True


def _matches(pattern: str, text: str) -> bool:
    """Compare as evaluateOnExit does: in any case, and a `*` only at the end."""
    pattern, text = pattern.lower(), text.lower()
    return text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern
