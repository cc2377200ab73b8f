"""What is not a cause by itself: symptoms on the instances, and traces of changes by hand."""

from __future__ import annotations

import re

from batchreg.doctor.facts import Facts, Job
from batchreg.doctor.rules import (
    ANYTHING,
    NO_CREDENTIALS,
    Evidence,
    Found,
    Layer,
    Table,
    main,
    present,
    waiting,
)
from batchreg.doctor.rules.commands import aws, batchreg, deploy
from batchreg.doctor.rules.joining import JOIN_SECONDS, age, late, running
from batchreg.doctor.rules.repairs import copy_version, restore_launch_template
from batchreg.stack.console_lines import State, state_of

RULES = Table()
rule = RULES.rule

CONSOLE = "registry_login.py, what the program says on the console"
LAUNCH_TEMPLATES = "docs.aws.amazon.com/batch/latest/userguide/launch-templates.html"

# What the program says on the console, and what it calls for; the first that fits.
STEPS = (
    (
        r"AccessDenied",
        "Allow the instance role secretsmanager:GetSecretValue on the secret, and kms:Decrypt on "
        "its key.",
    ),
    (
        r"no role on this instance",
        "Compare the instance role of the compute environment with the stack's InstanceProfileArn.",
    ),
    (
        r"urlopen|timed out|refused|unreachable|resolution",
        "Give the subnets a route to Secrets Manager: a NAT gateway, a public address or a VPC "
        "endpoint.",
    ),
    (r"", "See EC2 console, Actions, Monitor and troubleshoot, Get system log for the whole log."),
)


@rule(
    "parked",
    "An instance is parked: it takes no jobs until it has credentials",
    layer=Layer.INSTANCE,
    source=CONSOLE,
    symptom_of=NO_CREDENTIALS | Layer.NETWORK,
)
def parked(facts: Facts) -> Found:
    for instance in running(facts):
        state, why = state_of(instance.console or ())
        if state is State.PARKED:
            yield Evidence(
                f"{instance.id} is parked: {why}",
                step="It keeps trying, and takes jobs as soon as it has credentials. "
                f"{_step_for(why)}",
            )


@rule(
    "no-credentials",
    "An instance has no credentials",
    layer=Layer.INSTANCE,
    source=CONSOLE,
    symptom_of=NO_CREDENTIALS | Layer.NETWORK,
)
def no_credentials(facts: Facts) -> Found:
    for instance in facts.instances or ():
        state, why = state_of(instance.console or ())
        if state is State.WAITING and age(instance.launched, facts) <= JOIN_SECONDS:
            continue  # it is still trying
        if state in (State.WAITING, State.POWERED_OFF, State.WITHOUT):
            yield Evidence(f"{instance.id} reports: {why}", step=_step_for(why))


@rule(
    "agent-disconnected",
    "An instance's ECS agent has lost its connection",
    layer=Layer.INSTANCE,
    source="github.com/aws/amazon-ecs-agent/issues/618",
    symptom_of=Layer.NETWORK,
)
def agent_disconnected(facts: Facts) -> Found:
    for instance in running(facts):
        young = age(instance.launched, facts) <= JOIN_SECONDS
        if (
            instance.agent is False
            and not young
            and state_of(instance.console or ())[0] is not State.PARKED
        ):
            terminate = aws(facts, "ec2", "terminate-instances", "--instance-ids", instance.id)
            yield Evidence(
                f"{instance.id} has joined the cluster, but its agent is not connected.",
                step="If it does not reconnect, terminate it once its containers have finished; "
                f"AWS Batch starts another: {terminate}",
            )


@rule(
    "never-joined",
    "An instance has not joined the ECS cluster",
    layer=Layer.INSTANCE,
    source="docs.aws.amazon.com/batch/latest/userguide/job_stuck_in_runnable.html",
    symptom_of=NO_CREDENTIALS | Layer.NETWORK | Layer.ENVIRONMENT | Layer.INSTANCE,
)
def never_joined(facts: Facts) -> Found:
    for instance in late(facts):
        yield Evidence(
            f"{instance.id} has been running since {instance.launched} and is not registered "
            "with ECS.",
            step="See EC2 console, Actions, Monitor and troubleshoot, Get system log: look for "
            "errors of cloud-init and, on a custom machine image, of the ECS agent.",
        )


@rule(
    "instance-draining",
    "The instances take no new jobs",
    layer=Layer.INSTANCE,
    source="docs.aws.amazon.com/AmazonECS/latest/developerguide/container-instance-draining.html",
    symptom_of=Layer.NETWORK | Layer.INSTANCE,
)
def instance_draining(facts: Facts) -> Found:
    here = running(facts)
    if not here or any(instance.status in ("", "ACTIVE") for instance in here):
        return  # another one may take the job
    for job in _overdue(facts):
        for instance in here:
            yield Evidence(
                f"{instance.id} is {instance.status} in its ECS cluster, and {job.label} waits.",
                step="AWS Batch ends instances in this way. If this one stays, terminate it once "
                "its containers have finished; AWS Batch starts another: "
                f"{aws(facts, 'ec2', 'terminate-instances', '--instance-ids', instance.id)}",
            )


@rule(
    "no-awslogs",
    "The instances cannot send logs to CloudWatch",
    layer=Layer.INSTANCE,
    source="docs.aws.amazon.com/batch/latest/userguide/batch-ami-spec.html",
    symptom_of=Layer.NETWORK | Layer.INSTANCE,
)
def no_awslogs(facts: Facts) -> Found:
    connected = [instance for instance in running(facts) if instance.agent]
    if not connected or not all(instance.awslogs is False for instance in connected):
        return
    for job in _overdue(facts):
        yield Evidence(
            f"{connected[0].id}'s ECS agent does not offer the log driver awslogs, which jobs "
            f"use unless they name another, and {job.label} waits.",
            step="Name awslogs in ECS_AVAILABLE_LOGGING_DRIVERS, where the machine image or the "
            "user data sets that.",
        )


