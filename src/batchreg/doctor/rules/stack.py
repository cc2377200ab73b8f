"""The stack, its compute environments and its queues."""

from __future__ import annotations

import re
from collections.abc import Iterator

from batchreg.doctor.facts import Environment, Facts, LaunchTemplate, Queue
from batchreg.doctor.rules import Evidence, Found, Layer, Table
from batchreg.doctor.rules.commands import aws, batchreg, deploy, second_stack

RULES = Table()
rule = RULES.rule

STATUSES = (
    "docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/view-stack-events.html, stack statuses"
)
INVALID = "docs.aws.amazon.com/batch/latest/userguide/invalid_compute_environment.html"
STUCK = "docs.aws.amazon.com/batch/latest/userguide/job_stuck_in_runnable.html"
BATCH = "docs.aws.amazon.com/batch/latest/APIReference/"

FAILED = ("CREATE_FAILED", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED")

# Why a compute environment is INVALID, by its reason; the first that fits. Source: INVALID, and
# what people quote (tests/faults).
REASONS = (
    ("environment-invalidated", r"INVALIDATED"),
    ("user-data-not-mime", r"MIME"),
    ("service-role", r"sts:AssumeRole|service.?role|assume role"),
    ("cluster-missing", r"Clusters? (can ?not be blank|not found)|ClusterNotFound"),
    ("machine-image", r"\bAMI\b|InvalidAMI|ImageId"),
    ("environment-invalid", r""),
)

# EC2 makes no version without data of its own: this is what the stack's template says already.
SAME_DATA = "InstanceInitiatedShutdownBehavior=terminate"

CREATE_SERVICE_LINKED_ROLE = (
    "iam",
    "create-service-linked-role",
    "--aws-service-name",
    "batch.amazonaws.com",
)


def present(facts: Facts) -> Iterator[Environment]:
    """Yield the compute environments that exist."""
    return (environment for environment in facts.environments or () if environment.exists)


def invalid(facts: Facts, cause: str) -> Iterator[Environment]:
    """Yield the compute environments that are INVALID for this cause."""
    for environment in present(facts):
        if environment.status == "INVALID":
            reason = next(
                name
                for name, pattern in REASONS
                if re.search(pattern, environment.reason, re.IGNORECASE)
            )
            if reason == cause:
                yield environment


@rule("stack-missing", "The stack does not exist", layer=Layer.STACK, source=STATUSES)
def stack_missing(facts: Facts) -> Found:
    asked = any(job.asked and job.exists for job in facts.jobs or ())
    if facts.stack and not facts.stack.exists and not asked:
        yield Evidence(
            f"CloudFormation has no stack named {facts.stack.name} in {facts.region}.",
            step="Check --stack-name, --region and --profile. To create the stack: "
            f"{deploy(facts)}",
        )


@rule("stack-never-created", "The stack was never created", layer=Layer.STACK, source=STATUSES)
def stack_never_created(facts: Facts) -> Found:
    if facts.stack and facts.stack.status == "REVIEW_IN_PROGRESS":
        yield Evidence(
            f"{facts.stack.name} is in REVIEW_IN_PROGRESS: its change set was not executed.",
            fix=deploy(facts),
        )


@rule("stack-failed", "Creating the stack failed", layer=Layer.STACK, source=STATUSES)
def stack_failed(facts: Facts) -> Found:
    if facts.stack and facts.stack.status in FAILED:
        yield Evidence(
            _state(facts), step=f"Fix what it reports, then deploy again: {deploy(facts)}"
        )


@rule("stack-delete-stuck", "Deleting the stack failed", layer=Layer.STACK, source=STATUSES)
def stack_delete_stuck(facts: Facts) -> Found:
    if facts.stack and facts.stack.status == "DELETE_FAILED":
        yield Evidence(
            _state(facts),
            step="Remove what it reports, then delete the stack again: "
            f"{batchreg(facts, 'destroy')}",
        )


@rule(
    "stack-update-stuck",
    "An update of the stack failed, and so did its rollback",
    layer=Layer.STACK,
    source=STATUSES,
)
def stack_update_stuck(facts: Facts) -> Found:
    if facts.stack and facts.stack.status in ("UPDATE_ROLLBACK_FAILED", "UPDATE_FAILED"):
        yield Evidence(_state(facts), fix=deploy(facts))


@rule(
    "stack-busy", "CloudFormation is still changing the stack", layer=Layer.STACK, source=STATUSES
)
def stack_busy(facts: Facts) -> Found:
    status = facts.stack.status if facts.stack else ""
    if status.endswith("_IN_PROGRESS") and status != "REVIEW_IN_PROGRESS":
        yield Evidence(
            f"{facts.stack_name} is in {status}.",
            step=f"Wait until the operation finishes; {batchreg(facts, 'status')} shows its state.",
        )


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
                *replace_environment(facts),
            )


