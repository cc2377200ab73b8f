"""What is not a cause by itself: symptoms, and traces of changes made by hand."""

from __future__ import annotations

import re
from datetime import datetime

from batchreg.doctor.facts import Facts
from batchreg.doctor.rules import ANY, Found, Table, deploy, stack_name
from batchreg.doctor.rules.image import NO_LOGIN
from batchreg.doctor.rules.stack import present, restore_user_data

RULES = Table()
rule = RULES.rule

NO_WAY = (
    "no-route",
    "no-public-address",
    "endpoints-missing",
    "egress-closed",
    "acl-closed",
    "dns-off",
)
# A machine boots, cloud-init runs, and registry_login may wait for five minutes.
PATIENCE_SECONDS = 600
# Of userdata.BOOT: the machine powers off where there is no login at all.
POWERED_OFF = "no registry login at all"

# What registry_login says on the console, and what it calls for.
CONSOLE = (
    (
        r"AccessDenied",
        "Allow the role secretsmanager:GetSecretValue on the secret, and kms:Decrypt on its key",
    ),
    (
        r"no role on this instance",
        "Compare the compute environment's instance role with the stack's InstanceProfileArn",
    ),
    (
        r"urlopen|timed out|refused|unreachable|resolution",
        "Give the subnets a route to Secrets Manager: NAT, a public address or a VPC endpoint",
    ),
    (r"", "EC2 console, Actions, Monitor and troubleshoot, Get system log shows all of it"),
)


@rule("login-failed", "An instance got no login", unless=(*NO_LOGIN, *NO_WAY))
def login_failed(facts: Facts) -> Found:
    for instance in facts.instances or ():
        lines = instance.console or ()
        if not lines or any("has the credentials" in line for line in lines):
            continue  # a failed refresh keeps the login that works
        last = [*lines[:1], *(line for line in lines if POWERED_OFF not in line)][-1]
        yield (
            f"{instance.id} said: {last}",
            next(step for pattern, step in CONSOLE if re.search(pattern, last)),
        )


@rule("agent-disconnected", "An instance's ECS agent has lost its connection", unless=NO_WAY)
def agent_disconnected(facts: Facts) -> Found:
    for instance in facts.instances or ():
        if instance.state == "running" and instance.agent is False:
            yield (
                f"{instance.id} has joined the cluster, and its agent is not connected.",
                (
                    f"aws ec2 terminate-instances --instance-ids {instance.id}; AWS Batch starts "
                    "another"
                ),
            )


@rule(
    "never-joined",
    "An instance has not joined the ECS cluster",
    unless=(
        *NO_LOGIN,
        *NO_WAY,
        "login-failed",
        "role-without-ecs",
        "user-data-blocks",
        "cluster-missing",
        "user-data-not-mime",
    ),
)
def never_joined(facts: Facts) -> Found:
    for instance in facts.instances or ():
        if (
            instance.state == "running"
            and instance.agent is None
            and (_age(instance.launched, facts) > PATIENCE_SECONDS)
        ):
            yield (
                f"{instance.id} runs since {instance.launched}, and ECS does not know it.",
                (
                    "EC2 console, Actions, Monitor and troubleshoot, Get system log; look for "
                    "cloud-init's errors and at a custom machine image's ECS agent"
                ),
            )


@rule("launch-template-old", "The compute environment uses an old version of its launch template")
def launch_template_old(facts: Facts) -> Found:
    template, names = facts.launch_template, [found.name for found in present(facts)]
    if template and template.exists and template.version < template.latest and names:
        yield (
            f"{names[0]} uses version {template.version} of {template.id}; the newest is "
            f"{template.latest}.",
            (
                f"Delete version {template.latest}, or: aws batch update-compute-environment "
                f"--compute-environment {names[0]} --compute-resources launchTemplate="
                f"'{{launchTemplateId={template.id},version={template.latest}}}'"
            ),
        )


@rule(
    "user-data-changed",
    "The user data is not what batchreg would write",
    unless=("user-data-without-login", "user-data-not-mime", "launch-template-old"),
)
def user_data_changed(facts: Facts) -> Found:
    template = facts.launch_template
    if template and template.exists and template.differs:
        yield (
            f"Version {template.version} of {template.id} is from another batchreg, or was "
            "changed by hand.",
            restore_user_data(facts),
        )


@rule(
    "machine-image-custom",
    "The launch template names a machine image of its own",
    unless=("user-data-not-mime",),
)
def machine_image_custom(facts: Facts) -> Found:
    template = facts.launch_template
    if template and template.machine_image:
        yield (
            f"{template.id} names {template.machine_image}, which overrides the compute "
            "environment's: it needs the ECS agent and Python 3.9.",
            restore_user_data(facts),
        )


@rule("update-rolled-back", "The last update of the stack failed and was rolled back")
def update_rolled_back(facts: Facts) -> Found:
    if facts.stack and facts.stack.status == "UPDATE_ROLLBACK_COMPLETE":
        why = facts.stack.cause or facts.stack.reason or "CloudFormation gives no reason."
        yield f"{facts.stack.name} is as it was before: {why}", deploy(facts)


@rule("job-waits", "The job waits, and nothing shows why", unless=(ANY,))
def job_waits(facts: Facts) -> Found:
    for job in facts.jobs or ():
        if job.status in ("RUNNABLE", "STARTING") and _age(job.created, facts) > PATIENCE_SECONDS:
            said = f": {job.reasons[0]}" if job.reasons else " without a reason."
            yield (
                f"{job.label} is {job.status} since {job.created}{said}",
                (
                    f"batchreg status --stack-name {stack_name(facts)} shows what runs before it; AWS "
                    "Batch console, Job queues, Job queue snapshot"
                ),
            )


def _age(since: str, facts: Facts) -> float:
    """Return how many seconds before the facts' time something was, 0 where that is not known."""
    try:
        return (datetime.fromisoformat(facts.time) - datetime.fromisoformat(since)).total_seconds()
    except (ValueError, TypeError):
        return 0
