"""AWS Batch as the embedded AWS has it: what ministack (1.5.33) lacks or does otherwise than AWS.

ministack keeps each service in a module of plain functions and dictionaries; `install` puts ours
beside them or in their place. Only the server's own process imports this.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

from ministack.core.responses import error_response_json
from ministack.services import batch

from local_aws.environments import (
    create_compute_environment,
    delete_compute_environment,
    describe_compute_environments,
    update_compute_environment,
)
from local_aws.requests import ask, find, name_in

Data = dict[str, Any]


def install() -> None:
    """Add AWS Batch to ministack, before the server starts."""
    for call in CALLS:
        batch._DISPATCH[f"/v1/{call.__name__.replace('_', '')}"] = functools.partial(_call, call)


def _call(call: Callable[[Data], Data], request: Data) -> Any:
    try:
        return batch._json(200, call(request))
    except ValueError as error:
        return error_response_json("ClientException", str(error), 400)


def create_job_queue(request: Data) -> Data:
    request = _checked_queue(request)
    answer = ask(batch._create_job_queue, request)
    queue = batch._job_queues[answer["jobQueueName"]]
    queue.update({key: request[key] for key in request.keys() - queue.keys()})
    return answer


def update_job_queue(request: Data) -> Data:
    queue = find(batch._job_queues, request["jobQueue"])
    changes = _checked_queue(request)
    queue.update({key: changes[key] for key in changes if key != "jobQueue"})
    return {key: queue[key] for key in ("jobQueueName", "jobQueueArn")}


def delete_job_queue(request: Data) -> Data:
    queue = find(batch._job_queues, request["jobQueue"])
    if queue["state"] != "DISABLED":
        raise ValueError("Cannot delete, job queue must be DISABLED")
    for job in batch._jobs.values():
        if job["jobQueue"] == queue["jobQueueArn"]:
            _end_job(job, "Job queue was deleted")
    del batch._job_queues[queue["jobQueueName"]]
    return {}


def _checked_queue(request: Data) -> Data:
    """Refuse what Batch refuses, and name compute environments by their ARNs as Batch does."""
    for action in request.get("jobStateTimeLimitActions", []):
        if not 600 <= action["maxTimeSeconds"] <= 86_400:
            raise ValueError("maxTimeSeconds must be between 600 and 86400")
    request = copy.deepcopy(request)
    for entry in request.get("computeEnvironmentOrder", []):
        environment = find(batch._compute_envs, entry["computeEnvironment"])
        entry["computeEnvironment"] = environment["computeEnvironmentArn"]
    return request


def register_job_definition(request: Data) -> Data:
    answer = ask(batch._register_job_definition, request)
    batch._job_definitions[answer["jobDefinitionName"]][-1].update(request)
    return answer


def deregister_job_definition(request: Data) -> Data:
    _definition(request["jobDefinition"])["status"] = "INACTIVE"
    return {}


def describe_job_definitions(request: Data) -> Data:
    found = [_definition(one) for one in request.get("jobDefinitions", [])] or [
        definition for revisions in batch._job_definitions.values() for definition in revisions
    ]
    name, status = request.get("jobDefinitionName"), request.get("status")
    return {
        "jobDefinitions": [
            definition
            for definition in found
            if name in (None, definition["jobDefinitionName"])
            and status in (None, definition["status"])
        ]
    }


def _definition(reference: str) -> Data:
    """Find a job definition by its ARN, by name:revision, or the newest active one by its name."""
    name, _, revision = name_in(reference).partition(":")
    for definition in reversed(batch._job_definitions.get(name, [])):
        if revision in ("", str(definition["revision"])) and (
            revision or definition["status"] == "ACTIVE"
        ):
            found: Data = definition
            return found
    raise ValueError(f"JobDefinition {reference} not found")


_next_jobs: Data = {"status": "SUCCEEDED"}


def submit_job(request: Data) -> Data:
    queue = find(batch._job_queues, request["jobQueue"])
    definition = _definition(request["jobDefinition"])
    answer = ask(batch._submit_job, request)
    job = batch._jobs[answer["jobId"]]
    job.update(
        jobQueue=queue["jobQueueArn"],
        jobDefinition=definition["jobDefinitionArn"],
        parameters={**definition.get("parameters", {}), **request.get("parameters", {})},
        container={**definition["containerProperties"], **request.get("containerOverrides", {})},
    )
    if "arrayProperties" in request:
        job["arrayProperties"] = request["arrayProperties"]
    status = {**job["parameters"], **job["tags"]}.get("local-aws-status")
    _set_job(job, **({"status": status} if status else _next_jobs))
    return answer


def local_aws_jobs(request: Data) -> Data:
    """Move one job, or all that are submitted from now on, to a status; AWS has no such call."""
    job_id = request.pop("jobId", None)
    if job_id:
        _set_job(find(batch._jobs, job_id), **request)
    else:
        _next_jobs.clear()
        _next_jobs.update(request)
    return {}


def _set_job(
    job: Data, status: str, exitCode: int | None = None, statusReason: str = "", **details: Any
) -> None:
    ended = status in ("SUCCEEDED", "FAILED")
    job.update(status=status, statusReason=statusReason, startedAt=None, stoppedAt=None)
    if status in ("RUNNING", "SUCCEEDED") or exitCode is not None:
        job["startedAt"] = batch._now_ms()
        if "arrayProperties" not in job:  # an array's jobs have logs, and itself has none
            name = name_in(job["jobDefinition"]).partition(":")[0]
            job["container"].setdefault("logStreamName", f"{name}/default/{job['jobId']}")
    if ended:
        job["stoppedAt"] = batch._now_ms()
    job["container"]["exitCode"] = 0 if status == "SUCCEEDED" else exitCode
    for key, value in details.items():
        job[key] = {**job.get(key, {}), **value} if isinstance(value, dict) else value
    for record in (job, job["container"]):
        for key in [key for key, value in record.items() if value is None]:
            del record[key]


def _end_job(job: Data, reason: str) -> None:
    if job["status"] not in ("SUCCEEDED", "FAILED"):
        _set_job(job, "FAILED", 137 if job["status"] == "RUNNING" else None, reason)


def terminate_job(request: Data) -> Data:
    _end_job(find(batch._jobs, request["jobId"]), request["reason"])
    return {}


def cancel_job(request: Data) -> Data:
    job = find(batch._jobs, request["jobId"])
    if job["status"] not in ("STARTING", "RUNNING"):  # too late to cancel, and no error
        _end_job(job, request["reason"])
    return {}


def list_jobs(request: Data) -> Data:
    # Without a status and without filters, Batch lists the running jobs only.
    running = {} if request.get("filters") else {"jobStatus": "RUNNING"}
    return ask(batch._list_jobs, {**running, **request})


CALLS: list[Callable[[Data], Data]] = [
    create_compute_environment,
    update_compute_environment,
    describe_compute_environments,
    delete_compute_environment,
    create_job_queue,
    update_job_queue,
    delete_job_queue,
    register_job_definition,
    deregister_job_definition,
    describe_job_definitions,
    submit_job,
    terminate_job,
    cancel_job,
    list_jobs,
    local_aws_jobs,
]
