"""The job: where it is, what AWS Batch says about it, and how it ended."""

from __future__ import annotations

import re
from collections.abc import Callable

from batchreg.doctor.facts import Facts, Job
from batchreg.doctor.rules import Evidence, Found, Layer, Table, stuck
from batchreg.doctor.rules.capacity import TOO_LARGE
from batchreg.doctor.rules.commands import aws, batchreg
from batchreg.doctor.rules.image import pull_cause
from batchreg.doctor.rules.launches import NO_LAUNCH
from batchreg.doctor.rules.refusals import explicit
from batchreg.doctor.rules.repairs import attach_agent_policy, unusable
from batchreg.doctor.rules.role import refusal

RULES = Table()
rule = RULES.rule

JOBS = "docs.aws.amazon.com/batch/latest/userguide/"
STOPPED = "docs.aws.amazon.com/AmazonECS/latest/developerguide/stopped-task-error-codes.html"


@rule(
    "job-missing",
    "The job does not exist",
    layer=Layer.JOB,
    source="docs.aws.amazon.com/batch/latest/APIReference/API_DescribeJobs.html",
)
def job_missing(facts: Facts) -> Found:
    for job in facts.jobs or ():
        if not job.exists:
            yield Evidence(
                f"AWS Batch has no job {job.id} in {facts.region}; it forgets jobs after a week.",
                step=f"Check the id. To list the jobs: {batchreg(facts, 'jobs')}",
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
        for job in stuck(facts):
            end = end_of(job)
            if end and end[0] == cause:
                found = step(facts, job)
                help_for = found if isinstance(found, tuple) else ("", found)
                yield Evidence(f"{job.label}: {end[1]}", *help_for)


for _end in ENDS:
    _enter(*_end)


@rule(
    "execution-role",
    "The job's execution role or its secret cannot be used",
    layer=Layer.JOB,
    source=JOBS + "execution-IAM-role.html",
)
def execution_role(facts: Facts) -> Found:
    yield from _roles(facts, lambda job: job.execution_role)


@rule(
    "job-role",
    "The job's role cannot be used",
    layer=Layer.JOB,
    source="docs.aws.amazon.com/AmazonECS/latest/developerguide/task-iam-roles.html",
)
def job_role(facts: Facts) -> Found:
    yield from _roles(facts, lambda job: job.role)


def _roles(facts: Facts, role_of: Callable[[Job], str]) -> Found:
    """Yield what keeps ECS from using the roles of jobs that wait or have failed."""
    known = {role.name: role for role in facts.job_roles or () if role.seen}
    for job in stuck(facts):
        role = known.get(role_of(job).rsplit("/", 1)[-1])
        if not role or pull_cause(job):
            continue
        if found := unusable(facts, role, "ecs-tasks"):
            text, *repair = found
            yield Evidence(f"{job.label}: {text}", *repair)
        for denial in role.denied:
            yield refusal(role, denial, "", f"Allow {role.name} {denial.action} on that secret.")


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
