"""Compute environments that something else created, as AWS describes them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from batchreg.attach import environment, look
from batchreg.attach.companion import Attachment, InstanceRole
from batchreg.attach.environment import Environment, Queue

ARN = "arn:aws:batch:eu-central-1:111122223333:compute-environment/genomics"
QUEUE = "arn:aws:batch:eu-central-1:111122223333:job-queue/genomics"
LINKED = (
    "arn:aws:iam::111122223333:role/aws-service-role/batch.amazonaws.com/AWSServiceRoleForBatch"
)
ROLE = InstanceRole(arn="arn:aws:iam::111122223333:role/lab/ecs", id="AROAEXAMPLE")

THEIR_QUEUE = Queue(
    name="genomics", arn=QUEUE, state="ENABLED", status="VALID", environments=(ARN,)
)

TEN_OVERRIDES = {
    "launchTemplateId": "lt-base",
    "version": "$Latest",
    "overrides": [
        {
            "launchTemplateId": f"lt-o{number}",
            "version": str(number),
            "targetInstanceTypes": [f"m{number}i"],
        }
        for number in range(1, 11)
    ],
}


def answer(*, resources: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Return what DescribeComputeEnvironments says of an environment that can be updated."""
    return {
        "computeEnvironmentName": "genomics",
        "computeEnvironmentArn": ARN,
        "type": "MANAGED",
        "state": "ENABLED",
        "status": "VALID",
        "statusReason": "ComputeEnvironment Healthy",
        "serviceRole": LINKED,
        "containerOrchestrationType": "ECS",
        "computeResources": {
            "type": "EC2",
            "allocationStrategy": "BEST_FIT_PROGRESSIVE",
            "minvCpus": 0,
            "maxvCpus": 256,
            "desiredvCpus": 0,
            "instanceTypes": ["optimal"],
            "subnets": ["subnet-1"],
            "securityGroupIds": ["sg-1"],
            "instanceRole": "arn:aws:iam::111122223333:instance-profile/ecs",
            "ec2Configuration": [{"imageType": "ECS_AL2023"}],
            **(resources or {}),
        },
        **changes,
    }


def env(**changes: Any) -> Environment:
    return environment.read(answer(**changes))


def version(name: str, number: int, user_data: bytes | None = None, **data: Any) -> dict[str, Any]:
    """Return a version of DescribeLaunchTemplateVersions."""
    if user_data is not None:
        data["UserData"] = base64.b64encode(user_data).decode()
    return {
        "LaunchTemplateId": f"lt-{name}",
        "LaunchTemplateName": name,
        "VersionNumber": number,
        "LaunchTemplateData": data,
    }


def bases(found: Environment, *versions: dict[str, Any]) -> tuple[look.Base, ...]:
    """Return the launch templates of an environment, given what each reference means."""
    references = [reference for reference in (found.template, *found.overrides) if reference]
    return look.bases(found, dict(zip(references, versions, strict=True)))


def attachment(
    found: Environment | None = None, versions: Sequence[dict[str, Any]] = (), **choices: Any
) -> Attachment:
    """Return what shapes the template of a companion stack."""
    found = found or env()
    copies, refused = look.judge(bases(found, *versions))
    assert refused == ()
    return Attachment(
        environment=found,
        role=ROLE,
        queues=choices.pop("queues", (THEIR_QUEUE,)),
        copies=copies,
        **choices,
    )
