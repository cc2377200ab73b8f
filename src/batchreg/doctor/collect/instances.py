"""The instances: whether they start, join the cluster and get credentials; and the quota."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from batchreg.doctor import facts
from batchreg.doctor.collect.calls import Absent, Caller, Unseen, name_of
from batchreg.stack import console_lines
from batchreg.stack.instances import console_output

NEWEST = 20
CONSOLES = 3
RECENT_SECONDS = 3600

# "Running On-Demand ..." and "All ... Spot Instance Requests", by what the instance types begin
# with. Source: docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html
QUOTAS = (
    (r"p\d", "P", "L-417A185B", "L-7212CCBC"),
    (r"(g|vt)\d", "G and VT", "L-DB2E81BA", "L-3819A6DF"),
    (r"([acdhmrtz]|i[ms]?)\d|optimal|default", "Standard", "L-1216C47A", "L-34B43A08"),
)


def running(caller: Caller, profile: str) -> list[dict[str, Any]]:
    """Return the newest instances with this profile; EC2 remembers a terminated one for an hour.

    A compute environment names its profile by name or ARN, and the filter takes an ARN, or a
    pattern of one. AWS Batch starts instances from a launch template of its own.
    """
    patterns = [f"arn:*:instance-profile/{profile}", f"arn:*:instance-profile/*/{profile}"]
    wanted = [profile] if profile.startswith("arn:") else patterns
    reservations = caller.ask(
        "instances",
        "ec2",
        "describe_instances",
        items="Reservations",
        Filters=[{"Name": "iam-instance-profile.arn", "Values": wanted}],
    )
    found = [
        one
        for reservation in reservations
        for one in reservation["Instances"]
        if name_of(one.get("IamInstanceProfile", {}).get("Arn", "")) == name_of(profile)
    ]
    return sorted(found, key=lambda one: str(one.get("LaunchTime", "")), reverse=True)[:NEWEST]


def of(
    machines: Sequence[dict[str, Any]], environment: str, connected: dict[str, bool] | None
) -> list[dict[str, Any]]:
    """Return the machines of one compute environment: several may share an instance profile.

    Auto Scaling's tag names the group, whose name has the environment's in it; without the tag, an
    instance belongs to the environment whose cluster it has joined.
    """
    found = []
    for one in machines:
        tags = {tag["Key"]: tag["Value"] for tag in one.get("Tags", ())}
        group = tags.get("aws:autoscaling:groupName")
        if environment in group if group else one["InstanceId"] in (connected or {}):
            found.append(one)
    return found


def agents(caller: Caller, cluster: str) -> dict[str, bool]:
    """Return {instance id: whether its agent is connected}; raises Absent without the cluster."""
    arns = caller.ask(
        "container instances",
        "ecs",
        "list_container_instances",
        items="containerInstanceArns",
        cluster=cluster,
    )
    if not arns:
        return {}
    found = caller.ask(
        "container instances",
        "ecs",
        "describe_container_instances",
        cluster=cluster,
        containerInstances=arns[:100],
    )["containerInstances"]
    return {one.get("ec2InstanceId", ""): one.get("agentConnected", False) for one in found}


def instance(
    raw: dict[str, Any], connected: dict[str, bool] | None, console: tuple[str, ...] | None
) -> facts.Instance:
    """Describe one instance; `connected` is None where ECS could not be asked."""
    launched = raw.get("LaunchTime")
    reason = raw.get("StateReason", {})
    return facts.Instance(
        id=raw["InstanceId"],
        state=raw["State"]["Name"],
        reason=f"{reason.get('Code', '')}: {reason.get('Message', '')}" if reason else "",
        launched=launched.isoformat(timespec="seconds") if launched else "",
        agent=True if connected is None else connected.get(raw["InstanceId"]),
        agent_seen=connected is not None,
        console=console,
    )


def console(caller: Caller, instance_id: str) -> tuple[str, ...]:
    """Return the lines of `registry_login` in the instance's console output, the newest last."""
    client = caller.client("ec2")
    text = caller.run(
        "console output", "ec2:GetConsoleOutput", lambda: console_output(client, instance_id)
    )
    return console_lines.lines(text)


def launch_failures(caller: Caller, environments: Sequence[str], now: datetime) -> list[str]:
    """Return why Auto Scaling failed to start instances of these compute environments lately."""
    activities = caller.ask(
        "launches", "autoscaling", "describe_scaling_activities", MaxRecords=100
    )["Activities"]
    return list(
        dict.fromkeys(
            " ".join(str(one.get("StatusMessage", "")).split())[:500]
            for one in activities
            if one.get("StatusCode") == "Failed"
            and any(name in one.get("AutoScalingGroupName", "") for name in environments)
            and (now - one["StartTime"]).total_seconds() < RECENT_SECONDS
        )
    )


def quota(caller: Caller, instance_types: Sequence[str], *, spot: bool) -> facts.Quota | None:
    """Return the account's limit for the first of these instance types, None for rare ones."""
    for pattern, kind, on_demand, of_spot in QUOTAS:
        if instance_types and re.match(pattern, instance_types[0]):
            code = of_spot if spot else on_demand
            name = (
                f"All {kind} Spot Instance Requests"
                if spot
                else f"Running On-Demand {kind} instances"
            )
            try:
                found = caller.ask(
                    "vCPU quota",
                    "service-quotas",
                    "get_service_quota",
                    ServiceCode="ec2",
                    QuotaCode=code,
                )["Quota"]
            except (Absent, Unseen):
                return None
            return facts.Quota(code=code, name=name, value=float(found["Value"]))
    return None
