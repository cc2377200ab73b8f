"""AWS Batch's jobs: from SubmitJob through dependencies, attempts and array children to the end.

A job either follows a script (`local_aws_jobs`) or runs: then a runner beside this process asks
what there is to do (`local_aws_work`) and reports what has become of it (`local_aws_task`). Only
the embedded AWS's own process imports this.
"""

from __future__ import annotations

import copy
import fnmatch
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ministack.services import batch

from local_aws import environments
from local_aws.definitions import check_limits, find_definition
from local_aws.requests import ask, find, name_in

Data = dict[str, Any]

ENDED = ("SUCCEEDED", "FAILED")
EXITED = "Essential container in task exited"
TIMED_OUT = "Job attempt duration exceeded timeout"

SUMMARY = (
    "jobArn",
    "jobId",
    "jobName",
    "createdAt",
    "status",
    "statusReason",
    "startedAt",
    "stoppedAt",
    "arrayProperties",
    "jobDefinition",
)

HURRY = 1.0  # how many times faster than on AWS the time of a job's timeout passes

_next_jobs: Data = {"status": "SUCCEEDED"}  # what a job is told that nobody has told anything


@dataclass
class Work:
    """What the runner has to know of a job besides what DescribeJobs shows."""

    needs: list[str]  # the jobs that must succeed first
    container: Data  # with parameters put in
    deadline: float = 0.0  # of the present attempt, by time.monotonic()
    stop: str = ""  # why it is to end
    lost: str = ""  # why the present attempt ends before its time
    task: Data = field(default_factory=dict)  # the present attempt, as the runner reports it


_work: dict[str, Work] = {}


# --- Submitting ---


def submit_job(request: Data) -> Data:
    queue = find(batch._job_queues, request["jobQueue"])
    definition = find_definition(request["jobDefinition"])
    _check(request)
    answer = ask(batch._submit_job, request)
    job = batch._jobs[answer["jobId"]]
    strategy = request.get("retryStrategy") or definition.get("retryStrategy")
    timeout = request.get("timeout") or definition.get("timeout")
    job.update(
        jobQueue=queue["jobQueueArn"],
        jobDefinition=definition["jobDefinitionArn"],
        parameters={**definition.get("parameters", {}), **request.get("parameters", {})},
        container=merged(definition["containerProperties"], request.get("containerOverrides", {})),
        dependsOn=request.get("dependsOn", []),
        attempts=[],
        platformCapabilities=definition.get("platformCapabilities", ["EC2"]),
        **({"retryStrategy": strategy} if strategy else {}),
        **({"timeout": timeout} if timeout else {}),
    )
    if "arrayProperties" in request:
        job["arrayProperties"] = request["arrayProperties"]
    status = {**job["parameters"], **job["tags"]}.get("local-aws-status")
    script = {"status": status} if status else _next_jobs
    if script["status"] == "RUN":
        _begin(job)
    else:
        _set_job(job, **script)
    return answer


def _check(request: Data) -> None:
    check_limits(request)
    if not 2 <= request.get("arrayProperties", {"size": 2})["size"] <= 10_000:
        raise ValueError("Array size must be between 2 and 10000.")
    if len(request.get("dependsOn", [])) > 20:
        raise ValueError("A job may depend on at most 20 jobs")
    for need in request.get("dependsOn", []):
        if "jobId" in need:
            find(batch._jobs, need["jobId"])
        elif need.get("type") != "SEQUENTIAL":
            raise ValueError("jobId must be specified for a dependency that is not SEQUENTIAL")


def merged(container: Data, overrides: Data) -> Data:
    """Lay overrides over a container: lists of names and of types merge, all else replaces."""
    result = {**copy.deepcopy(container), **copy.deepcopy(overrides)}
    for key, name in (("environment", "name"), ("resourceRequirements", "type")):
        if key in container or key in overrides:
            entries = [*container.get(key, []), *overrides.get(key, [])]
            result[key] = list({entry[name]: entry for entry in entries}.values())
    # The old names of vCPUs and memory count where an override uses them.
    for key, kind in (("vcpus", "VCPU"), ("memory", "MEMORY")):
        if key in overrides and "resourceRequirements" in result:
            result["resourceRequirements"] = [
                {**each, "value": str(overrides[key])} if each["type"] == kind else each
                for each in result["resourceRequirements"]
            ]
    return result


