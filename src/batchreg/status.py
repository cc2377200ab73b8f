"""What a stack looks like now: one frozen picture, for people or machines."""

from __future__ import annotations

import difflib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from batchreg import jobs, settings, template
from batchreg import stack as stacks
from batchreg.errors import BatchregError
from batchreg.stack import Stack


@dataclass(frozen=True)
class Part:
    """A compute environment or a queue."""

    name: str
    state: str
    status: str
    reason: str


@dataclass(frozen=True)
class Status:
    """The stack and what belongs to it. `differs`: a fresh render would not be what is deployed."""

    stack: str
    status: str
    reason: str
    version: str | None
    differs: bool | None
    difference: tuple[str, ...]
    compute_environment: Part | None
    job_queue: Part | None
    jobs: dict[str, int]
    secrets: dict[str, str]
    outputs: dict[str, str]


def look(clients: Any, present: Stack) -> Status:
    """Collect the picture; `clients` gives a client by service name. Calls go out side by side."""
    client, batch, manager = (clients(name) for name in (
        "cloudformation", "batch", "secretsmanager"))
    outputs = dict(present.outputs)
    with ThreadPoolExecutor() as pool:
        body = pool.submit(stacks.template_of, client, present)
        environment = pool.submit(
            _environment, batch, outputs.get("ComputeEnvironmentArn"))
        queue = pool.submit(_queue, batch, outputs.get("JobQueueArn"))
        counts = pool.submit(_counts, batch, outputs.get("JobQueueArn"))
        made = settings.of_template(body.result())
        arns = made[1].secret_arns if made else ()
        arns = arns or tuple(value for name, value in outputs.items()
                             if name.startswith("RegistrySecret"))
        secrets = {arn: pool.submit(_last_change, manager, arn) for arn in arns}
        difference = tuple(_difference(body.result(), made[1])) if made else ()
        return Status(
            stack=present.name, status=present.status, reason=present.reason,
            version=made[0] if made else None,
            differs=bool(difference) if made else None, difference=difference,
            compute_environment=environment.result(), job_queue=queue.result(),
            jobs=counts.result(), outputs=outputs,
            secrets={arn: change.result() for arn, change in secrets.items()})


def _difference(body: str, made: settings.Settings) -> list[str]:
    try:
        built = template.build(made)
    except BatchregError as error:  # a deployed part that no longer fits
        return [str(error)]
    texts = (template.to_yaml(built), template.to_json(built))
    if body in texts:
        return []
    return list(difflib.unified_diff(body.splitlines(), texts[0].splitlines(), "deployed",
                                     "rendered now", lineterm="", n=1))


def _environment(batch: Any, arn: str | None) -> Part | None:
    found = arn and batch.describe_compute_environments(
        computeEnvironments=[arn])["computeEnvironments"]
    return _part(found[0], "computeEnvironmentName") if found else None


def _queue(batch: Any, arn: str | None) -> Part | None:
    found = arn and batch.describe_job_queues(jobQueues=[arn])["jobQueues"]
    return _part(found[0], "jobQueueName") if found else None


def _part(raw: dict[str, Any], name: str) -> Part:
    return Part(raw[name], raw.get("state", ""), raw.get("status", ""),
                raw.get("statusReason", ""))


def _counts(batch: Any, queue: str | None) -> dict[str, int]:
    from botocore.exceptions import ClientError

    if not queue:
        return {}
    try:
        return {state: len(found) for state, found in jobs.per_state(batch, queue).items()}
    except ClientError as error:
        # A delete that got stuck may have taken the queue; any other failure is one.
        if error.response.get("Error", {}).get("Code") != "ClientException":
            raise
        return {}


def _last_change(manager: Any, arn: str) -> str:
    from botocore.exceptions import ClientError

    try:
        secret = manager.describe_secret(SecretId=arn)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    if secret.get("DeletedDate"):
        return "marked for deletion"
    changed = secret.get("LastChangedDate") or secret.get("CreatedDate")
    return changed.astimezone().isoformat(" ", "seconds") if changed else "never"
