"""The compute environments and the job queues."""

from __future__ import annotations

import re
from collections.abc import Iterator

from batchreg.doctor.facts import Environment, Facts, Queue
from batchreg.doctor.rules import Evidence, Found, Layer, Table, main, present
from batchreg.doctor.rules.commands import aws, deploy, diagnose
from batchreg.doctor.rules.joining import NONE_JOINED
from batchreg.doctor.rules.launches import nothing_starts
from batchreg.doctor.rules.refusals import explicit
from batchreg.doctor.rules.repairs import (
    attach_policy,
    replace_environment,
    restore_launch_template,
    unusable,
)
from batchreg.doctor.rules.role import refusal
from batchreg.doctor.rules.stack import again

RULES = Table()
CONSEQUENCES = Table()  # of what the layers between these two tables show
rule = RULES.rule

INVALID = "docs.aws.amazon.com/batch/latest/userguide/invalid_compute_environment.html"
BATCH = "docs.aws.amazon.com/batch/latest/APIReference/"

# Where AWS begins to list what may have gone wrong in general: none of it is what has.
POSSIBLE = re.compile(r"common issues|possible (causes|reasons)|this (can|may|might) be", re.I)

# States of a machine image from which no instance starts. Source: API_Image.html of EC2
UNUSABLE_IMAGES = ("invalid", "deregistered", "failed", "error", "disabled")

# Why a compute environment is INVALID, by its reason; the first that fits. Source: INVALID, and
# what people quote (tests/faults).
REASONS = (
    ("environment-invalidated", NONE_JOINED),
    ("user-data-not-mime", r"MIME"),
    ("service-role", r"sts:AssumeRole|service.?role|assume role"),
    ("cluster-missing", r"Clusters? (can ?not be blank|not found)|ClusterNotFound"),
    ("machine-image", r"\bAMI\b|InvalidAMI|ImageId"),
    ("environment-invalid", r""),
)

CREATE_SERVICE_LINKED_ROLE = (
    "iam",
    "create-service-linked-role",
    "--aws-service-name",
    "batch.amazonaws.com",
)


def invalid(facts: Facts, cause: str) -> Iterator[Environment]:
    """Yield the compute environments that are INVALID for this cause."""
    for environment in present(facts):
        if environment.status == "INVALID" and not explicit(environment.reason):
            said = POSSIBLE.split(environment.reason)[0]
            reason = next(
                name for name, pattern in REASONS if re.search(pattern, said, re.IGNORECASE)
            )
            if reason == cause:
                yield environment


@rule(
    "environment-missing",
    "The compute environment does not exist",
    layer=Layer.ENVIRONMENT,
    source=BATCH + "API_DescribeComputeEnvironments.html",
)
def environment_missing(facts: Facts) -> Found:
    for environment in facts.environments or ():
        if not environment.exists:
            yield Evidence(
                f"AWS Batch has no compute environment named {environment.name}.",
                *replace_environment(facts, environment)
                if facts.stack_name or facts.queues
                else ("", "Check its name, --region and --profile."),
            )


@CONSEQUENCES.rule(
    "environment-invalidated",
    "AWS Batch has invalidated the compute environment: none of its instances joined the cluster",
    layer=Layer.ENVIRONMENT,
    source=INVALID,
)
def environment_invalidated(facts: Facts) -> Found:
    for environment in invalid(facts, "environment-invalidated"):
        fix, step = replace_environment(facts, environment)
        yield Evidence(
            f"{environment.name}: {environment.reason}",
            fix,
            "It does not recover by itself. Fix the other findings first, or the next compute "
            f"environment ends the same way. {step}".rstrip(),
        )


@rule(
    "user-data-not-mime",
    "The instances' user data is not a MIME archive",
    layer=Layer.ENVIRONMENT,
    source="docs.aws.amazon.com/batch/latest/userguide/launch-templates.html",
)
def user_data_not_mime(facts: Facts) -> Found:
    for environment in invalid(facts, "user-data-not-mime"):
        yield Evidence(
            f"{environment.name} is INVALID: {environment.reason}", *restore_launch_template(facts)
        )
    template = facts.launch_template
    if template and template.exists and not template.mime:
        yield Evidence(
            f"AWS Batch cannot merge its own part into the user data of version "
            f"{template.version} of the launch template {template.id}.",
            *restore_launch_template(facts),
        )


