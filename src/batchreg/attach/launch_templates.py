"""Copies of somebody's launch template: from EC2's answer to CloudFormation's properties.

Names, case and nesting are the same in both, so that a copy is a walk that looks for exceptions.
tests/test_attach_launch_templates.py compares botocore's shape, CloudFormation's schema and
troposphere, and fails on a field that no rule here decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

# CloudFormation has no place for these, and a launch template works the same without them:
# MetadataOptions.State reports progress, and Operator says which AWS service manages the template.
DROPPED = {"MetadataOptions.State", "Operator", "NetworkInterfaces[].Ipv6Addresses[].IsPrimaryIpv6"}
# AWS has ended Elastic Graphics and Elastic Inference, so that no instance gets either any more.
# Encryption in transit only narrows the choice of instance types.
DROPPED_WITH_NOTE = {
    "ElasticGpuSpecifications": "AWS has ended Elastic Graphics",
    "ElasticInferenceAccelerators": "AWS has ended Elastic Inference",
    "InstanceRequirements.RequireEncryptionInTransit": "CloudFormation cannot set it, and "
    "instance types without encryption in transit become eligible",
}
# Instances would be different without these.
REFUSED = {"SecondaryInterfaces", "Monitoring.MetricCategoryIds", "Placement.AvailabilityZoneId"}
CONVERTED = {"InstanceMarketOptions.SpotOptions.ValidUntil"}  # a datetime


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A launch template version as CloudFormation takes it, without its user data.

    `user_data`: theirs, in base64, or None. `notes`: what was left out, and why, as sentences.
    `refused`: paths of the fields that cannot be carried over; empty where the copy is complete.
    """

    data: dict[str, Any] = field(default_factory=dict)
    user_data: str | None = None
    notes: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


def copy(data: dict[str, Any]) -> Copy:
    """Return a copy of `LaunchTemplateData` as DescribeLaunchTemplateVersions answers.

    Ask without ResolveAlias: an ImageId such as `resolve:ssm:…` must stay one, or the environment
    would keep today's image for good.
    """
    notes: list[str] = []
    refused: list[str] = []
    kept = _copy({key: data[key] for key in data if key != "UserData"}, "", notes, refused)
    if data.get("Operator", {}).get("Managed"):
        refused.append("Operator.Managed")
    return Copy(
        data=kept,
        user_data=data.get("UserData") or None,
        notes=tuple(dict.fromkeys(notes)),
        refused=tuple(dict.fromkeys(refused)),
    )


def _copy(value: Any, path: str, notes: list[str], refused: list[str]) -> Any:
    if isinstance(value, dict):
        return dict(_fields(value, path, notes, refused))
    if isinstance(value, list):
        return [_copy(item, f"{path}[]", notes, refused) for item in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, str) and "{{resolve:" in value:  # CloudFormation would replace it
        refused.append(path)
    return value


def _fields(
    fields: dict[str, Any], parent: str, notes: list[str], refused: list[str]
) -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        path = f"{parent}.{name}" if parent else name
        if path in DROPPED:
            continue
        if path in DROPPED_WITH_NOTE:
            if value:
                notes.append(f"{path} is left out: {DROPPED_WITH_NOTE[path]}.")
        elif path in REFUSED:
            if value:
                refused.append(path)
        else:
            yield name, _copy(value, path, notes, refused)
