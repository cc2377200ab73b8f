"""AWS Batch as the embedded AWS has it: what ministack (1.5.33) lacks or does otherwise than AWS.

ministack keeps each service in a module of plain functions and dictionaries; `install` puts ours
beside them or in their place. Only the server's own process imports this.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote

from ministack.core.responses import error_response_json
from ministack.services import batch

from local_aws.definitions import (
    deregister_job_definition,
    describe_job_definitions,
    register_job_definition,
)
from local_aws.environments import (
    create_compute_environment,
    delete_compute_environment,
    describe_compute_environments,
    local_aws_lost,
    update_compute_environment,
)
from local_aws.jobs import (
    cancel_job,
    describe_jobs,
    get_job_queue_snapshot,
    list_jobs,
    local_aws_jobs,
    stop_job,
    submit_job,
    terminate_job,
)
from local_aws.requests import ask, find
from local_aws.running import local_aws_task, local_aws_work

Data = dict[str, Any]


def install() -> None:
    """Add AWS Batch to ministack, before the server starts."""
    for call in CALLS:
        batch._DISPATCH[f"/v1/{call.__name__.replace('_', '')}"] = functools.partial(_call, call)
    batch.handle_request = handle_request


_handle_request = batch.handle_request


async def handle_request(method: str, path: str, headers: Data, body: bytes, query: Data) -> Any:
    """Answer TagResource, UntagResource and ListTagsForResource; ministack takes only POST."""
    _, found, arn = unquote(path).partition("/v1/tags/")
    if not found:
        return await _handle_request(method, path, headers, body, query)
    record = next((one for one in _records() if arn in one.values()), None)
    if record is None:
        return error_response_json("ClientException", f"Object does not exist: {arn}", 400)
    tags = record.setdefault("tags", {})
    if method == "GET":
        return batch._json(200, {"tags": tags})
    if method == "DELETE":
        for key in query.get("tagKeys", []):
            tags.pop(key, None)
    else:
        tags.update(json.loads(body)["tags"])
    return batch._json(200, {})


def _records() -> Iterator[Data]:
    """Yield all that may have tags."""
    for store in (batch._compute_envs, batch._job_queues, batch._jobs):
        yield from store.values()
    for revisions in batch._job_definitions.values():
        yield from revisions


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
            stop_job(job, "Job queue was deleted")
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
    describe_jobs,
    list_jobs,
    get_job_queue_snapshot,
    local_aws_jobs,
    local_aws_work,
    local_aws_task,
    local_aws_lost,
]
