"""The job: what it asks for, what AWS Batch says about it, and how it ended."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator

from batchreg.doctor.facts import Facts, Job
from batchreg.doctor.rules import Evidence, Found, Layer, Table, main, present
from batchreg.doctor.rules.commands import aws, batchreg, deploy
from batchreg.doctor.rules.image import pull_cause
from batchreg.doctor.rules.refusals import explicit
from batchreg.doctor.rules.repairs import attach_agent_policy

RULES = Table()
rule = RULES.rule

JOBS = "docs.aws.amazon.com/batch/latest/userguide/"
STUCK = JOBS + "job_stuck_in_runnable.html"
LAUNCHES = "docs.aws.amazon.com/autoscaling/ec2/userguide/ts-as-instancelaunchfailure.html"
STOPPED = "docs.aws.amazon.com/AmazonECS/latest/developerguide/stopped-task-error-codes.html"

TOO_LARGE = "MAX_RESOURCE|JOB_RESOURCE_REQUIREMENT"

# Why no instance starts, by the words of AWS Batch (STUCK), Auto Scaling (LAUNCHES) or EC2; the
# first that fits.
NO_LAUNCH = (
    (
        "vcpu-quota",
        r"VcpuLimitExceeded|vCPU (capacity|limit)|MaxSpotInstanceCountExceeded|"
        r"InstanceLimitExceeded",
    ),
    (
        "no-capacity",
        r"INSUFFICIENT_INSTANCE_CAPACITY|InsufficientInstanceCapacity|UnfulfillableCapacity|"
        r"do not have sufficient .*capacity",
    ),
    (
        "instance-types-unsupported",
        r"EC2_INSTANCE_CONFIGURATION_UNSUPPORTED|is not supported in your requested "
        r"Availability Zone|instance type .* (is )?not supported",
    ),
    (
        "volume-key",
        r"InvalidKMSKey|KMSKeyNotAccessible|Client\.InternalError|Client error on launch",
    ),
    ("launch-failed", r""),
)


@rule(
    "job-missing",
    "The job does not exist",
    layer=Layer.JOB,
    source="docs.aws.amazon.com/batch/latest/APIReference/API_DescribeJobs.html",
)
def job_missing(facts: Facts) -> Found:
    names = [queue.name for queue in facts.queues or ()] or [*(facts.queue_names or ())]
    queue = next(iter(names), "QUEUE")
    for job in facts.jobs or ():
        if not job.exists:
            listing = aws(
                facts, "batch", "list-jobs", "--job-queue", queue, "--job-status", "RUNNABLE"
            )
            yield Evidence(
                f"AWS Batch has no job {job.id} in {facts.region}; it forgets jobs after a week.",
                step=f"Check the id. To list the jobs that wait: {listing}",
            )


@rule(
    "job-elsewhere",
    "The job is in another queue",
    layer=Layer.JOB,
    source="docs.aws.amazon.com/batch/latest/APIReference/API_SubmitJob.html",
)
def job_elsewhere(facts: Facts) -> Found:
    ours = [queue.name for queue in facts.queues or ()] if facts.ours else []
    for job in facts.jobs or ():
        if job.asked and job.queue and ours and job.queue not in ours:
            yield Evidence(
                f"{job.label} is in {job.queue}; the stack's queue is {' or '.join(ours)}.",
                step=f"Submit it to {ours[0]}, or give the right --stack-name.",
            )


@rule(
    "no-gpu",
    "The job asks for a GPU, and the compute environment has none",
    layer=Layer.JOB,
    source=JOBS + "gpu-jobs.html",
)
def no_gpu(facts: Facts) -> Found:
    have = [environment for environment in present(facts) if not environment.fargate]
    for job in _without_gpu(facts):
        yield Evidence(
            f"{job.label} asks for {job.gpus} GPU; the instances are "
            f"{', '.join(have[0].instance_types)} on {have[0].image_type}.",
            step="Submit it to a stack with GPU instances, created with --image-type "
            "ECS_AL2023_NVIDIA --instance-type g4dn. Changing this stack would move its other jobs "
            "to GPU instances too."
            if facts.ours
            else "Submit it to a queue whose compute environment has GPU instances and the image "
            "type ECS_AL2023_NVIDIA.",
        )


@rule(
    "job-too-large",
    "The job asks for more than the compute environment has",
    layer=Layer.JOB,
    source=STUCK,
)
def job_too_large(facts: Facts) -> Found:
    for job in _stuck(facts):
        most = max(
            (
                environment.max_vcpus
                for environment in present(facts)
                if environment.fargate == job.fargate
            ),
            default=0,
        )
        if most and job.vcpus > most:
            yield Evidence(
                f"{job.label} asks for {job.vcpus:g} vCPUs; the compute environment is limited to "
                f"{most}.",
                fix=deploy(facts, "--max-vcpus", str(math.ceil(job.vcpus))),
            )
    without_gpu = list(_without_gpu(facts))
    for job, reason in _said(facts, TOO_LARGE):
        if job not in without_gpu:
            yield Evidence(
                f"{job.label}, with {job.vcpus:g} vCPUs and {job.memory} MiB: {reason}",
                step="Ask for less in the job definition, or use larger instance types: "
                f"{deploy(facts, '--instance-type', 'TYPE')}",
            )


@rule(
    "vcpu-quota",
    "The account is not allowed to run that many vCPUs",
    layer=Layer.JOB,
    source="docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html",
)
def vcpu_quota(facts: Facts) -> Found:
    quota, wanted = facts.quota, max([2.0, *(job.vcpus for job in _stuck(facts))])
    if quota and quota.value < wanted:
        yield Evidence(
            f"{quota.name} is {quota.value:g} vCPUs; {wanted:g} are needed.",
            step=f"Request an increase of {quota.name} ({quota.code}) in the Service Quotas console.",
        )
    for failure in _no_launch(facts, "vcpu-quota"):
        yield Evidence(
            failure,
            step="Request an increase in the Service Quotas console, Amazon EC2, Running On-Demand "
            "instances or Spot Instance Requests.",
        )


@rule(
    "no-capacity",
    "AWS has no free capacity for these instance types",
    layer=Layer.JOB,
    source=JOBS + "job_stuck_in_runnable_capacity.html",
)
def no_capacity(facts: Facts) -> Found:
    for failure in _no_launch(facts, "no-capacity"):
        yield Evidence(
            failure,
            step="AWS Batch keeps trying. More instance types or subnets raise the chance: "
            f"{_more_types(facts)}",
        )


@rule(
    "instance-types-unsupported",
    "The instance types are not available in the subnets' zones",
    layer=Layer.JOB,
    source=STUCK,
)
def instance_types_unsupported(facts: Facts) -> Found:
    for failure in _no_launch(facts, "instance-types-unsupported"):
        yield Evidence(
            failure, step=f"Deploy types that the subnets' zones have: {_more_types(facts)}"
        )


@rule(
    "volume-key",
    "EC2 cannot use the KMS key of the instances' disks",
    layer=Layer.JOB,
    source="docs.aws.amazon.com/autoscaling/ec2/userguide/"
    "key-policy-requirements-EBS-encryption.html",
)
def volume_key(facts: Facts) -> Found:
    for failure in _no_launch(facts, "volume-key"):
        yield Evidence(
            failure,
            step="In the KMS console, let AWSServiceRoleForAutoScaling use the account's default "
            "key for EBS: docs.aws.amazon.com/autoscaling/ec2/userguide/"
            "key-policy-requirements-EBS-encryption.html",
        )


@rule("launch-failed", "EC2 cannot start instances", layer=Layer.JOB, source=LAUNCHES)
def launch_failed(facts: Facts) -> Found:
    for failure in _no_launch(facts, "launch-failed"):
        yield Evidence(
            failure, step="See EC2 console, Auto Scaling groups, Activity for the whole message."
        )


def _execution_role(facts: Facts, _job: Job) -> str:
    if not facts.stack_name:
        return (
            "Check that the execution role of the job definition trusts ecs-tasks.amazonaws.com, "
            "that the secret exists and that this role is allowed to read it, and that the subnets "
            "reach Secrets Manager."
        )
    role = f"JobExecutionRoleArn of {facts.stack_name}"
    return (
        f"Use the {role} in the job definition (submit --auth job does), check that the "
        "secret exists and that this role is allowed to read it, and that the subnets reach "
        "Secrets Manager."
    )


def _log_driver(facts: Facts, job: Job) -> tuple[str, str]:
    if any("does not exist" in reason for reason in job.reasons):
        return aws(facts, "logs", "create-log-group", "--log-group-name", "/aws/batch/job"), ""
    if facts.role and facts.role.exists and facts.role.name and not job.fargate:
        return attach_agent_policy(facts, facts.role), ""
    return "", "Allow the execution role logs:CreateLogStream and logs:PutLogEvents."


ENDS: tuple[tuple[str, str, str, str, Callable[[Facts, Job], str | tuple[str, str]]], ...] = (
    (
        "mount-failed",
        "A volume of the job cannot be mounted",
        r"bind source path does not exist|error (while )?(creating mount source|mounting)|"
        r"failed to mount|mount\.nfs|mount failed|failed to create volume|EFSMountFailure|"
        r"ContainerCannotMount|invalid mount config|VolumeDriver",
        "docs.aws.amazon.com/AmazonECS/latest/developerguide/efs-volumes.html",
        lambda facts, job: (
            "Check the volumes and mount points of the job definition: the path must exist on the "
            "instance, and a file system must be reachable and allow the mount."
        ),
    ),
    (
        "execution-role",
        "The job's execution role or its secret cannot be used",
        r"ResourceInitializationError|unable to assume the (execution )?role|AssumeRole|"
        r"Asm fetching secret",
        "docs.aws.amazon.com/AmazonECS/latest/developerguide/resource-initialization-error.html",
        _execution_role,
    ),
    (
        "log-driver",
        "The container cannot write its log",
        r"logging driver|awslogs|CreateLogStream|log group",
        JOBS + "using_awslogs.html",
        _log_driver,
    ),
    (
        "gpu-driver",
        "The instance cannot give the container a GPU",
        r"could not select device driver|nvidia-container|libnvidia|nvml error",
        JOBS + "gpu-jobs.html",
        lambda facts, job: (
            "Use GPU instances with the image type ECS_AL2023_NVIDIA, whose drivers fit the "
            "image's CUDA version."
        ),
    ),
    (
        "docker-timeout",
        "The Docker Engine of the instance does not keep up",
        r"DockerTimeoutError|Could not transition to|DockerStateError",
        "docs.aws.amazon.com/AmazonECS/latest/developerguide/task-cpu-memory-error.html",
        lambda facts, job: (
            "Its disk or memory is overloaded: use instances with a faster or larger disk, or let "
            "fewer jobs share one. Submit the job again, with retries."
        ),
    ),
    (
        "dependency-failed",
        "A job that this one depends on has failed",
        r"dependent job failed|dependency .*failed|job dependency",
        JOBS + "job_dependencies.html",
        lambda facts, job: (
            "Submit both again once that job is repaired. To look at it: "
            f"{batchreg(facts, 'doctor', '--job', 'ID')}"
        ),
    ),
    (
        "container-not-started",
        "The container does not start",
        r"Cannot(Start|Create)Container.*(exec|executable|no such file|permission denied|"
        r"not a directory|working dir|chdir|unable to find user)",
        "docs.aws.amazon.com/AmazonECS/latest/developerguide/cannot-start-container.html",
        lambda facts, job: (
            "Correct the job's command: its first word must be a program in the image."
        ),
    ),
    (
        "container-refused",
        "The Docker Engine refuses to start the container",
        r"CannotStartContainer|CannotCreateContainer",
        "docs.aws.amazon.com/AmazonECS/latest/developerguide/cannot-start-container.html",
        lambda facts, job: "Correct what it names in the job definition.",
    ),
    (
        "out-of-memory",
        "The job needs more memory than it asks for",
        r"OutOfMemory",
        STOPPED,
        lambda facts, job: (
            f"Ask for more than {job.memory} MiB: MEMORY in the job definition, or --memory of "
            "submit."
        ),
    ),
    (
        "host-terminated",
        "The instance was terminated while the job ran",
        r"Host EC2 .*terminated|SpotInstanceTermination",
        JOBS + "job_retries.html",
        lambda facts, job: (
            "Submit the job again, with retries: attempts in the job definition, or --retries "
            "of submit."
        ),
    ),
    (
        "timed-out",
        "The job took longer than its timeout allows",
        r"exceeded timeout",
        JOBS + "job_timeouts.html",
        lambda facts, job: "Allow more: timeout in the job definition, or --timeout of submit.",
    ),
)


def end_of(job: Job) -> tuple[str, str] | None:
    """Return (cause, reason) of how a job ended, by the first reason that names a cause."""
    if pull_cause(job):
        return None
    for reason in job.reasons:
        if not explicit(reason):
            for cause, _, pattern, _, _ in ENDS:
                if re.search(pattern, reason, re.IGNORECASE):
                    return cause, reason
    return None


def _enter(
    cause: str,
    text: str,
    pattern: str,
    source: str,
    step: Callable[[Facts, Job], str | tuple[str, str]],
) -> None:
    @rule(cause, text, layer=Layer.JOB, source=source)
    def ended(facts: Facts) -> Found:
        for job in _stuck(facts):
            end = end_of(job)
            if end and end[0] == cause:
                found = step(facts, job)
                help_for = found if isinstance(found, tuple) else ("", found)
                yield Evidence(f"{job.label}: {end[1]}", *help_for)


for _end in ENDS:
    _enter(*_end)


# What a shell or the kernel means by them.
CODES = {
    126: ": not executable",
    127: ": no such command",
    137: ": killed",
    139: ": a segmentation fault",
    143: ": terminated",
}


@rule("job-failed", "The job failed", layer=Layer.JOB, source=STOPPED)
def job_failed(facts: Facts) -> Found:
    for job in facts.jobs or ():
        # Programs fail every day: one that has an exit code concerns whoever asks about it.
        if job.status != "FAILED" or (job.exit_code is not None and not job.asked):
            continue
        if _is_explained(job):
            continue
        said = [text for text in job.reasons if not GENERAL.search(text)] or [*job.reasons]
        if job.exit_code:
            why = f" {said[0]}" if said and not GENERAL.search(said[0]) else ""
            yield Evidence(
                f"{job.label} ended with exit code {job.exit_code}{CODES.get(job.exit_code, '')}."
                f"{why}",
                step=f"See its log: {batchreg(facts, 'logs', job.id)}",
            )
        else:
            reason = said[0] if said else "AWS Batch gives no reason."
            yield Evidence(
                f"{job.label}: {reason}",
                step=f"AWS Batch says no more than that. See its log, if it has one: "
                f"{batchreg(facts, 'logs', job.id)}",
            )


# What AWS Batch says of any job whose container has ended or did not start.
GENERAL = re.compile(r"Essential container in task exited|Task failed to start", re.I)


def _is_explained(job: Job) -> bool:
    """Tell whether some other rule names what a job's reasons say."""
    return bool(
        pull_cause(job)
        or end_of(job)
        or any(explicit(reason) for reason in job.reasons)
        or any(
            re.search(pattern, reason, re.IGNORECASE)
            for reason in job.reasons
            for _, pattern in (*NO_LAUNCH[:-1], ("job-too-large", TOO_LARGE))
        )
        or any("SERVICE_ROLE_PERMISSIONS" in reason for reason in job.reasons)
    )


