"""Why EC2 starts no instances: quotas, capacity, prices, roles and keys, in the words of AWS."""

from __future__ import annotations

import re
from collections.abc import Iterator

from batchreg.doctor.facts import Facts
from batchreg.doctor.rules import Evidence, Found, Layer, Table, main, stuck, waiting
from batchreg.doctor.rules.commands import aws, deploy
from batchreg.doctor.rules.joining import JOIN_SECONDS, age
from batchreg.doctor.rules.refusals import explicit
from batchreg.doctor.rules.repairs import attach_policy, unusable
from batchreg.doctor.rules.role import refusal

RULES = Table()
rule = RULES.rule

JOBS = "docs.aws.amazon.com/batch/latest/userguide/"
STUCK = JOBS + "job_stuck_in_runnable.html"
LAUNCHES = "docs.aws.amazon.com/autoscaling/ec2/userguide/ts-as-instancelaunchfailure.html"
CREATE_SPOT_ROLE = ("iam", "create-service-linked-role", "--aws-service-name", "spot.amazonaws.com")
SPOT_ROLES = JOBS + "spot_fleet_IAM_role.html"

QUOTAS = "docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html"

QUOTA = ("vcpu-quota", "The account is not allowed to run that many vCPUs")
UNSUPPORTED = (
    "instance-types-unsupported",
    "The instance types are not available in the subnets' zones",
)

# Why no instance starts, by the words of AWS Batch (STUCK), Auto Scaling (LAUNCHES) or EC2; the
# first that fits.
NO_LAUNCH = (
    (
        "vcpu-quota",
        r"VcpuLimitExceeded|vCPU (capacity|limit)|MaxSpotInstanceCountExceeded|"
        r"InstanceLimitExceeded|spotInstanceCountLimitExceeded|limit on the number of vCPUs",
    ),
    (
        "spot-role",
        r"ServiceLinkedRoleCreationNotPermitted|service-linked role for EC2 Spot|"
        r"AWSServiceRoleForEC2Spot|iamFleetRoleInvalid|IamFleetRole",
    ),
    (
        "spot-price",
        r"SpotMaxPriceTooLow|price-too-low|lower than the minimum required Spot|"
        r"bid price is less than",
    ),
    (
        "no-capacity",
        r"INSUFFICIENT_INSTANCE_CAPACITY|InsufficientInstanceCapacity|UnfulfillableCapacity|"
        r"do not have sufficient .*capacity|no Spot capacity available",
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


@rule(*QUOTA, layer=Layer.JOB, source=QUOTAS)
def vcpu_quota_exceeded(facts: Facts) -> Found:
    for failure in _no_launch(facts, "vcpu-quota"):
        where = "Amazon EC2, Running On-Demand instances or Spot Instance Requests"
        if "Fargate" in failure:
            where = "AWS Fargate, vCPU resource count"
        yield Evidence(failure, step=f"Request an increase in the Service Quotas console, {where}.")


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
            f"{more_types(facts)}",
        )


@rule(*UNSUPPORTED, layer=Layer.JOB, source=STUCK)
def instance_types_unsupported(facts: Facts) -> Found:
    for failure in _no_launch(facts, "instance-types-unsupported"):
        yield Evidence(
            failure, step=f"Deploy types that the subnets' zones have: {more_types(facts)}"
        )


@rule(
    "spot-role", "EC2 cannot use the roles for Spot instances", layer=Layer.JOB, source=SPOT_ROLES
)
def spot_role(facts: Facts) -> Found:
    said = list(_no_launch(facts, "spot-role"))
    create = "" if facts.spot_role else aws(facts, *CREATE_SPOT_ROLE)
    for failure in said:
        yield Evidence(
            failure,
            fix="" if "leet" in failure else create,
            step="Check the role that the compute environment has for its Spot Fleet: it has to trust "
            "spotfleet.amazonaws.com, with the managed policy AmazonEC2SpotFleetTaggingRole."
            if "leet" in failure or not create
            else "",
        )
    idle = nothing_starts(facts)
    if facts.spot_role is False and idle and not said:
        yield Evidence("IAM has no role named AWSServiceRoleForEC2Spot.", fix=create)
    role = facts.fleet_role
    if not role or not role.seen:
        return
    if found := unusable(facts, role, "spotfleet"):
        yield Evidence(*found)
    elif role.denied and idle:
        policy = attach_policy(facts, role, "AmazonEC2SpotFleetTaggingRole")
        for denial in role.denied:
            yield refusal(role, denial, policy)


@rule(
    "spot-price",
    "The bid is lower than the price of Spot instances",
    layer=Layer.JOB,
    source=LAUNCHES,
)
def spot_price(facts: Facts) -> Found:
    for failure in _no_launch(facts, "spot-price"):
        yield Evidence(
            failure,
            step="Raise bidPercentage of the compute environment. Without one, the limit is the "
            "On-Demand price.",
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


def nothing_starts(facts: Facts) -> bool:
    """Tell whether a job waits longer than an instance takes, and there is no instance at all."""
    waits = any(age(job.created, facts) > JOIN_SECONDS for job in waiting(facts))
    return waits and facts.instances == ()


def more_types(facts: Facts) -> str:
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

    for job in stuck(facts):
        for reason in job.reasons:
            if cause != "launch-failed" and fits(reason):
                yield f"{job.label}: {reason}"
                break
    for failure in facts.launch_failures or ():
        if fits(failure):
            yield f"Auto Scaling: {failure}"
    for failure in facts.spot_failures or ():
        if fits(failure):
            yield f"Spot Fleet: {failure}"
    for instance in facts.instances or ():
        if (
            instance.reason.startswith("Client.")
            and "Shutdown" not in instance.reason
            and fits(instance.reason)
        ):
            yield f"{instance.id}: {instance.reason}"
