"""A compute environment that something else created: facts, from what AWS answers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

# docs.aws.amazon.com/batch/latest/userguide/updating-compute-environments.html
SERVICE_LINKED_ROLE = "/aws-service-role/batch.amazonaws.com/"
UPDATABLE_STRATEGIES = (
    "BEST_FIT_PROGRESSIVE",
    "BEST_FIT_PROGRESSIVE_ORDERED",
    "SPOT_CAPACITY_OPTIMIZED",
    "SPOT_PRICE_CAPACITY_OPTIMIZED",
    "SPOT_CAPACITY_OPTIMIZED_PRIORITIZED",
)
# What Describe leaves out where nobody has chosen a strategy.
DEFAULT_STRATEGY = "BEST_FIT"
DEFAULT_VERSION = "$Default"
DEFAULT_JOB_TIMEOUT_MINUTES = 30

RUNNING = ("STARTING", "RUNNING")


@dataclass(frozen=True, kw_only=True)
class TemplateReference:
    """A launch template that an environment uses, for all instance types or for some.

    `id` or `name` is empty; both are where the environment has no launch template. `targets`:
    the instance types of an override. `userdata_type`: only EKS environments have one.
    """

    id: str = ""
    name: str = ""
    version: str = DEFAULT_VERSION
    targets: tuple[str, ...] = ()
    userdata_type: str = ""

    def __str__(self) -> str:
        return f"{self.id or self.name}, version {self.version}" if self else "no launch template"

    def __bool__(self) -> bool:
        return bool(self.id or self.name)

    @property
    def moves(self) -> bool:
        """Tell whether an infrastructure update reads the version again."""
        return self.version.startswith("$")


@dataclass(frozen=True, kw_only=True)
class UpdatePolicy:
    """What an infrastructure update does to running jobs."""

    terminate_jobs: bool = False
    job_timeout_minutes: int = DEFAULT_JOB_TIMEOUT_MINUTES


@dataclass(frozen=True, kw_only=True)
class Environment:
    """A compute environment.

    `kind`: EC2, SPOT, FARGATE and so on, empty where UNMANAGED. `instance_role`: the name or ARN of
    an instance profile. `specification`: its launch template as Describe gives it, for putting it
    back; None where it has none.
    """

    name: str
    arn: str
    managed: bool
    orchestration: str
    state: str
    status: str
    reason: str
    kind: str
    allocation_strategy: str
    service_role: str
    instance_role: str
    ec2_configuration: tuple[Mapping[str, Any], ...]  # as Describe gives it
    custom_image: bool
    specification: Mapping[str, Any] | None
    update_policy: UpdatePolicy
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def template(self) -> TemplateReference:
        """Return the launch template for instance types without an override."""
        return reference(self.specification or {})

    @property
    def overrides(self) -> tuple[TemplateReference, ...]:
        """Return the launch templates for certain instance types, in order."""
        return references(self.specification)[1:]

    @property
    def has_service_linked_role(self) -> bool:
        return SERVICE_LINKED_ROLE in self.service_role

    @property
    def amazon_linux_2(self) -> bool:
        """Tell whether its image is AWS's Amazon Linux 2; of a custom image nobody knows."""
        types = (image.get("imageType", "") for image in self.ec2_configuration)
        return any(re.fullmatch("ECS_AL2(_NVIDIA)?", image_type) for image_type in types)


@dataclass(frozen=True, kw_only=True)
class Queue:
    """A job queue; `environments` are ARNs or names, in the order in which Batch fills them."""

    name: str
    arn: str
    state: str
    status: str
    environments: tuple[str, ...]


@dataclass(frozen=True)
class Creator:
    """Who seems to have created an environment, and what that will do to our change later."""

    name: str
    consequence: str


UNKNOWN = Creator("the console, a script, or code without tags", "")
_CODE = "its next run reverts the change unless its code has it: see --emit {}"
CREATORS = {
    "forge": Creator(
        "Seqera Forge",
        "Seqera does not change it again, but deletes it together with its own environment: "
        "detach before that",
    ),
    "cdk": Creator("AWS CDK", _CODE.format("cdk")),
    "cloudformation": Creator("CloudFormation", _CODE.format("cloudformation")),
    "terraform": Creator("Terraform", _CODE.format("terraform")),
}