@rule(
    "service-role", "AWS Batch cannot use its service role", layer=Layer.ENVIRONMENT, source=INVALID
)
def service_role(facts: Facts) -> Found:
    for environment in invalid(facts, "service-role"):
        yield Evidence(
            f"{environment.name} is INVALID: {environment.reason}", *repair_service_role(facts)
        )
    for job in facts.jobs or ():
        for reason in job.reasons if job.stuck else ():
            if "SERVICE_ROLE_PERMISSIONS" in reason:
                yield Evidence(f"{job.label}: {reason}", *repair_service_role(facts))
    role = facts.service_role
    if not role or not role.seen:
        return
    if found := unusable(facts, role, "batch"):
        yield Evidence(*found)
    elif nothing_starts(facts):
        for denial in role.denied:
            yield refusal(role, denial, attach_policy(facts, role, "AWSBatchServiceRole"))


@rule(
    "cluster-missing",
    "The ECS cluster of the compute environment does not exist",
    layer=Layer.ENVIRONMENT,
    source=INVALID,
)
def cluster_missing(facts: Facts) -> Found:
    lost = [environment for environment in present(facts) if not environment.cluster_exists]
    for environment in [*lost, *invalid(facts, "cluster-missing")]:
        yield Evidence(
            f"{environment.name} has lost the ECS cluster that AWS Batch created for it.",
            *replace_environment(facts, environment),
        )


@rule("machine-image", "The machine image cannot be used", layer=Layer.ENVIRONMENT, source=INVALID)
def machine_image(facts: Facts) -> Found:
    for environment in invalid(facts, "machine-image"):
        text = f"{environment.name} is INVALID: {environment.reason}"
        yield Evidence(text, *_other_image(facts, environment))
    image, environment_here = facts.machine_image, main(facts)
    if not image or not environment_here:
        return
    kinds = {kind for one in environment_here.offered or () for kind in one.architectures}
    if not image.exists:
        text = f"EC2 has no machine image {image.id}, or does not show it to this account."
    elif image.state in UNUSABLE_IMAGES:
        text = f"The machine image {image.id} is {image.state}."
    elif image.architecture and kinds and image.architecture not in kinds:
        text = (
            f"The machine image {image.id} is for {image.architecture}; the instance types of "
            f"{environment_here.name} are {' and '.join(sorted(kinds))}."
        )
    else:
        return
    yield Evidence(text, *_other_image(facts, environment_here))


def _other_image(facts: Facts, environment: Environment) -> tuple[str, str]:
    """Return (fix, step) that give an environment a machine image that works."""
    if facts.launch_template and facts.launch_template.machine_image:
        return restore_launch_template(facts)
    if "AL2023" in environment.image_type:
        return "", (
            "Check that the image exists, is shared with this account and fits the instance types, "
            f"then {again(facts)}"
        )
    image_type = "ECS_AL2023_NVIDIA" if "NVIDIA" in environment.image_type else "ECS_AL2023"
    return deploy(facts, "--image-type", image_type), ""


@CONSEQUENCES.rule(
    "environment-invalid",
    "The compute environment is INVALID",
    layer=Layer.ENVIRONMENT,
    source=INVALID,
)
def environment_invalid(facts: Facts) -> Found:
    gone = {one.id for one in facts.subnets or () if not one.exists} | {
        *(facts.groups_missing or ())
    }
    if facts.launch_template and not facts.launch_template.exists:
        gone.add(facts.launch_template.id)
    if facts.role and not facts.role.profile_exists:
        gone.add(facts.role.profile)
    for environment in invalid(facts, "environment-invalid"):
        if any(name in environment.reason for name in gone if name):
            continue  # the finding about that says so
        fix, step = replace_environment(facts, environment)
        yield Evidence(
            f"{environment.name}: {environment.reason or 'AWS Batch gives no reason.'}",
            step=f"Fix what it reports. If it stays INVALID: {fix or step}",
        )


@rule(
    "service-linked-role-missing",
    "The account has no service-linked role for AWS Batch",
    layer=Layer.ENVIRONMENT,
    source="docs.aws.amazon.com/batch/latest/userguide/using-service-linked-roles.html",
)
def service_linked_role_missing(facts: Facts) -> Found:
    own = any(
        environment.service_role and "AWSServiceRoleForBatch" not in environment.service_role
        for environment in present(facts)
    )
    if facts.service_linked_role is False and not own:
        yield Evidence(
            "IAM has no role named AWSServiceRoleForBatch.",
            fix=aws(facts, *CREATE_SERVICE_LINKED_ROLE),
        )


