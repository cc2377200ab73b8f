"""What the jobs ask for, against what the compute environments can have."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence

from batchreg.doctor.facts import Environment, Facts, Job
from batchreg.doctor.machines import InstanceType
from batchreg.doctor.rules import Evidence, Found, Layer, Table, main, present, stuck, waiting
from batchreg.doctor.rules.commands import deploy
from batchreg.doctor.rules.launches import QUOTA, QUOTAS, UNSUPPORTED, more_types
from batchreg.doctor.rules.refusals import explicit
from batchreg.jobs.capacity import RESERVED_MIB

RULES = Table()
rule = RULES.rule

JOBS = "docs.aws.amazon.com/batch/latest/userguide/"
STUCK = JOBS + "job_stuck_in_runnable.html"
TOO_LARGE = "MAX_RESOURCE|JOB_RESOURCE_REQUIREMENT"

GRAPHICS = re.compile(r"[gp]\d")  # the names of instance types with GPUs
# AWS Batch takes its image with NVIDIA's drivers by itself, although Describe says this.
PERHAPS_WITH_DRIVERS = ("", "ECS_AL2")


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
            f"{', '.join(have[0].instance_types)} on {have[0].image_type or 'their own image'}.",
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
    offered = _offered(_homes(facts))
    for job in stuck(facts):
        most = max(
            (
                environment.max_vcpus
                for environment in present(facts)
                if environment.fargate == job.fargate
            ),
            default=0,
        )
        if most and job.vcpus > most:
            # A higher limit helps only where an instance type is large enough.
            helps = job.fargate or not offered or _fitting(job, offered, facts)
            yield Evidence(
                f"{job.label} asks for {job.vcpus:g} vCPUs; the compute environment is limited to "
                f"{most}.",
                fix=deploy(facts, "--max-vcpus", str(math.ceil(job.vcpus))) if helps else "",
                step="" if helps else _ask_for_less(facts),
            )
    without_gpu = list(_without_gpu(facts))
    for job, reason in _said(facts, TOO_LARGE):
        if job not in without_gpu:
            yield Evidence(
                f"{job.label}, with {job.vcpus:g} vCPUs and {job.memory} MiB: {reason}",
                step=_ask_for_less(facts),
            )


@rule(
    "job-too-large",
    "The job asks for more than the compute environment has",
    layer=Layer.JOB,
    source=JOBS + "memory-management.html",
)
def job_larger_than_any_instance(facts: Facts) -> Found:
    homes = _homes(facts)
    offered = _offered(homes)
    without_gpu = list(_without_gpu(facts))
    for job in waiting(facts) if offered else ():
        fitting = _fitting(job, offered, facts)
        if not fitting and job not in without_gpu:
            yield Evidence(
                f"{job.label} asks for {_size(job)}; {_largest(job, offered, facts)}.",
                step=_ask_for_less(facts),
            )
        elif fitting and all(_never(home, job, facts) for home in homes):
            least = min(fitting, key=lambda one: one.vcpus)
            yield Evidence(
                f"The smallest instance type for {job.label} is {least}; {homes[0].name} is limited "
                f"to {homes[0].max_vcpus} vCPUs, which BEST_FIT never exceeds.",
                fix=deploy(facts, "--max-vcpus", str(least.vcpus)),
            )


@rule(*QUOTA, layer=Layer.JOB, source=QUOTAS)
def vcpu_quota(facts: Facts) -> Found:
    quota, environment = facts.quota, main(facts)
    if not quota:
        return
    # With several environments, the job may be meant for another one.
    alone = environment if len(_homes(facts)) == 1 else None
    wanted, why = 2.0, ""
    for job in stuck(facts):
        fitting = [] if job.fargate else _fitting(job, (alone and alone.offered) or (), facts)
        least = min(fitting, key=lambda one: one.vcpus, default=None)
        needed = max(job.vcpus, least.vcpus if least else 0)
        if needed > wanted:
            wanted, why = needed, f", by {least}, the smallest instance type for {job.label}"
            why = why if least and least.vcpus > job.vcpus else ""
    if quota.value < wanted:
        yield Evidence(
            f"{quota.name} is {quota.value:g} vCPUs; {wanted:g} are needed{why}.",
            step=f"Request an increase of {quota.name} ({quota.code}) in the Service Quotas console.",
        )


@rule(
    *UNSUPPORTED,
    layer=Layer.JOB,
    source="docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstanceTypeOfferings.html",
)
def instance_types_not_offered(facts: Facts) -> Found:
    environment = main(facts)
    if not environment or environment.offered is None or not environment.instance_types:
        return
    asked = ", ".join(environment.instance_types)
    if not environment.offered:
        yield Evidence(
            f"EC2 has none of the instance types of {environment.name} in {facts.region}: {asked}.",
            step=f"Deploy types that the region has: {deploy(facts, '--instance-type', 'TYPE')}",
        )
        return
    zones = {subnet.zone for subnet in facts.subnets or () if subnet.exists}
    if not zones or "" in zones or any(one.zones is None for one in environment.offered):
        return
    groups: list[tuple[str, Sequence[InstanceType]]] = [
        (f"the instance types of {environment.name}, {asked}", environment.offered)
    ]
    if len(_homes(facts)) == 1:
        groups += [
            (f"the instance types for {job.label}, which asks for {_size(job)}", fitting)
            for job in waiting(facts)
            if (fitting := _fitting(job, environment.offered, facts))
        ]
    for what, types in groups:
        there = sorted({zone for one in types for zone in one.zones or ()})
        if not zones & {*there}:
            elsewhere = f" They are in {', '.join(there)}." if there else ""
            yield Evidence(
                f"The subnets are in {', '.join(sorted(zones))}, which have none of {what}."
                f"{elsewhere}",
                step="Use subnets in other zones, or deploy types that the subnets' zones have: "
                f"{more_types(facts)}",
            )
            return


def _homes(facts: Facts) -> list[Environment]:
    """Return the compute environments in which a job on EC2 may run."""
    return [environment for environment in present(facts) if not environment.fargate]


def _offered(homes: list[Environment]) -> list[InstanceType]:
    """Return all that they can have; nothing where that is not known of each."""
    known = [home.offered for home in homes]
    return [] if None in known else [one for types in known for one in types or ()]


def _fitting(job: Job, offered: Iterable[InstanceType], facts: Facts) -> list[InstanceType]:
    """Return the instance types that a job may fit; what an agent has registered is certain."""
    registered = _registered(facts)
    return [
        one
        for one in offered
        if one.holds(job.vcpus, job.memory, job.gpus)
        and job.memory <= registered.get(one.name, job.memory)
    ]


def _registered(facts: Facts) -> dict[str, int]:
    """Return how many MiB for jobs the agents have registered, by instance type."""
    return {one.type: one.memory for one in facts.instances or () if one.memory}


def _never(home: Environment, job: Job, facts: Facts) -> bool:
    """Tell whether an instance for a job would take the environment above its vCPUs.

    With other strategies AWS Batch exceeds them by one instance. Source: docs.aws.amazon.com/batch/
    latest/userguide/allocation-strategies.html
    """
    least = min((one.vcpus for one in _fitting(job, home.offered or (), facts)), default=math.inf)
    return home.strategy == "BEST_FIT" and 0 < home.max_vcpus < least


def _size(job: Job) -> str:
    gpus = f" and {job.gpus} GPUs" if job.gpus else ""
    return f"{job.vcpus:g} vCPUs and {job.memory} MiB{gpus}"


def _largest(job: Job, offered: list[InstanceType], facts: Facts) -> str:
    """Say which instance type comes nearest: the one with most of what the job lacks."""
    gpus = max(offered, key=lambda one: (one.gpus, one.memory))
    vcpus = max(offered, key=lambda one: (one.vcpus, one.memory))
    memory = max(offered, key=lambda one: (one.memory, one.vcpus))
    if job.gpus > gpus.gpus:
        return f"the instance type with the most GPUs is {gpus}"
    if job.vcpus > vcpus.vcpus:
        return f"the largest instance type is {vcpus}"
    kept = f"the ECS agent and the system keep at least {RESERVED_MIB} MiB of it"
    if memory.name in (registered := _registered(facts)):
        kept = f"{registered[memory.name]} MiB of it are for jobs"
    return f"the instance type with the most memory is {memory}, and {kept}"


def _ask_for_less(facts: Facts) -> str:
    return (
        "Ask for less in the job definition, or use larger instance types: "
        f"{deploy(facts, '--instance-type', 'TYPE')}"
    )


def _without_gpu(facts: Facts) -> Iterator[Job]:
    """Yield the jobs that wait for a GPU which no compute environment on EC2 has."""
    have = _homes(facts)
    if have and not any(_may_have_gpu(environment, facts) for environment in have):
        yield from (job for job in stuck(facts) if job.gpus and not job.fargate)


def _may_have_gpu(environment: Environment, facts: Facts) -> bool:
    """Tell whether an environment may have GPUs and their drivers."""
    if environment.type == "UNMANAGED":
        return True
    mine = environment == main(facts)
    custom = environment.custom_image or (mine and facts.machine_image is not None)
    drivers = "NVIDIA" in environment.image_type or custom
    perhaps = environment.image_type in PERHAPS_WITH_DRIVERS
    if environment.offered is None:
        return drivers or (perhaps and any(map(GRAPHICS.match, environment.instance_types)))
    return (drivers or perhaps) and any(one.gpus for one in environment.offered)


def _said(facts: Facts, pattern: str) -> Iterator[tuple[Job, str]]:
    for job in stuck(facts):
        for reason in job.reasons:
            if re.search(pattern, reason, re.IGNORECASE) and not explicit(reason):
                yield job, reason
                break