def _begin(job: Data) -> None:
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
        _work[identity] = Work(list(_needs_of_child(job, index)), _filled(child))
    if not size:
        _work[job["jobId"]] = Work([need["jobId"] for need in job["dependsOn"]], _filled(job))
    _advance()


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


# --- Running ---


def _advance() -> None:
    """Bring every job as far as other jobs let it."""
    moved = True
    while moved:
        moved = False
        for identity, work in _work.items():  # of ended jobs too, which cost nothing
            job = batch._jobs[identity]
            if job["status"] not in ("SUBMITTED", "PENDING"):
                continue
            states = {batch._jobs[need]["status"] for need in work.needs if need in batch._jobs}
            if "FAILED" in states:
                _end(job, "FAILED", "Dependent Job failed")
            elif states <= {"SUCCEEDED"}:
                job["status"] = "RUNNABLE"
            else:
                job["status"] = "PENDING"
                continue
            moved = True
        summed_up = [_sum_up(job) for job in batch._jobs.values()]
        moved = moved or any(summed_up)


def _children(job: Data) -> list[Data]:
    size = job.get("arrayProperties", {}).get("size", 0)
    names = (f"{job['jobId']}:{index}" for index in range(size))
    return [batch._jobs[name] for name in names if name in batch._jobs]


def _sum_up(job: Data) -> bool:
    """Give an array job the state of its children; tell whether that is its end."""
    children = _children(job)
    if not children or job["status"] in ENDED:
        return False
    counts = Counter(child["status"] for child in children)
    job["arrayProperties"]["statusSummary"] = dict(counts)
    if sum(counts[status] for status in ENDED) < len(children):
        job["status"] = "PENDING"
        return False
    if counts["FAILED"]:
        _end(job, "FAILED", "Array Child Job failed")
    else:
        _end(job, "SUCCEEDED", "")
    return True


def _end(job: Data, status: str, reason: str) -> None:
    job.update(status=status, statusReason=reason, stoppedAt=batch._now_ms())


def local_aws_work(request: Data) -> Data:
    """Tell the runner which jobs to start and to stop, and about the environments."""
    now = time.monotonic()
    start, stop = [], []
    for identity, work in _work.items():
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
    queue = batch._job_queues[name_in(job["jobQueue"])]
    for entry in sorted(queue["computeEnvironmentOrder"], key=lambda entry: entry["order"]):
        environment = find(batch._compute_envs, entry["computeEnvironment"])
        if environment["state"] == "ENABLED" and environment["status"] in ("VALID", "UPDATING"):
            return environment
    return None


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
    job, work = batch._jobs[identity], _work.get(identity)
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
    _advance()
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
        _end(job, "SUCCEEDED", reason)
    elif work.stop or not _again(job, code, why, reason):
        _end(job, "FAILED", reason)
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


# --- Scripts ---


def local_aws_jobs(request: Data) -> Data:
    """Move one job, or all that are submitted from now on, to a status; AWS has no such call."""
    job_id = request.pop("jobId", None)
    if job_id:
        job = find(batch._jobs, job_id)
        if job["status"] not in ENDED:  # a late status does not revive a job
            _set_job(job, **request)
    else:
        _next_jobs.clear()
        _next_jobs.update(request)
    return {}


