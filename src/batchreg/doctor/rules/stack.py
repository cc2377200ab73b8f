"""The stack, its compute environments and its queues."""

from __future__ import annotations

import re
from collections.abc import Iterator

from batchreg.doctor.facts import Environment, Facts
from batchreg.doctor.rules import Found, Table, deploy, stack_name

RULES = Table()
rule = RULES.rule

FAILED = ("CREATE_FAILED", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED")
NOT_MIME = re.compile("MIME", re.IGNORECASE)


def present(facts: Facts) -> Iterator[Environment]:
    """Yield the compute environments that exist."""
    return (environment for environment in facts.environments or () if environment.exists)


@rule("stack-missing", "There is no such stack")
def stack_missing(facts: Facts) -> Found:
    asked = any(job.asked and job.exists for job in facts.jobs or ())
    if facts.stack and not facts.stack.exists and not asked:
        yield (
            f"CloudFormation knows no stack {facts.stack.name} in {facts.region}.",
            f"{deploy(facts)}, or name the right --region, --profile and --stack-name",
        )


@rule("stack-never-created", "The stack was planned and never created")
def stack_never_created(facts: Facts) -> Found:
    if facts.stack and facts.stack.status == "REVIEW_IN_PROGRESS":
        yield f"{facts.stack.name} is in REVIEW_IN_PROGRESS.", deploy(facts)


@rule("stack-failed", "The stack never came up")
def stack_failed(facts: Facts) -> Found:
    if facts.stack and facts.stack.status in FAILED:
        yield _state(facts), f"Mend what it says, then {deploy(facts)}"


@rule("stack-delete-stuck", "Deleting the stack got stuck")
def stack_delete_stuck(facts: Facts) -> Found:
    if facts.stack and facts.stack.status == "DELETE_FAILED":
        yield _state(facts), f"batchreg destroy --stack-name {facts.stack.name}"


@rule("stack-update-stuck", "An update of the stack failed, and so did its rollback")
def stack_update_stuck(facts: Facts) -> Found:
    if facts.stack and facts.stack.status in ("UPDATE_ROLLBACK_FAILED", "UPDATE_FAILED"):
        yield _state(facts), deploy(facts)


@rule("stack-busy", "CloudFormation is still at work on the stack")
def stack_busy(facts: Facts) -> Found:
    status = facts.stack.status if facts.stack else ""
    if status.endswith("_IN_PROGRESS") and status != "REVIEW_IN_PROGRESS":
        yield (
            f"{stack_name(facts)} is in {status}.",
            f"Wait until batchreg status --stack-name {stack_name(facts)} shows it settled",
        )


@rule("environment-missing", "The compute environment is gone")
def environment_missing(facts: Facts) -> Found:
    for environment in facts.environments or ():
        if not environment.exists:
            yield f"AWS Batch knows no compute environment {environment.name}.", anew(facts)


@rule("user-data-not-mime", "The instances' user data is not a MIME archive")
def user_data_not_mime(facts: Facts) -> Found:
    for environment in present(facts):
        if environment.status == "INVALID" and NOT_MIME.search(environment.reason):
            yield f"{environment.name} is INVALID: {environment.reason}", restore_user_data(facts)
    template = facts.launch_template
    if template and template.exists and not template.mime:
        yield (
            (
                f"Version {template.version} of the launch template {template.id} holds user data "
                "that AWS Batch cannot merge its own part into."
            ),
            restore_user_data(facts),
        )


@rule("service-role", "AWS Batch cannot use its service role")
def service_role(facts: Facts) -> Found:
    for environment in present(facts):
        if environment.status == "INVALID" and re.search(
            r"sts:AssumeRole|service.?role|assume role", environment.reason, re.IGNORECASE
        ):
            yield (
                f"{environment.name} is INVALID: {environment.reason}",
                "aws iam create-service-linked-role --aws-service-name batch.amazonaws.com",
            )


@rule("cluster-missing", "The ECS cluster of the compute environment is gone")
def cluster_missing(facts: Facts) -> Found:
    for environment in present(facts):
        if not environment.cluster_exists or re.search(
            r"Clusters? (can ?not be blank|not found)|ClusterNotFound", environment.reason
        ):
            yield (
                f"{environment.name} has lost the ECS cluster that AWS Batch made for it.",
                anew(facts),
            )


@rule("machine-image", "The machine image cannot be used")
def machine_image(facts: Facts) -> Found:
    for environment in present(facts):
        if environment.status == "INVALID" and re.search(
            r"\bAMI\b|InvalidAMI|ImageId", environment.reason
        ):
            yield (
                f"{environment.name} is INVALID: {environment.reason}",
                deploy(facts, "--image-type ECS_AL2023"),
            )


@rule(
    "environment-invalid",
    "The compute environment is INVALID",
    unless=("user-data-not-mime", "service-role", "cluster-missing", "machine-image"),
)
def environment_invalid(facts: Facts) -> Found:
    for environment in present(facts):
        if environment.status == "INVALID":
            reason = environment.reason or "AWS Batch gives no reason."
            yield f"{environment.name}: {reason}", f"Mend what it says, then {deploy(facts)}"


@rule("service-linked-role-missing", "The account lacks AWS Batch's service-linked role")
def service_linked_role_missing(facts: Facts) -> Found:
    own = any(
        environment.service_role and "AWSServiceRoleForBatch" not in environment.service_role
        for environment in present(facts)
    )
    if facts.service_linked_role is False and not own:
        yield (
            "IAM knows no role AWSServiceRoleForBatch.",
            "aws iam create-service-linked-role --aws-service-name batch.amazonaws.com",
        )


@rule("environment-disabled", "The compute environment is switched off")
def environment_disabled(facts: Facts) -> Found:
    for environment in present(facts):
        if environment.state == "DISABLED":
            yield (
                f"{environment.name} is DISABLED.",
                (
                    "aws batch update-compute-environment --state ENABLED --compute-environment "
                    f"{environment.name}"
                ),
            )


@rule("queue-missing", "The job queue is gone")
def queue_missing(facts: Facts) -> Found:
    for queue in facts.queues or ():
        if not queue.exists:
            yield f"AWS Batch knows no job queue {queue.name}.", anew(facts)


@rule("queue-disabled", "The job queue is switched off")
def queue_disabled(facts: Facts) -> Found:
    for queue in facts.queues or ():
        if queue.exists and queue.state == "DISABLED":
            yield (
                f"{queue.name} is DISABLED.",
                f"aws batch update-job-queue --state ENABLED --job-queue {queue.name}",
            )


@rule(
    "queue-invalid",
    "The job queue is INVALID",
    unless=(
        "environment-invalid",
        "environment-missing",
        "user-data-not-mime",
        "service-role",
        "cluster-missing",
        "machine-image",
        "environment-disabled",
    ),
)
def queue_invalid(facts: Facts) -> Found:
    for queue in facts.queues or ():
        if queue.exists and queue.status == "INVALID":
            yield (
                f"{queue.name}: {queue.reason or 'AWS Batch gives no reason.'}",
                f"Mend what it says, then {deploy(facts)}",
            )


@rule(
    "queue-elsewhere",
    "The job queue does not lead to the stack's compute environment",
    unless=("environment-missing",),
)
def queue_elsewhere(facts: Facts) -> Found:
    ours = [environment.name for environment in present(facts)]
    for queue in facts.queues or ():
        if ours and queue.exists and not set(queue.environments) & set(ours):
            leads = ", ".join(queue.environments) or "nowhere"
            yield (
                f"{queue.name} leads to {leads}, not to {' or '.join(ours)}.",
                (
                    f"aws batch update-job-queue --job-queue {queue.name} --compute-environment-order "
                    f"order=1,computeEnvironment={ours[0]}"
                ),
            )


def anew(facts: Facts) -> str:
    """CloudFormation does not notice that a resource is gone, so it cannot bring it back."""
    return f"batchreg destroy --stack-name {stack_name(facts)}, then {deploy(facts)}"


def restore_user_data(facts: Facts) -> str:
    """Return how the user data becomes batchreg's again, whoever has changed it."""
    template, names = facts.launch_template, [found.name for found in present(facts)]
    if template and template.exists and template.version > 1 and names:
        # deploy sees no change where somebody has added a version by hand.
        return (
            f"{deploy(facts)}; if that changes nothing: aws batch update-compute-environment "
            f"--compute-environment {names[0]} --compute-resources launchTemplate="
            f"'{{launchTemplateId={template.id},version=1}}'"
        )
    return f"Mend the file of --user-data, then {deploy(facts)}"


def _state(facts: Facts) -> str:
    assert facts.stack
    why = facts.stack.cause or facts.stack.reason
    return f"{facts.stack.name} is in {facts.stack.status}{': ' if why else '.'}{why}"