@rule(
    "environment-disabled",
    "The compute environment is disabled",
    layer=Layer.ENVIRONMENT,
    source=BATCH + "API_UpdateComputeEnvironment.html",
)
def environment_disabled(facts: Facts) -> Found:
    for environment in present(facts):
        if environment.state == "DISABLED":
            yield Evidence(
                f"{environment.name} is DISABLED.",
                fix=aws(
                    facts,
                    *("batch", "update-compute-environment", "--state", "ENABLED"),
                    *("--compute-environment", environment.name),
                ),
            )


@rule(
    "queue-missing",
    "The job queue does not exist",
    layer=Layer.ENVIRONMENT,
    source=BATCH + "API_DescribeJobQueues.html",
)
def queue_missing(facts: Facts) -> Found:
    for queue in facts.queues or ():
        if not queue.exists:
            names = _environments_for(queue, facts)
            text = f"AWS Batch has no job queue named {queue.name}."
            if not facts.stack_name:
                there = ", ".join((facts.queue_names or ())[:10])
                yield Evidence(
                    text,
                    step=f"The job queues in {facts.region}: {there}. To diagnose one: "
                    f"{diagnose(facts, facts.queue_names[0])}"
                    if facts.queue_names
                    else "Check its name, --region and --profile.",
                )
                continue
            if names:
                # Under the same name it has the same ARN, which is all that the stack knows of it.
                yield Evidence(
                    text,
                    fix=aws(
                        facts,
                        *("batch", "create-job-queue", "--job-queue-name", queue.name),
                        *("--priority", "1", "--compute-environment-order"),
                        f"order=1,computeEnvironment={names[0]}",
                    ),
                )
            else:
                yield Evidence(
                    text,
                    step="Restore the compute environment first, then create the queue again "
                    "under the same name.",
                )


@rule(
    "queue-disabled",
    "The job queue is disabled",
    layer=Layer.ENVIRONMENT,
    source=BATCH + "API_UpdateJobQueue.html",
)
def queue_disabled(facts: Facts) -> Found:
    for queue in facts.queues or ():
        if queue.exists and queue.state == "DISABLED":
            yield Evidence(
                f"{queue.name} is DISABLED.",
                fix=aws(
                    facts,
                    *("batch", "update-job-queue", "--state", "ENABLED"),
                    *("--job-queue", queue.name),
                ),
            )


@rule(
    "queue-invalid",
    "The job queue is INVALID",
    layer=Layer.ENVIRONMENT,
    source=BATCH + "API_JobQueueDetail.html",
    symptom_of=Layer.ENVIRONMENT,
)
def queue_invalid(facts: Facts) -> Found:
    broken = {one.name for one in facts.environments or () if one.status == "INVALID"}
    for queue in facts.queues or ():
        if queue.exists and queue.status == "INVALID" and not broken & {*queue.environments}:
            yield Evidence(
                f"{queue.name}: {queue.reason or 'AWS Batch gives no reason.'}",
                step=f"Fix what it reports, then {again(facts)}",
            )


@rule(
    "queue-elsewhere",
    "The job queue does not use the stack's compute environment",
    layer=Layer.ENVIRONMENT,
    source=BATCH + "API_ComputeEnvironmentOrder.html",
)
def queue_elsewhere(facts: Facts) -> Found:
    for queue in facts.queues or () if facts.ours else ():
        ours = _environments_for(queue, facts)
        if ours and queue.exists and not set(queue.environments) & set(ours):
            # What it uses now stays, after the stack's: jobs that run there are not disturbed.
            order = [ours[0], *queue.environments][:3]
            yield Evidence(
                f"{queue.name} uses {', '.join(queue.environments) or 'none'}, not "
                f"{' or '.join(ours)}.",
                fix=aws(
                    facts,
                    *("batch", "update-job-queue", "--job-queue", queue.name),
                    "--compute-environment-order",
                    *(
                        f"order={number},computeEnvironment={name}"
                        for number, name in enumerate(order, 1)
                    ),
                ),
            )


def repair_service_role(facts: Facts) -> tuple[str, str]:
    """Return (fix, step): the service-linked role can be created, another one must be corrected."""
    own = next((found.service_role for found in present(facts) if found.service_role), "")
    if facts.service_linked_role is False and not own:
        return aws(facts, *CREATE_SERVICE_LINKED_ROLE), ""
    role = own.rsplit("/", 1)[-1] or "AWSServiceRoleForBatch"
    return "", (
        f"In the IAM console, check that the role {role} trusts batch.amazonaws.com and has the "
        "managed policy AWSBatchServiceRole (or is the service-linked role)."
    )


def _environments_for(queue: Queue, facts: Facts) -> list[str]:
    """Return the stack's compute environments of the queue's kind: a queue cannot mix them."""
    return [one.name for one in present(facts) if one.fargate == ("Fargate" in queue.name)]