@rule(
    "vcpus-in-use",
    "The compute environment has all the vCPUs that it may have",
    layer=Layer.INSTANCE,
    source="docs.aws.amazon.com/batch/latest/APIReference/API_ComputeResource.html",
    symptom_of=ANYTHING,
)
def vcpus_in_use(facts: Facts) -> Found:
    homes = [one for one in present(facts) if not one.fargate]
    full = homes and all(0 < one.max_vcpus <= one.desired_vcpus for one in homes)
    for job in _overdue(facts) if full else ():
        yield Evidence(
            f"{homes[0].name} has {homes[0].desired_vcpus} of at most {homes[0].max_vcpus} vCPUs, "
            f"no job of {job.queue} runs there, and {job.label} waits.",
            step="Jobs of other queues use them. To allow more: "
            f"{deploy(facts, '--max-vcpus', 'N')}",
        )


@rule(
    "launch-template-old",
    "The compute environment does not use the newest version of its launch template",
    layer=Layer.INSTANCE,
    source="docs.aws.amazon.com/batch/latest/userguide/updating-compute-environments.html",
)
def launch_template_old(facts: Facts) -> Found:
    template, environment = facts.launch_template, main(facts)
    if not template or not template.exists or not environment or not template.newest_differs:
        return
    if template.version >= template.latest:
        return
    # Versions come and go in other people's templates; one with credentials is meant to be used.
    if not facts.ours and (template.fetches_credentials or not template.newest_fetches):
        return
    as_written = template.differs is False
    if as_written and template.restorable == template.latest:
        return  # a copy of what it uses
    text = (
        f"{environment.name} uses version {template.version} of {template.id}; the newest is "
        f"{template.latest}."
    )
    if not facts.ours:
        yield Evidence(
            text,
            step=f"Version {template.latest} fetches registry credentials. A new version alone "
            "reaches no instance: update the compute environment to use it.",
        )
    elif not as_written:
        yield Evidence(text, *restore_launch_template(facts))
    else:
        yield Evidence(
            text,
            copy_version(facts, template),
            f"Version {template.latest} was made by hand, and the next deploy would switch to it. "
            "This makes the stack's version the newest again.",
        )


@rule(
    "user-data-changed",
    "The user data is not what the stack's template says",
    layer=Layer.INSTANCE,
    source=LAUNCH_TEMPLATES,
    symptom_of=Layer.LAUNCH | Layer.ENVIRONMENT,
)
def user_data_changed(facts: Facts) -> Found:
    template = facts.launch_template
    if template and template.exists and template.differs:
        yield Evidence(
            f"Version {template.version} of {template.id} was changed by hand.",
            *restore_launch_template(facts),
        )


@rule(
    "machine-image-custom",
    "The launch template sets a custom machine image",
    layer=Layer.INSTANCE,
    source="docs.aws.amazon.com/batch/latest/userguide/compute_resource_AMIs.html",
)
def machine_image_custom(facts: Facts) -> Found:
    template = facts.launch_template
    if template and template.machine_image and facts.ours:
        fix, step = restore_launch_template(facts) if template.restorable else ("", "")
        yield Evidence(
            f"{template.id} sets {template.machine_image}, which overrides the compute "
            "environment's image: it needs the ECS agent and Python 3.9.",
            fix,
            step or "Check that the image has both, or remove it from the launch template.",
        )


@rule(
    "update-rolled-back",
    "The last update of the stack failed and was rolled back",
    layer=Layer.INSTANCE,
    source="docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/stack-failure-options.html",
)
def update_rolled_back(facts: Facts) -> Found:
    if facts.ours and facts.stack and facts.stack.status == "UPDATE_ROLLBACK_COMPLETE":
        why = facts.stack.cause or facts.stack.reason or "CloudFormation gives no reason."
        yield Evidence(
            f"{facts.stack.name} has its earlier state again: {why}",
            step=f"Fix what it reports, then deploy again: {deploy(facts)}",
        )


@rule(
    "job-waits",
    "The job waits, and nothing shows why",
    layer=Layer.JOB,
    source="docs.aws.amazon.com/batch/latest/userguide/job_stuck_in_runnable.html",
    symptom_of=ANYTHING,
)
def job_waits(facts: Facts) -> Found:
    for job in facts.jobs or ():
        if job.queue in _busy(facts):
            continue  # the jobs that run use what there is
        if job.status in ("RUNNABLE", "STARTING") and age(job.created, facts) > JOIN_SECONDS:
            said = f": {job.reasons[0]}" if job.reasons else " without a reason."
            yield Evidence(
                f"{job.label} has been {job.status} since {job.created}{said}",
                step="Other jobs may run before it: see AWS Batch console, Job queues, Job queue "
                f"snapshot, and {batchreg(facts, 'status')}",
            )


def _busy(facts: Facts) -> set[str]:
    """Return the queues of which jobs run, or may run: they use what there is."""
    return {queue.name for queue in facts.queues or () if queue.running != 0}


def _overdue(facts: Facts) -> list[Job]:
    """Return the jobs that wait longer than an instance takes, while no job of their queue runs."""
    return [
        job
        for job in waiting(facts)
        if job.queue not in _busy(facts) and age(job.created, facts) > JOIN_SECONDS
    ]


def _step_for(said: str) -> str:
    return next(step for pattern, step in STEPS if re.search(pattern, said))
