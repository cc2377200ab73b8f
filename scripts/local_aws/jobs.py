"""AWS Batch's jobs: what users and engines ask of them, from SubmitJob on.

A job either follows a script (`local_aws_jobs`) or runs (`running`). Only the embedded AWS's own
process imports this.
"""

from __future__ import annotations

import copy
import fnmatch
from typing import Any

from ministack.services import batch

from local_aws.definitions import check_limits, find_definition
from local_aws.requests import ask, find, name_in
from local_aws.running import ENDED, advance, begin, children_of, end, works

Data = dict[str, Any]

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

_next_jobs: Data = {"status": "SUCCEEDED"}  # what a job is told that nobody has told anything


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
        container=_container(definition, request),
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
        begin(job)
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


def _container(definition: Data, request: Data) -> Data:
    """Return a job's container, which a definition describes in one of two ways."""
    if "ecsProperties" not in definition:
        return merged(definition["containerProperties"], request.get("containerOverrides", {}))
    (task,) = definition["ecsProperties"]["taskProperties"]
    overrides = request.get("ecsPropertiesOverride", {}).get("taskProperties", [{}])[0]
    (container,) = task["containers"]
    changes = dict((overrides.get("containers") or [{}])[0])
    changes.pop("name", None)
    role = {"jobRoleArn": task["taskRoleArn"]} if "taskRoleArn" in task else {}
    shared = {key: task[key] for key in ("executionRoleArn", "volumes") if key in task}
    return {**merged(container, changes), **shared, **role}


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
    for each in [*children_of(job), job]:
        if each["status"] not in ENDED:
            each["isTerminated"] = True
        stop_job(each, request["reason"])
    advance()
    return {}


def stop_job(job: Data, reason: str) -> None:
    """End a job; one that runs ends when its container has."""
    work = works.get(job["jobId"])
    if job["status"] in ENDED or children_of(job):
        return
    if work and job["status"] in ("STARTING", "RUNNING"):
        work.stop = work.stop or reason
    elif work:
        end(job, "FAILED", reason)
    else:
        _set_job(job, "FAILED", 137 if job["status"] == "RUNNING" else None, reason)


def cancel_job(request: Data) -> Data:
    job = find(batch._jobs, request["jobId"])
    for each in [*children_of(job), job]:
        if each["status"] not in ("STARTING", "RUNNING", *ENDED):  # else too late, and no error
            each["isCancelled"] = True
            stop_job(each, request["reason"])
    advance()
    return {}


def describe_jobs(request: Data) -> Data:
    names = [name_in(reference) for reference in request["jobs"]]
    return {"jobs": [batch._jobs[name] for name in names if name in batch._jobs]}


def list_jobs(request: Data) -> Data:
    """List as Batch does: without a status and without filters, the running jobs only."""
    found = list(batch._jobs.values())
    if parent := request.get("arrayJobId"):
        found = children_of(find(batch._jobs, parent))
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