@rule(
    "environment-invalidated",
    "AWS Batch has invalidated the compute environment: none of its instances joined the cluster",
    layer=Layer.ENVIRONMENT,
    source=INVALID,
)
def environment_invalidated(facts: Facts) -> Found:
    for environment in invalid(facts, "environment-invalidated"):
        fix, step = replace_environment(facts)
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
            *replace_environment(facts),
        )


@rule("machine-image", "The machine image cannot be used", layer=Layer.ENVIRONMENT, source=INVALID)
def machine_image(facts: Facts) -> Found:
    for environment in invalid(facts, "machine-image"):
        text = f"{environment.name} is INVALID: {environment.reason}"
        if facts.launch_template and facts.launch_template.machine_image:
            yield Evidence(text, *restore_launch_template(facts))
        elif "AL2023" in environment.image_type:
            yield Evidence(
                text,
                step="Check that the image exists and is shared with this account, then deploy "
                f"again: {deploy(facts)}",
            )
        else:
            image_type = "ECS_AL2023_NVIDIA" if "NVIDIA" in environment.image_type else "ECS_AL2023"
            yield Evidence(text, fix=deploy(facts, "--image-type", image_type))


@rule(
    "environment-invalid",
    "The compute environment is INVALID",
    layer=Layer.ENVIRONMENT,
    source=INVALID,
)
def environment_invalid(facts: Facts) -> Found:
    for environment in invalid(facts, "environment-invalid"):
        fix, step = replace_environment(facts)
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
    for queue in facts.queues or ():
        if queue.exists and queue.status == "INVALID":
            yield Evidence(
                f"{queue.name}: {queue.reason or 'AWS Batch gives no reason.'}",
                step=f"Fix what it reports, then deploy again: {deploy(facts)}",
            )


@rule(
    "queue-elsewhere",
    "The job queue does not use the stack's compute environment",
    layer=Layer.ENVIRONMENT,
    source=BATCH + "API_ComputeEnvironmentOrder.html",
)
def queue_elsewhere(facts: Facts) -> Found:
    for queue in facts.queues or ():
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


def replace_environment(facts: Facts) -> tuple[str, str]:
    """Return (fix, step) for a compute environment that no update can repair."""
    return "", second_stack(facts)


def restore_launch_template(facts: Facts) -> tuple[str, str]:
    """Return (fix, step) that make the compute environment use what the stack's template says.

    A deploy cannot: CloudFormation sees no change where somebody has added a version by hand. Only
    a version that has the stack's user data and disk size is restored. It becomes the newest
    again, or the next deploy would switch to the one made by hand; nothing is deleted.
    """
    template = facts.launch_template
    names = [found.name for found in present(facts) if not found.fargate]
    if not template or not names or template.restorable in (0, template.version):
        return "", (
            "Fix your own part of the user data, then deploy it: "
            f"{deploy(facts, '--user-data')} FILE"
        )
    number = str(template.restorable)
    if template.restorable < template.latest:
        number = f"$({copy_version(facts, template)})"
    specification = f"launchTemplate={{launchTemplateId={template.id},version={number}}}"
    update = ("batch", "update-compute-environment", "--compute-environment", names[0])
    step = (
        f"Version {template.restorable} is the one that the stack deployed. Switching to it "
        "replaces the instances; jobs that are running keep the time that the update policy of the "
        "compute environment gives them."
    )
    return f'{aws(facts, *update)} --compute-resources "{specification}"', step


def copy_version(facts: Facts, template: LaunchTemplate) -> str:
    """Return the command that makes the stack's version the newest, and prints its number."""
    return aws(
        facts,
        *("ec2", "create-launch-template-version", "--launch-template-id", template.id),
        *("--source-version", str(template.restorable)),
        *("--launch-template-data", SAME_DATA),
        *("--query", "LaunchTemplateVersion.VersionNumber", "--output", "text"),
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


def _state(facts: Facts) -> str:
    assert facts.stack
    why = facts.stack.cause or facts.stack.reason
    return f"{facts.stack.name} is in {facts.stack.status}{': ' if why else '.'}{why}"
