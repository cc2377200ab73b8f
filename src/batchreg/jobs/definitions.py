"""Job definitions: what a job needs, in the form that AWS Batch takes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from batchreg.errors import BatchregError
from batchreg.registry.images import Image

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
    32: (61440, 122880, 249856),
}


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
        for name in self.environment:
            if name.startswith("AWS_BATCH"):
                raise BatchregError(f"AWS Batch keeps {name} for itself: choose another name.")
        if not self.fargate:
            if self.vcpus != int(self.vcpus) or self.vcpus < 1:
                raise BatchregError("On EC2 a job takes whole vCPUs: give --vcpus 1 or more.")
            if self.memory < 4:
                raise BatchregError("A job takes 4 MiB at least: give more --memory.")
            return
        if self.gpus:
            raise BatchregError("Fargate has no GPUs: leave out --gpus or --fargate.")
        if self.memory not in FARGATE.get(self.vcpus, ()):
            pairs = [(vcpus, memory) for vcpus, sizes in FARGATE.items() for memory in sizes]
            near = sorted(
                pairs,
                key=lambda pair: abs(pair[0] - self.vcpus) * 4096 + abs(pair[1] - self.memory),
            )[:3]
            fits = ", ".join(f"--vcpus {vcpus:g} --memory {memory}" for vcpus, memory in near)
            raise BatchregError(
                f"Fargate has no {self.vcpus:g} vCPUs with {self.memory} MiB; the "
                f"nearest are {fits}."
            )


def definition(spec: Spec, command: Sequence[str] = ()) -> dict[str, Any]:
    """Return the job definition, in the form that RegisterJobDefinition takes."""
    resources = [
        {"type": "VCPU", "value": f"{spec.vcpus:g}"},
        {"type": "MEMORY", "value": str(spec.memory)},
    ]
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
    """Return the ARN of a job definition like `body`: the newest there is of ours, or a new one."""
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]
    pages = batch.get_paginator("describe_job_definitions").paginate(
        jobDefinitionName=body["jobDefinitionName"], status="ACTIVE"
    )
    same = [
        found
        for page in pages
        for found in page["jobDefinitions"]
        if found.get("tags", {}).get(TAG) == digest
    ]
    if same:
        return str(max(same, key=lambda found: found["revision"])["jobDefinitionArn"])
    return str(batch.register_job_definition(**body, tags={TAG: digest})["jobDefinitionArn"])


def _environment(variables: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in variables.items()]
