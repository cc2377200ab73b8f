"""The launch template and its user data."""

from __future__ import annotations

from batchreg.doctor.facts import Facts, LaunchTemplate
from batchreg.doctor.rules import Evidence, Found, Layer, Table, main
from batchreg.doctor.rules.commands import attach_again, deploy, second_stack
from batchreg.doctor.rules.joining import none_joins
from batchreg.doctor.rules.repairs import restore_launch_template

RULES = Table()
rule = RULES.rule

PROGRAM = "registry_login.py, the program on the instance"
USER_DATA = "docs.aws.amazon.com/AWSEC2/latest/UserGuide/user-data.html"


@rule(
    "launch-template-missing",
    "The launch template does not exist",
    layer=Layer.LAUNCH,
    source="docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeLaunchTemplateVersions.html",
)
def launch_template_missing(facts: Facts) -> Found:
    template = facts.launch_template
    if template and not template.exists:
        version = f" in version {template.version}" if template.version else ""
        text = f"EC2 has no launch template {template.id}{version}."
        if template.restorable:
            yield Evidence(text, *restore_launch_template(facts))
        else:
            yield Evidence(text, step=second_stack(facts))


@rule(
    "user-data-without-credentials",
    "The instances' user data fetches no credentials",
    layer=Layer.LAUNCH,
    source=PROGRAM,
)
def user_data_without_credentials(facts: Facts) -> Found:
    template, environment = _existing(facts), main(facts)
    if not template or not template.mime or template.fetches_credentials:
        return
    if facts.attached and facts.stack and environment:
        yield Evidence(
            f"{environment.name} does not use the launch template of {facts.stack.name}: it has "
            "been changed since it was attached.",
            fix=attach_again(facts, environment),
        )
    elif facts.ours:
        yield Evidence(
            f"Version {template.version} of the launch template {template.id} does not run "
            "registry_login.py with a secret.",
            *restore_launch_template(facts),
        )


@rule(
    "user-data-blocks",
    "The instances' user data waits for the ECS agent, which waits for the user data",
    layer=Layer.LAUNCH,
    source="github.com/aws/amazon-ecs-agent/issues/1707",
)
def user_data_blocks(facts: Facts) -> Found:
    template = _existing(facts)
    if template and template.blocks:
        text = f"It runs `{template.blocks}`, and ecs.service starts when the user data has ended."
        fix, step = restore_launch_template(facts) if _not_as_deployed(facts) else ("", "")
        yield Evidence(
            text,
            fix,
            step
            or "Put --no-block after systemctl in your part of the user data, then deploy it: "
            f"{deploy(facts, '--user-data')} FILE",
        )


@rule(
    "user-data-too-long",
    "The instances' user data is too long",
    layer=Layer.LAUNCH,
    source=USER_DATA,
)
def user_data_too_long(facts: Facts) -> Found:
    template = _existing(facts)
    if template and template.bytes > 16_384:
        fix, step = restore_launch_template(facts) if _not_as_deployed(facts) else ("", "")
        yield Evidence(
            f"It is {template.bytes:,} bytes; the limit is 16,384.",
            fix,
            step
            or f"Shorten your part of the user data, then deploy it: {deploy(facts, '--user-data')} "
            "FILE",
        )


@rule(
    "metadata-off",
    "The instances cannot get the credentials of their role",
    layer=Layer.LAUNCH,
    source="docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-IMDS-existing-instances.html",
)
def metadata_off(facts: Facts) -> Found:
    template = _existing(facts)
    if template and template.metadata == "disabled":
        yield Evidence(
            f"The launch template {template.id} disables the instance metadata service.",
            *restore_launch_template(facts),
        )


@rule(
    "user-data-stops-agent",
    "The instances' user data stops the ECS agent",
    layer=Layer.LAUNCH,
    source="docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-agent-config.html",
)
def user_data_stops_agent(facts: Facts) -> Found:
    template = _existing(facts)
    if template and template.stops and none_joins(facts):
        yield Evidence(
            f"It runs `{template.stops}` and does not start the agent again, and no instance joins "
            "the cluster.",
            *_corrected(facts, "Remove that from your part of the user data"),
        )


@rule(
    "user-data-other-cluster",
    "The instances' user data names another ECS cluster",
    layer=Layer.LAUNCH,
    source="docs.aws.amazon.com/batch/latest/userguide/launch-templates.html",
)
def user_data_other_cluster(facts: Facts) -> Found:
    template, environment = _existing(facts), main(facts)
    if not template or not environment or not template.cluster or not none_joins(facts):
        return
    if environment.cluster and template.cluster != environment.cluster:
        yield Evidence(
            f"It sets ECS_CLUSTER to {template.cluster}; the cluster of {environment.name} is "
            f"{environment.cluster}, and no instance joins that.",
            *_corrected(facts, "Leave ECS_CLUSTER to AWS Batch"),
        )


@rule(
    "machine-image-without-agent",
    "The machine image has no ECS agent",
    layer=Layer.LAUNCH,
    source="docs.aws.amazon.com/batch/latest/userguide/batch-ami-spec.html",
)
def machine_image_without_agent(facts: Facts) -> Found:
    image, template = facts.machine_image, facts.launch_template
    if image and image.without_agent and none_joins(facts):
        if template and template.installs_agent:
            return
        yield Evidence(
            f"{image.id} is {image.name}, which is not made for ECS, and no instance joins the "
            "cluster.",
            step="Use an image that is optimized for ECS, or leave the choice to AWS Batch.",
        )


def _corrected(facts: Facts, change: str) -> tuple[str, str]:
    """Return (fix, step) for user data that does not work."""
    if _not_as_deployed(facts):
        return restore_launch_template(facts)
    return "", f"{change}, then deploy it: {deploy(facts, '--user-data')} FILE"


def _not_as_deployed(facts: Facts) -> bool:
    return not facts.ours or bool(facts.launch_template and facts.launch_template.differs)


def _existing(facts: Facts) -> LaunchTemplate | None:
    template = facts.launch_template
    return template if template and template.exists else None
