"""A copy of a compute environment that cannot be updated in place, for the companion stack.

Source: docs.aws.amazon.com/batch/latest/userguide/updating-compute-environments.html. The copy is
one that CloudFormation can update in place from then on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from batchreg.attach.environment import DEFAULT_STRATEGY, UPDATABLE_STRATEGIES, read
from batchreg.errors import BatchregError

# AWS sets these itself, or they belong to one environment alone.
DROPPED = {
    "computeEnvironmentArn",
    "computeEnvironmentName",
    "containerOrchestrationType",
    "ecsClusterArn",
    "status",
    "statusReason",
    "uuid",
    "computeResources.desiredvCpus",
    "computeResources.ec2Configuration[].batchImageStatus",
    "computeResources.launchTemplate",  # ours takes its place
}
# An environment with a custom service role can never be updated in place.
DROPPED_WITH_NOTE = {"serviceRole"}
# What only EKS and UNMANAGED environments have, which nobody can attach.
ELSEWHERE = {"eksConfiguration", "unmanagedvCpus"}
# Keys are somebody's own words.
MAPS = {"tags", "computeResources.tags", "computeResources.capacityTags"}


@dataclass(frozen=True)
class Copy:
    """CloudFormation's properties of a copy without a launch template; notes on what differs."""

    properties: dict[str, Any]
    notes: tuple[str, ...]


def copy(answer: Mapping[str, Any], *, image_type: str | None = None) -> Copy:
    """Return a copy of an environment of DescribeComputeEnvironments.

    Raises BatchregError where AWS Batch would refuse it: since 2026-06-30 there are no new
    environments on its Amazon Linux 2 images.
    """
    environment = read(answer)
    name = environment.name
    if environment.amazon_linux_2 and not environment.custom_image and not image_type:
        raise BatchregError(
            f"{name} uses Amazon Linux 2, for which AWS Batch creates no new environments.",
            "Use --image-type ECS_AL2023 as well.",
        )
    notes: list[str] = []
    if environment.service_role and not environment.has_service_linked_role:
        notes.append(
            f"The copy of {name} uses the service-linked role instead of "
            f"{environment.service_role}."
        )
    properties = _copy(answer, "")
    resources = properties["ComputeResources"]
    if environment.allocation_strategy == DEFAULT_STRATEGY:
        resources["AllocationStrategy"] = UPDATABLE_STRATEGIES[0]
        notes.append(
            f"The copy of {name} uses the allocation strategy {UPDATABLE_STRATEGIES[0]} instead of "
            f"{DEFAULT_STRATEGY}."
        )
    if image_type:
        resources["Ec2Configuration"] = [{"ImageType": image_type}]
    elif not resources.get("Ec2Configuration") and not resources.get("ImageId"):
        notes.append(
            f"{name} has no image type. The copy gets AWS Batch's default, Amazon Linux 2023."
        )
    resources["UpdateToLatestImageVersion"] = True
    return Copy({**properties, "ReplaceComputeEnvironment": False}, tuple(notes))


def _copy(value: Any, path: str) -> Any:
    if path in MAPS:
        return {key: text for key, text in value.items() if not key.startswith("aws:")}
    if isinstance(value, list):
        return [_copy(item, f"{path}[]") for item in value]
    if not isinstance(value, Mapping):
        return value
    return {
        name[0].upper() + name[1:]: _copy(item, inner)
        for name, item in value.items()
        if (inner := f"{path}.{name}".lstrip(".")) not in DROPPED | DROPPED_WITH_NOTE | ELSEWHERE
    }
