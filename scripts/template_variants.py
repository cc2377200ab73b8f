"""Every kind of template that batchreg renders, for the linters."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from batchreg.attach import companion, emit, environment, look
from batchreg.attach.companion import Attachment, InstanceRole
from batchreg.render import template
from batchreg.render.constraints import DOCKER_HUB, IMAGE_TYPES
from batchreg.render.settings import Settings
from batchreg.render.text import to_yaml
from batchreg.render.userdata import MAX_REGISTRIES, archive

BATCH = "arn:aws:batch:eu-central-1:111122223333"
ARNS = tuple(
    f"arn:aws:secretsmanager:eu-central-1:111122223333:secret:registry/{name}-AbCdEf"
    for name in ("ghcr", "quay")
)
# What somebody's own boot script may look like. An archive made of it is too long for the program
# as it is, so that the program is packed.
THEIRS = "Content-Type: text/x-shellscript\n\n#!/bin/sh\n" + "echo mounting >>/var/log/boot\n" * 190

# Beside the committed ones (write_templates.py), with as few templates as have every difference.
SETTINGS = {
    "own-secrets": Settings(secret_arns=ARNS, fargate=True, on_failure="join", generation=2),
    "packed": Settings(user_parts=(THEIRS,)),
    "cached": Settings(slots=(1, 2), cached=((1, "ghcr.io"),)),
    "cache-alone": Settings(
        slots=(1, 2, 3, 4, 5),
        cached=(
            (1, DOCKER_HUB),
            (2, "ghcr.io"),
            (3, "registry.gitlab.com"),
            (4, "cgr.dev"),
            (5, "lab01.azurecr.io"),
        ),
    ),
    "nine": Settings(slots=tuple(range(1, MAX_REGISTRIES + 1)), fargate=True),
}


def variants() -> Iterator[tuple[str, str]]:
    """Yield (file name, text) of a template of each kind."""
    for name, settings in SETTINGS.items():
        yield f"{name}.yaml", to_yaml(template.build(settings))
    for name, attachment in attachments().items():
        yield f"attach-{name}.yaml", to_yaml(companion.build(attachment))
        if name in ("two", "own-secrets"):
            yield f"emit-{name}.yaml", emit.emit("cloudformation", attachment)


def attachments() -> dict[str, Attachment]:
    """Return what attaching to environments of different kinds needs."""
    base = reference("base")
    overrides = [{**reference(f"m{n}"), "targetInstanceTypes": [f"m{n}i"]} for n in (6, 7)]
    return {
        "plain": attachment(),
        "two": attachment(base, slots=(1, 3)),
        "own-secrets": attachment(base, secret_arns=ARNS[:1]),
        "cached": attachment(base, slots=(1, 2), cached=((1, "ghcr.io"),)),
        "cache-alone": replace(attachment(cached=((1, "ghcr.io"),)), copies=()),
        "overrides": attachment({**base, "overrides": overrides}),
    }


def reference(name: str) -> dict[str, Any]:
    return {"launchTemplateId": f"lt-{name}", "version": "$Latest"}


def attachment(specification: dict[str, Any] | None = None, **choices: Any) -> Attachment:
    """Return what attaching needs where the environment has the launch templates that are named."""
    resources: dict[str, Any] = {
        "type": "EC2",
        "allocationStrategy": "BEST_FIT_PROGRESSIVE",
        "instanceRole": "arn:aws:iam::111122223333:instance-profile/ecs",
        "ec2Configuration": [{"imageType": IMAGE_TYPES[0]}],
    }
    if specification:
        resources["launchTemplate"] = specification
    found = environment.read(
        {
            "computeEnvironmentName": "genomics",
            "computeEnvironmentArn": f"{BATCH}:compute-environment/genomics",
            "type": "MANAGED",
            "state": "ENABLED",
            "status": "VALID",
            "statusReason": "ComputeEnvironment Healthy",
            "serviceRole": "arn:aws:iam::111122223333:role/aws-service-role/batch.amazonaws.com/"
            "AWSServiceRoleForBatch",
            "containerOrchestrationType": "ECS",
            "computeResources": resources,
        }
    )
    references = [used for used in (found.template, *found.overrides) if used]
    bases = look.bases(found, {used: version(used.id) for used in references})
    queue = environment.Queue(
        name="genomics",
        arn=f"{BATCH}:job-queue/genomics",
        state="ENABLED",
        status="VALID",
        environments=(found.arn,),
    )
    copies, refused = look.judge(bases)
    assert not refused, refused
    role = InstanceRole(arn="arn:aws:iam::111122223333:role/lab/ecs", id="AROAEXAMPLE")
    return Attachment(environment=found, role=role, queues=(queue,), copies=copies, **choices)


def version(launch_template: str) -> dict[str, Any]:
    """Return the newest version of a launch template, as EC2 describes it."""
    data = {
        "KeyName": launch_template,
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 2},
        "UserData": base64.b64encode(archive([THEIRS[:80]]).encode()).decode(),
    }
    return {
        "LaunchTemplateId": launch_template,
        "LaunchTemplateName": launch_template,
        "VersionNumber": 7,
        "LaunchTemplateData": data,
    }