def read(answer: Mapping[str, Any]) -> Environment:
    """Return an environment of DescribeComputeEnvironments."""
    resources = answer.get("computeResources", {})
    managed = answer["type"] == "MANAGED"
    images = resources.get("ec2Configuration", [])
    policy = answer.get("updatePolicy", {})
    eks = "EKS" if answer.get("eksConfiguration") else "ECS"
    return Environment(
        name=answer["computeEnvironmentName"],
        arn=answer["computeEnvironmentArn"],
        managed=managed,
        orchestration=answer.get("containerOrchestrationType", eks),
        state=answer.get("state", ""),
        status=answer.get("status", ""),
        reason=" ".join(answer.get("statusReason", "").split()),
        kind=resources.get("type", ""),
        allocation_strategy=resources.get("allocationStrategy", DEFAULT_STRATEGY),
        service_role=answer.get("serviceRole", ""),
        instance_role=resources.get("instanceRole", ""),
        ec2_configuration=tuple(images),
        custom_image=bool(resources.get("imageId"))
        or any(image.get("imageIdOverride") for image in images),
        specification=resources.get("launchTemplate") or None,
        update_policy=UpdatePolicy(
            terminate_jobs=policy.get("terminateJobsOnUpdate", False),
            job_timeout_minutes=policy.get(
                "jobExecutionTimeoutMinutes", DEFAULT_JOB_TIMEOUT_MINUTES
            ),
        ),
        tags=answer.get("tags", {}),
    )


def queues(answers: Iterable[Mapping[str, Any]], environment: Environment) -> Iterator[Queue]:
    """Yield the queues that use an environment, of what DescribeJobQueues answers."""
    for queue in map(read_queue, answers):
        if {environment.arn, environment.name} & set(queue.environments):
            yield queue


def read_queue(answer: Mapping[str, Any]) -> Queue:
    """Return a queue of DescribeJobQueues."""
    order = sorted(answer.get("computeEnvironmentOrder", []), key=lambda entry: entry["order"])
    return Queue(
        name=answer["jobQueueName"],
        arn=answer["jobQueueArn"],
        state=answer["state"],
        status=answer.get("status", ""),
        environments=tuple(entry["computeEnvironment"] for entry in order),
    )


def companion_name(name: str) -> str:
    """Return the default name of an environment's companion stack."""
    return f"batchreg-{re.sub('[^A-Za-z0-9-]', '-', name)}"[:128]


def running_jobs(summaries: Iterable[Mapping[str, Any]]) -> int:
    """Count the jobs that an update may end, of what ListJobs answers."""
    return sum(job.get("status") in RUNNING for job in summaries)


def created_by(environment: Environment) -> Creator:
    """Guess from names and tags; each of these tools leaves its own."""
    name, tags = environment.name, environment.tags
    if name.startswith("TowerForge-"):
        return CREATORS["forge"]
    # A logical id of the CDK ends in eight hexadecimal digits; CloudFormation adds its suffix.
    cdk = re.search(r"[0-9A-F]{8}-[A-Za-z0-9]{12,16}$", name)
    if cdk or any(key.startswith("aws-cdk:") for key in tags):
        return CREATORS["cdk"]
    logical_id = tags.get("aws:cloudformation:logical-id", "")
    if any(key.startswith("aws:cloudformation:") for key in tags):
        return CREATORS["cdk" if re.search("[0-9A-F]{8}$", logical_id) else "cloudformation"]
    words = " ".join([*tags, *tags.values()]).lower()
    # Terraform's name_prefix adds the time, to a fraction of a second, and a counter.
    if "terraform" in words or re.search(r"20[0-9]{12}[0-9a-f]{12}$", name):
        return CREATORS["terraform"]
    return UNKNOWN


def references(specification: Mapping[str, Any] | None) -> tuple[TemplateReference, ...]:
    """Return the launch template of a specification and those of its overrides, in order."""
    whole = specification or {}
    return tuple(map(reference, [whole, *whole.get("overrides", [])]))


def reference(specification: Mapping[str, Any]) -> TemplateReference:
    """Return the launch template that a specification or an override names."""
    return TemplateReference(
        id=specification.get("launchTemplateId", ""),
        name=specification.get("launchTemplateName", ""),
        version=specification.get("version") or DEFAULT_VERSION,
        targets=tuple(specification.get("targetInstanceTypes", [])),
        userdata_type=specification.get("userdataType", ""),
    )
