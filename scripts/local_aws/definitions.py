"""AWS Batch's job definitions.

Only the embedded AWS's own process imports this.
"""

from __future__ import annotations

from typing import Any

from ministack.services import batch

from local_aws.requests import ask, name_in

Data = dict[str, Any]


def check_limits(request: Data) -> None:
    """Refuse what neither a definition nor a submission may say."""
    if request.get("timeout", {}).get("attemptDurationSeconds", 60) < 60:
        raise ValueError("Timeout attemptDurationSeconds must be at least 60 seconds")
    strategy = request.get("retryStrategy", {})
    if not 1 <= strategy.get("attempts", 1) <= 10:
        raise ValueError("Retry strategy attempts must be between 1 and 10")
    if len(strategy.get("evaluateOnExit", [])) > 5:
        raise ValueError("Retry strategy may have at most 5 evaluateOnExit conditions")


def register_job_definition(request: Data) -> Data:
    check_limits(request)
    tasks = request.get("ecsProperties", {}).get("taskProperties", [])
    if request["type"] != "container" or any(len(task["containers"]) > 1 for task in tasks):
        raise ValueError("The embedded AWS has jobs of one node with one container only")
    answer = ask(batch._register_job_definition, request)
    batch._job_definitions[answer["jobDefinitionName"]][-1].update(request)
    return answer


def deregister_job_definition(request: Data) -> Data:
    find_definition(request["jobDefinition"])["status"] = "INACTIVE"
    return {}


def describe_job_definitions(request: Data) -> Data:
    found = [find_definition(one) for one in request.get("jobDefinitions", [])] or [
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


def find_definition(reference: str) -> Data:
    """Find a job definition by its ARN, by name:revision, or the newest active one by its name."""
    name, _, revision = name_in(reference).partition(":")
    for definition in reversed(batch._job_definitions.get(name, [])):
        if revision in ("", str(definition["revision"])) and (
            revision or definition["status"] == "ACTIVE"
        ):
            found: Data = definition
            return found
    raise ValueError(f"JobDefinition {reference} not found")
