"""The requests that give an environment other launch templates, and give it back its own.

They never send a role: that would ask for iam:PassRole, and change what nobody asked to change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchreg.attach.environment import Environment, TemplateReference, UpdatePolicy


@dataclass(frozen=True)
class TemplateVersion:
    """A launch template of ours, and the number of the version to use."""

    id: str
    version: str


def attach_request(
    environment: Environment,
    copies: Sequence[TemplateVersion],
    policy: UpdatePolicy,
    *,
    image_type: str | None = None,
) -> dict[str, Any]:
    """Return UpdateComputeEnvironment's parameters. `copies`: in the order of `look.bases`.

    All overrides are sent, because without them AWS Batch takes all away.
    """
    own, *others = copies
    specification: dict[str, Any] = _used(own, environment.template)
    if environment.overrides:
        specification["overrides"] = [
            {**_used(copy, reference), "targetInstanceTypes": list(reference.targets)}
            for copy, reference in zip(others, environment.overrides, strict=True)
        ]
    resources: dict[str, Any] = {"launchTemplate": specification}
    if image_type:
        resources["ec2Configuration"] = [{"imageType": image_type}]
    return _request(environment.arn, resources, policy)


def restore_request(
    arn: str,
    specification: Mapping[str, Any] | None,
    policy: UpdatePolicy,
    *,
    ec2_configuration: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return the parameters that put back what was there, `$Latest` and all.

    `specification`: as Describe gave it; None: an empty id takes the launch template away.
    `ec2_configuration`: only where attaching changed it.
    """
    restored = _sendable(specification) if specification else {"launchTemplateId": ""}
    resources: dict[str, Any] = {"launchTemplate": restored}
    if ec2_configuration:
        resources["ec2Configuration"] = [
            {key: value for key, value in image.items() if key != "batchImageStatus"}
            for image in ec2_configuration
        ]
    return _request(arn, resources, policy)


def policy_request(arn: str, policy: UpdatePolicy) -> dict[str, Any]:
    """Return the parameters that set an environment's update policy, and update nothing else."""
    return {"computeEnvironment": arn, "updatePolicy": _policy(policy)}


def queue_request(arn: str, environments: Sequence[str]) -> dict[str, Any]:
    """Return UpdateJobQueue's parameters for these environments, in order."""
    return {
        "jobQueue": arn,
        "computeEnvironmentOrder": [
            {"order": order, "computeEnvironment": environment}
            for order, environment in enumerate(environments, 1)
        ],
    }


def same_templates(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool:
    """Tell whether two launch template specifications mean the same."""
    return _normal(one or {}) == _normal(other or {})


def _request(arn: str, resources: dict[str, Any], policy: UpdatePolicy) -> dict[str, Any]:
    return {
        "computeEnvironment": arn,
        "computeResources": resources,
        "updatePolicy": _policy(policy),
    }


def _policy(policy: UpdatePolicy) -> dict[str, Any]:
    return {
        "terminateJobsOnUpdate": policy.terminate_jobs,
        "jobExecutionTimeoutMinutes": policy.job_timeout_minutes,
    }


def _used(copy: TemplateVersion, reference: TemplateReference) -> dict[str, Any]:
    kept = {"userdataType": reference.userdata_type} if reference.userdata_type else {}
    return {"launchTemplateId": copy.id, "version": copy.version, **kept}


def _sendable(specification: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the name where there is an id: a request may have only one of them."""
    sent = {
        key: value
        for key, value in specification.items()
        if key != "launchTemplateName" or not specification.get("launchTemplateId")
    }
    if overrides := specification.get("overrides"):
        sent["overrides"] = [_sendable(override) for override in overrides]
    return sent


def _normal(specification: Mapping[str, Any]) -> dict[str, Any]:
    sent = _sendable(specification)
    overrides = [_normal(override) for override in sent.pop("overrides", [])]
    sent = {key: value for key, value in sent.items() if value}
    if sent:
        sent.setdefault("version", "$Default")
    return {**sent, "overrides": overrides} if overrides else sent