def _set_job(
    job: Data, status: str, exitCode: int | None = None, statusReason: str = "", **details: Any
) -> None:
    job.update(status=status, statusReason=statusReason, startedAt=None, stoppedAt=None)
    if status in ("RUNNING", "SUCCEEDED") or exitCode is not None:
        job["startedAt"] = batch._now_ms()
        if "arrayProperties" not in job:  # an array's jobs have logs, and itself has none
            name = name_in(job["jobDefinition"]).partition(":")[0]
            job["container"].setdefault("logStreamName", f"{name}/default/{job['jobId']}")
    if status in ENDED:
        job["stoppedAt"] = batch._now_ms()
    job["container"]["exitCode"] = 0 if status == "SUCCEEDED" else exitCode
    for key, value in details.items():
        job[key] = {**job.get(key, {}), **value} if isinstance(value, dict) else value
    for record in (job, job["container"]):
        for key in [key for key, value in record.items() if value is None]:
            del record[key]


# --- Ending, and looking ---


def terminate_job(request: Data) -> Data:
    job = find(batch._jobs, request["jobId"])
    for each in [*_children(job), job]:
        if each["status"] not in ENDED:
            each["isTerminated"] = True
        stop_job(each, request["reason"])
    _advance()
    return {}


def stop_job(job: Data, reason: str) -> None:
    """End a job; one that runs ends when its container has."""
    work = _work.get(job["jobId"])
    if job["status"] in ENDED or _children(job):
        return
    if work and job["status"] in ("STARTING", "RUNNING"):
        work.stop = work.stop or reason
    elif work:
        _end(job, "FAILED", reason)
    else:
        _set_job(job, "FAILED", 137 if job["status"] == "RUNNING" else None, reason)


def cancel_job(request: Data) -> Data:
    job = find(batch._jobs, request["jobId"])
    for each in [*_children(job), job]:
        if each["status"] not in ("STARTING", "RUNNING", *ENDED):  # else too late, and no error
            each["isCancelled"] = True
            stop_job(each, request["reason"])
    _advance()
    return {}


def describe_jobs(request: Data) -> Data:
    names = [name_in(reference) for reference in request["jobs"]]
    return {"jobs": [batch._jobs[name] for name in names if name in batch._jobs]}


def list_jobs(request: Data) -> Data:
    """List as Batch does: without a status and without filters, the running jobs only."""
    found = list(batch._jobs.values())
    if parent := request.get("arrayJobId"):
        found = _children(find(batch._jobs, parent))
    else:
        queue = find(batch._job_queues, request["jobQueue"])["jobQueueArn"]
        found = [job for job in found if job["jobQueue"] == queue and ":" not in job["jobId"]]
    for one in request.get("filters", []):
        found = [job for job in found if any(_fits(job, one["name"], v) for v in one["values"])]
    if not request.get("filters"):
        wanted = request.get("jobStatus", "RUNNING")
        found = [job for job in found if job["status"] == wanted]
    found.sort(key=lambda job: -job["createdAt"])
    return {"jobSummaryList": [_summary(job) for job in found]}


def _fits(job: Data, name: str, value: str) -> bool:
    if name == "JOB_NAME":
        return fnmatch.fnmatch(job["jobName"].lower(), value.lower())
    if name == "JOB_DEFINITION":
        return fnmatch.fnmatch(name_in(job["jobDefinition"]), name_in(value) + "*")
    created = int(job["createdAt"])
    return created < int(value) if name == "BEFORE_CREATED_AT" else created > int(value)


def _summary(job: Data) -> Data:
    summary = {key: job[key] for key in SUMMARY if key in job}
    container = {
        key: job["container"][key] for key in ("exitCode", "reason") if key in job["container"]
    }
    return {**summary, "container": container}


def get_job_queue_snapshot(request: Data) -> Data:
    """List the first hundred RUNNABLE jobs of a queue, the oldest first."""
    queue = find(batch._job_queues, request["jobQueue"])["jobQueueArn"]
    waiting = [
        job
        for job in batch._jobs.values()
        if job["jobQueue"] == queue and job["status"] == "RUNNABLE"
    ]
    waiting.sort(key=lambda job: job["createdAt"])
    return {
        "frontOfQueue": {
            "jobs": [
                {"jobArn": job["jobArn"], "earliestTimeAtPosition": job["createdAt"]}
                for job in waiting[:100]
            ],
            "lastUpdatedAt": batch._now_ms(),
        }
    }
