"""The job: what it asks for, what AWS Batch says about it, and how it ended."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from batchreg.doctor.facts import Facts, Job
from batchreg.doctor.rules import Found, Table, deploy
from batchreg.doctor.rules.stack import present

RULES = Table()
rule = RULES.rule

# Sources: docs.aws.amazon.com/batch/latest/userguide/job_stuck_in_runnable.html for the reasons in
# capital letters; the errors of EC2's API; amazon-ecs-agent.
CAPACITY = (
    r"INSUFFICIENT_INSTANCE_CAPACITY|InsufficientInstanceCapacity|UnfulfillableCapacity|"
    r"do not have sufficient .*capacity"
)
UNSUPPORTED = (
    r"EC2_INSTANCE_CONFIGURATION_UNSUPPORTED|is not supported in your requested "
    r"Availability Zone|instance type .* (is )?not supported"
)
QUOTA = (
    r"VcpuLimitExceeded|vCPU (capacity|limit)|MaxSpotInstanceCountExceeded|"
    r"InstanceLimitExceeded"
)
KEY = r"InvalidKMSKey|KMSKeyNotAccessible|Client\.InternalError|Client error on launch"


@rule("job-missing", "There is no such job")
def job_missing(facts: Facts) -> Found:
    for job in facts.jobs or ():
        if not job.exists:
            yield (
                f"AWS Batch knows no job {job.id} in {facts.region}; it forgets jobs after a week.",
                "aws batch list-jobs --job-queue QUEUE --job-status RUNNABLE lists some",
            )


@rule("job-elsewhere", "The job is in another queue")
def job_elsewhere(facts: Facts) -> Found:
    ours = [queue.name for queue in facts.queues or ()]
    for job in facts.jobs or ():
        if job.asked and job.queue and ours and job.queue not in ours:
            yield (
                f"{job.label} is in {job.queue}; the stack's is {' or '.join(ours)}.",
                f"Submit it to {ours[0]}, or name the right --stack-name",
            )


@rule("no-gpu", "The job wants a GPU, and the compute environment has none")
def no_gpu(facts: Facts) -> Found:
    have = [environment for environment in present(facts) if not environment.fargate]
    for job in _jobs(facts):
        if (
            job.gpus
            and have
            and not job.fargate
            and not any("NVIDIA" in environment.image_type for environment in have)
        ):
            yield (
                f"{job.label} asks for {job.gpus} GPU; the instances are "
                f"{', '.join(have[0].instance_types)} on {have[0].image_type}.",
                deploy(facts, "--image-type ECS_AL2023_NVIDIA --instance-type g4dn"),
            )


@rule("job-too-large", "The job asks for more than the compute environment has", unless=("no-gpu",))
def job_too_large(facts: Facts) -> Found:
    for job in _jobs(facts):
        most = max(
            (
                environment.max_vcpus
                for environment in present(facts)
                if environment.fargate == job.fargate
            ),
            default=0,
        )
        if most and job.vcpus > most:
            yield (
                f"{job.label} asks for {job.vcpus:g} vCPUs; the compute environment may have "
                f"{most}.",
                f"{deploy(facts, f'--max-vcpus {job.vcpus:g}')}, or give the job less",
            )
    for job, reason in _said(facts, "MAX_RESOURCE|JOB_RESOURCE_REQUIREMENT"):
        yield (
            f"{job.label}, of {job.vcpus:g} vCPUs and {job.memory} MiB: {reason}",
            f"{deploy(facts, '--instance-type TYPE --max-vcpus N')} with more, or give the job less",
        )


@rule("vcpu-quota", "The account may not run that many vCPUs")
def vcpu_quota(facts: Facts) -> Found:
    step = "Service Quotas console, Amazon EC2, "
    quota, wanted = facts.quota, max([2.0, *(job.vcpus for job in _jobs(facts))])
    if quota and quota.value < wanted:
        yield (
            f"{quota.name} is {quota.value:g} vCPUs; {wanted:g} are needed.",
            f"{step}{quota.name} ({quota.code}): request an increase",
        )
    for failure in _failures(facts, QUOTA):
        yield failure, f"{step}Running On-Demand or Spot instances: request an increase"


@rule("no-capacity", "AWS has no such instances free")
def no_capacity(facts: Facts) -> Found:
    step = f"{deploy(facts, '--instance-type TYPE')} with more types, more subnets, or wait"
    for job, reason in _said(facts, CAPACITY):
        yield f"{job.label}: {reason}", step
    for failure in _failures(facts, CAPACITY):
        yield failure, step


@rule("instance-types-unsupported", "The instance types do not exist there")
def instance_types_unsupported(facts: Facts) -> Found:
    step = f"{deploy(facts, '--instance-type TYPE')} with types that the subnets' zones have"
    for job, reason in _said(facts, UNSUPPORTED):
        yield f"{job.label}: {reason}", step
    for failure in _failures(facts, UNSUPPORTED):
        yield failure, step


@rule("volume-key", "EC2 may not use the KMS key of the instances' disks")
def volume_key(facts: Facts) -> Found:
    for failure in _failures(facts, KEY):
        yield (
            failure,
            (
                "KMS console: let AWSServiceRoleForAutoScaling use the account's default "
                "key for EBS, as docs.aws.amazon.com/autoscaling/ec2/userguide/"
                "key-policy-requirements-EBS-encryption.html says"
            ),
        )


@rule(
    "launch-failed",
    "EC2 starts no instances",
    unless=("vcpu-quota", "no-capacity", "instance-types-unsupported", "volume-key"),
)
def launch_failed(facts: Facts) -> Found:
    for failure in _failures(facts, ""):
        yield failure, "EC2 console, Auto Scaling groups, Activity shows all of it"


@rule("service-role", "AWS Batch cannot use its service role")
def service_role(facts: Facts) -> Found:
    for job, reason in _said(facts, "SERVICE_ROLE_PERMISSIONS"):
        yield (
            f"{job.label}: {reason}",
            "aws iam create-service-linked-role --aws-service-name batch.amazonaws.com",
        )


ENDS: tuple[tuple[str, str, str, Callable[[Facts], str]], ...] = (
    (
        "execution-role",
        "The job's execution role or its secret cannot be used",
        r"ResourceInitializationError|unable to assume the (execution )?role|AssumeRole",
        lambda facts: (
            "Give the job definition the stack's JobExecutionRoleArn and "
            "RegistrySecretArn (batchreg submit --auth job does), and its subnets a route to Secrets "
            "Manager"
        ),
    ),
    (
        "log-driver",
        "The container cannot write its log",
        r"logging driver|awslogs|CreateLogStream|log group",
        lambda facts: (
            f"{deploy(facts)} restores the role's policies; "
            "aws logs create-log-group --log-group-name /aws/batch/job"
        ),
    ),
    (
        "container-not-started",
        "The container does not start",
        r"CannotStartContainer|CannotCreateContainer",
        lambda facts: "Mend the job's command: the first word is a program in the image",
    ),
    (
        "out-of-memory",
        "The job needs more memory than it asked for",
        r"OutOfMemory",
        lambda facts: "batchreg submit --memory with more, or the job definition's MEMORY",
    ),
    (
        "host-terminated",
        "The instance went away under the job",
        r"Host EC2 .*terminated|SpotInstanceTermination",
        lambda facts: (
            f"batchreg submit --retries 3, or {deploy(facts, '--provisioning-model EC2')}"
        ),
    ),
    (
        "timed-out",
        "The job took longer than its time-out allows",
        r"exceeded timeout",
        lambda facts: "batchreg submit --timeout with more",
    ),
)


def _enter(cause: str, text: str, pattern: str, fix: Callable[[Facts], str]) -> None:
    @rule(cause, text)
    def ended(facts: Facts) -> Found:
        for job, reason in _said(facts, pattern):
            if "CannotPull" not in reason:
                yield f"{job.label}: {reason}", fix(facts)


for _end in ENDS:
    _enter(*_end)


@rule(
    "job-failed",
    "The program in the container failed",
    unless=("out-of-memory", "host-terminated", "timed-out", "wrong-architecture"),
)
def job_failed(facts: Facts) -> Found:
    for job in facts.jobs or ():
        if job.asked and job.status == "FAILED" and job.exit_code:
            known = {
                126: ": not executable",
                127: ": no such command",
                137: ": killed",
                139: ": a segmentation fault",
            }.get(job.exit_code, "")
            yield (
                f"{job.label} ended with exit code {job.exit_code}{known}.",
                f"batchreg logs {job.id}",
            )


def _jobs(facts: Facts) -> Iterator[Job]:
    return (job for job in facts.jobs or () if job.exists and job.status != "SUCCEEDED")


def _said(facts: Facts, pattern: str) -> Iterator[tuple[Job, str]]:
    for job in _jobs(facts):
        for reason in job.reasons:
            if re.search(pattern, reason, re.IGNORECASE):
                yield job, reason
                break


def _failures(facts: Facts, pattern: str) -> Iterator[str]:
    """Yield what went wrong when instances were to be launched."""
    for failure in facts.launch_failures or ():
        if re.search(pattern, failure, re.IGNORECASE):
            yield f"Auto Scaling: {failure}"
    for instance in facts.instances or ():
        if (
            instance.reason.startswith("Client.")
            and "Shutdown" not in instance.reason
            and (re.search(pattern, instance.reason))
        ):
            yield f"{instance.id}: {instance.reason}"
