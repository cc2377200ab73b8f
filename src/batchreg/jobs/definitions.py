"""Job definitions: what a job needs, in the form that AWS Batch accepts."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from batchreg.errors import BatchregError
from batchreg.registry.images import Image

if TYPE_CHECKING:
    from types_boto3_batch import BatchClient
    from types_boto3_batch.type_defs import (
        ContainerPropertiesTypeDef,
        RegisterJobDefinitionRequestTypeDef,
        ResourceRequirementTypeDef,
    )

# On a job definition: the digest of what we registered, and the stack that it is for.
TAG, STACK_TAG = "batchreg", "batchreg:stack"

PARALLEL = 8  # calls at a time

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

    `execution_role` and `secret` are ARNs, for jobs that carry their own registry credentials; on
    Fargate all do. `cached_name` is the image's name in ECR's pull-through cache, if ECR pulls it.
    Raises BatchregError for what Batch would reject.
    """

    image: Image
    cached_name: str = ""
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
                raise BatchregError(f"AWS Batch reserves {name}.", "Choose another name.")
        if self.fargate:
            self._check_fargate()
        else:
            self._check_ec2()

    def _check_ec2(self) -> None:
        if self.vcpus != int(self.vcpus):
            step = "Use --vcpus 1, or --fargate."
            if self.vcpus > 1:
                step = f"Use --vcpus {int(self.vcpus)} or --vcpus {int(self.vcpus) + 1}."
            raise BatchregError(
                f"{self.vcpus:g} is not a whole number of vCPUs, which EC2 requires.", step
            )
        if self.memory < 4:
            raise BatchregError("A job needs at least 4 MiB.", "Use more --memory.")

    def _check_fargate(self) -> None:
        if self.gpus:
            raise BatchregError("Fargate has no GPUs.", "Leave out --gpus or --fargate.")
        if self.memory not in FARGATE.get(self.vcpus, ()):
            pairs = [(vcpus, memory) for vcpus, sizes in FARGATE.items() for memory in sizes]
            near = sorted(
                pairs,
                key=lambda pair: abs(pair[0] - self.vcpus) * 4096 + abs(pair[1] - self.memory),
            )[:3]
            fits = [f"--vcpus {vcpus:g} --memory {memory}" for vcpus, memory in near]
            raise BatchregError(
                f"Fargate does not offer {self.vcpus:g} vCPUs with {self.memory} MiB.",
                f"The nearest are {', '.join(fits)}.",
            )


def definition(spec: Spec, command: Sequence[str] = ()) -> RegisterJobDefinitionRequestTypeDef:
    """Return the job definition, in the form that RegisterJobDefinition accepts."""
    resources: list[ResourceRequirementTypeDef] = [
        {"type": "VCPU", "value": f"{spec.vcpus:g}"},
        {"type": "MEMORY", "value": str(spec.memory)},
    ]
    if spec.gpus:
        resources.append({"type": "GPU", "value": str(spec.gpus)})
    container: ContainerPropertiesTypeDef = {
        "image": spec.cached_name or spec.image.name,
        "resourceRequirements": resources,
    }
    if command:
        container["command"] = list(command)
    if spec.environment:
        container["environment"] = [
            {"name": name, "value": value} for name, value in spec.environment.items()
        ]
    if spec.job_role:
        container["jobRoleArn"] = spec.job_role
    if spec.execution_role:
        container["executionRoleArn"] = spec.execution_role
    if spec.secret:
        container["repositoryCredentials"] = {"credentialsParameter": spec.secret}
    if spec.fargate:
        # Without a public address, a job in a public subnet cannot reach the registry.
        container["networkConfiguration"] = {"assignPublicIp": "ENABLED"}
    body: RegisterJobDefinitionRequestTypeDef = {
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
    """Return a name for the image's job definition; each tag is a revision of it."""
    return re.sub("[^A-Za-z0-9]+", "-", f"{image.registry}-{image.path}").strip("-")[:128]


def register(batch: BatchClient, body: RegisterJobDefinitionRequestTypeDef, stack: str) -> str:
    """Return the ARN of the stack's newest job definition like `body`, registered if there is none."""
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]
    tags = {TAG: digest, STACK_TAG: stack}
    pages = batch.get_paginator("describe_job_definitions").paginate(
        jobDefinitionName=body["jobDefinitionName"], status="ACTIVE"
    )
    same = [
        found
        for page in pages
        for found in page["jobDefinitions"]
        if tags.items() <= found.get("tags", {}).items()
    ]
    if same:
        return max(same, key=lambda found: found["revision"])["jobDefinitionArn"]
    tagged: RegisterJobDefinitionRequestTypeDef = {**body, "tags": tags}
    return batch.register_job_definition(**tagged)["jobDefinitionArn"]


def deregister_all(batch: BatchClient, stack: str) -> int:
    """Deregister the job definitions that were registered for a stack; return their number.

    Those that somebody else registered have no such tag, and stay. Jobs that use a definition are
    not affected.
    """
    pages = batch.get_paginator("describe_job_definitions").paginate(status="ACTIVE")
    arns = [
        found["jobDefinitionArn"]
        for page in pages
        for found in page["jobDefinitions"]
        if found.get("tags", {}).get(STACK_TAG) == stack
    ]
    with ThreadPoolExecutor(PARALLEL) as pool:
        list(pool.map(lambda arn: batch.deregister_job_definition(jobDefinition=arn), arns))
    return len(arns)
