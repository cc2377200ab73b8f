"""What a stack looks like now."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from batchreg.errors import BatchregError
from batchreg.jobs import batch as jobs
from batchreg.render import template
from batchreg.render.settings import Settings
from batchreg.render.text import Deployed, parse, read_template, to_json, to_yaml
from batchreg.stack import instances, registries, states
from batchreg.stack.instances import Instances
from batchreg.stack.states import Stack


@dataclass(frozen=True)
class Part:
    """A compute environment or a queue."""

    name: str
    state: str
    status: str
    reason: str


@dataclass(frozen=True)
class Setting:
    """A setting of a stack: a parameter, as its template labels it, or the image type."""

    name: str
    label: str
    value: str


@dataclass(frozen=True)
class Status:
    """The stack and what belongs to it.

    `differs`: rendering it again would not give the deployed template. `secrets`: {ARN: time of
    the last change, or why it is unknown}. `registries`: {ARN: what people call its registry}.
    `caches`: {ARN: prefix of its images in ECR}, of the registries that ECR pulls from.
    `instances`: of the compute environment, None without its cluster. `attached`: of a companion
    stack, the name of the environment that has its credentials.
    """

    stack: str
    status: str
    reason: str
    version: str | None
    differs: bool | None
    difference: tuple[str, ...]
    compute_environments: tuple[Part, ...]
    job_queues: tuple[Part, ...]
    jobs: dict[str, int]
    instances: Instances | None
    secrets: dict[str, str]
    registries: dict[str, str]
    outputs: dict[str, str]
    caches: dict[str, str] = field(default_factory=dict)
    attached: str | None = None
    settings: tuple[Setting, ...] = ()


def look(clients: Any, present: Stack) -> Status:
    """Look at the stack; `clients` returns a client by service name. Calls run in parallel."""
    client, batch, manager = (
        clients(name) for name in ("cloudformation", "batch", "secretsmanager")
    )
    outputs = dict(present.outputs)
    with ThreadPoolExecutor() as pool:
        body = pool.submit(states.template_of, client, present)
        environments = pool.submit(_environments, batch, present.arns("ComputeEnvironmentArn"))
        queues = pool.submit(_queues, batch, present.arns("JobQueueArn"))
        counts = [pool.submit(jobs.per_state, batch, arn) for arn in present.arns("JobQueueArn")]
        deployed = read_template(body.result())
        join = bool(deployed and (deployed.attached or deployed.settings.on_failure == "join"))
        joined = pool.submit(_instances, clients, environments, join)
        found = registries.of(present, deployed.settings if deployed else None)
        secrets = {each.arn: pool.submit(_last_change, manager, each.arn) for each in found}
        # A companion stack's template depends on the environment, which batchreg attach looks at.
        settings = deployed.settings if deployed and not deployed.attached else None
        difference = tuple(_difference(body.result(), settings)) if settings else ()
        return Status(
            stack=present.name,
            status=present.status,
            reason=present.reason,
            version=deployed.version if deployed else None,
            differs=bool(difference) if settings else None,
            attached=str(deployed.attached["ComputeEnvironment"])
            if deployed and deployed.attached
            else None,
            difference=difference,
            compute_environments=tuple(
                _part(raw, "computeEnvironmentName") for raw in environments.result()
            ),
            job_queues=queues.result(),
            jobs=_summed(count.result() for count in counts),
            instances=joined.result(),
            outputs=outputs,
            secrets={arn: change.result() for arn, change in secrets.items()},
            registries={each.arn: each.host for each in found},
            caches={each.arn: each.prefix for each in found if each.prefix},
            settings=tuple(_settings(body.result(), deployed, present)) if deployed else (),
        )


def _settings(body: str, deployed: Deployed, present: Stack) -> Iterator[Setting]:
    """Yield the parameters that have a value to show, and the image type.

    Registries are not among them: they have rows of their own.
    """
    if not deployed.attached:
        yield Setting("ImageType", "Image type", deployed.settings.image_type)
    template = parse(body)
    labels = template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterLabels"]
    for name, declared in template["Parameters"].items():
        value = present.parameters.get(name, "")
        hidden = declared.get("NoEcho") or name.startswith(("RegistryUrl", "Username"))
        if value and not hidden:
            label = labels[name]["default"]
            yield Setting(name, f"Cache: {label.lower()}" if "Cache" in name else label, value)


def _difference(body: str, settings: Settings) -> list[str]:
    try:
        built = template.build(settings)
    except BatchregError as error:  # a deployed part that no longer fits
        return [str(error)]
    # The version alone is no difference: CloudFormation would not update it.
    body, *texts = (
        re.sub(r'(Version"?: )"?[0-9][^\s,"]*"?', r"\1x", text, count=1)
        for text in (
            body.partition("Metadata")[2],
            to_yaml(built).partition("Metadata")[2],
            to_json(built).partition("Metadata")[2],
        )
    )
    if body in texts:
        return []
    return list(
        difflib.unified_diff(
            body.splitlines(), texts[0].splitlines(), "deployed", "rendered now", lineterm="", n=1
        )
    )


def _environments(batch: Any, arns: list[str]) -> list[dict[str, Any]]:
    """Return the compute environments as AWS Batch describes them."""
    if not arns:
        return []
    found: list[dict[str, Any]] = batch.describe_compute_environments(computeEnvironments=arns)[
        "computeEnvironments"
    ]
    return found


def _instances(
    clients: Any, environments: Future[list[dict[str, Any]]], join: bool
) -> Instances | None:
    """Look at the instances of the compute environment on EC2; on Fargate there are none."""
    for raw in environments.result():
        fargate = raw.get("computeResources", {}).get("type", "").startswith("FARGATE")
        if raw.get("ecsClusterArn") and not fargate:
            return instances.look(clients("ecs"), clients("ec2"), raw["ecsClusterArn"], join=join)
    return None


def _queues(batch: Any, arns: list[str]) -> tuple[Part, ...]:
    found = batch.describe_job_queues(jobQueues=arns)["jobQueues"] if arns else []
    return tuple(_part(raw, "jobQueueName") for raw in found)


def _part(raw: dict[str, Any], name: str) -> Part:
    return Part(raw[name], raw.get("state", ""), raw.get("status", ""), raw.get("statusReason", ""))


def _summed(counts: Iterable[dict[str, list[Any]]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for per_state in counts:
        for state, found in per_state.items():
            total[state] = total.get(state, 0) + len(found)
    return total


def _last_change(manager: Any, arn: str) -> str:
    from botocore.exceptions import ClientError

    try:
        secret = manager.describe_secret(SecretId=arn)
    except ClientError as error:
        code = str(error.response["Error"]["Code"])
        return "does not exist" if code == "ResourceNotFoundException" else code
    if secret.get("DeletedDate"):
        return "marked for deletion"
    changed = secret.get("LastChangedDate") or secret.get("CreatedDate")
    return changed.astimezone().isoformat(timespec="seconds") if changed else "never"