def _stuck(facts: Facts) -> Iterator[Job]:
    return (job for job in facts.jobs or () if job.stuck)


def _without_gpu(facts: Facts) -> Iterator[Job]:
    """Yield the jobs that wait for a GPU which no compute environment on EC2 has."""
    have = [environment for environment in present(facts) if not environment.fargate]
    if have and not any("NVIDIA" in environment.image_type for environment in have):
        yield from (job for job in _stuck(facts) if job.gpus and not job.fargate)


def _said(facts: Facts, pattern: str) -> Iterator[tuple[Job, str]]:
    for job in _stuck(facts):
        for reason in job.reasons:
            if re.search(pattern, reason, re.IGNORECASE) and not explicit(reason):
                yield job, reason
                break


def _more_types(facts: Facts) -> str:
    environment = main(facts)
    have = environment.instance_types if environment else ()
    words = [word for kind in have for word in ("--instance-type", kind)]
    return deploy(facts, *words, "--instance-type", "TYPE")


def _no_launch(facts: Facts, cause: str) -> Iterator[str]:
    """Yield what AWS Batch, Auto Scaling and EC2 say about instances that did not start."""

    def fits(text: str) -> bool:
        return not explicit(text) and cause == next(
            name for name, pattern in NO_LAUNCH if re.search(pattern, text, re.IGNORECASE)
        )

    for job in _stuck(facts):
        for reason in job.reasons:
            if cause != "launch-failed" and fits(reason):
                yield f"{job.label}: {reason}"
                break
    for failure in facts.launch_failures or ():
        if fits(failure):
            yield f"Auto Scaling: {failure}"
    for instance in facts.instances or ():
        if (
            instance.reason.startswith("Client.")
            and "Shutdown" not in instance.reason
            and fits(instance.reason)
        ):
            yield f"{instance.id}: {instance.reason}"
