"""The instances: whether they start, join the cluster and get credentials; and the quota."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from batchreg.doctor import facts
from batchreg.doctor.collect.calls import Absent, Caller, Unseen, name_of, start
from batchreg.stack import console_lines
from batchreg.stack.instances import console_output

NEWEST = 20
CONSOLES = 3
RECENT_SECONDS = 3600
LOG_DRIVER = "com.amazonaws.ecs.capability.logging-driver."

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


@dataclass(frozen=True, kw_only=True)
class Agent:
    """A container instance as ECS knows it. `memory`: for all jobs together, in MiB.

    `awslogs`: its agent offers that log driver, None where it does not tell.
    """

    connected: bool
    status: str = "ACTIVE"
    memory: int = 0
    awslogs: bool | None = None


Agents = Mapping[str, Agent]  # by instance


def of(
    machines: Sequence[dict[str, Any]], environment: str, agents: Agents | None
) -> list[dict[str, Any]]:
    """Return the machines of one compute environment: several may share an instance profile.

    Auto Scaling's tag names the group, whose name has the environment's in it; without the tag, an
    instance belongs to the environment whose cluster it has joined.
    """
    found = []
    for one in machines:
        tags = {tag["Key"]: tag["Value"] for tag in one.get("Tags", ())}
        group = tags.get("aws:autoscaling:groupName")
        if environment in group if group else one["InstanceId"] in (agents or {}):
            found.append(one)
    return found


def agents(caller: Caller, cluster: str) -> dict[str, Agent]:
    """Return the agents of a cluster by instance; raises Absent without the cluster."""
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
    return {one.get("ec2InstanceId", ""): _agent(one) for one in found}


def _agent(raw: Mapping[str, Any]) -> Agent:
    has = {one["name"]: one for one in raw.get("registeredResources", ())}
    names = {one["name"] for one in raw.get("attributes", ())}
    drivers = {name for name in names if name.startswith(LOG_DRIVER)}
    return Agent(
        connected=raw.get("agentConnected", False),
        status=raw.get("status", "ACTIVE"),
        memory=has.get("MEMORY", {}).get("integerValue", 0),
        awslogs=f"{LOG_DRIVER}awslogs" in drivers if drivers else None,
    )


def instance(
    raw: dict[str, Any], agents: Agents | None, console: tuple[str, ...] | None
) -> facts.Instance:
    """Describe one instance; `agents` is None where ECS could not be asked."""
    launched = raw.get("LaunchTime")
    reason = raw.get("StateReason", {})
    agent = (agents or {}).get(raw["InstanceId"])
    return facts.Instance(
        id=raw["InstanceId"],
        type=raw.get("InstanceType", ""),
        state=raw["State"]["Name"],
        reason=f"{reason.get('Code', '')}: {reason.get('Message', '')}" if reason else "",
        launched=launched.isoformat(timespec="seconds") if launched else "",
        agent=True if agents is None else agent.connected if agent else None,
        agent_seen=agents is not None,
        status=agent.status if agent else "",
        memory=agent.memory if agent else 0,
        awslogs=agent.awslogs if agent else None,
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


def spot_failures(caller: Caller, resources: Mapping[str, Any], now: datetime) -> list[str]:
    """Return what the environment's requests for a Spot Fleet have reported lately.

    EC2 does not say for whom a request is. One of this environment has its role and none but its
    subnets. Source: docs.aws.amazon.com/AWSEC2/latest/APIReference/API_EventInformation.html
    """
    requests = caller.ask(
        "Spot Fleet requests",
        "ec2",
        "describe_spot_fleet_requests",
        items="SpotFleetRequestConfigs",
    )
    mine = [
        one["SpotFleetRequestId"]
        for one in requests
        if one.get("SpotFleetRequestState") in ("submitted", "active", "modifying")
        and _is_of(one.get("SpotFleetRequestConfig", {}), resources)
    ]
    asked = [
        start(
            caller.ask,
            "Spot Fleet's history",
            "ec2",
            "describe_spot_fleet_request_history",
            SpotFleetRequestId=request,
            StartTime=now - timedelta(seconds=RECENT_SECONDS),
        )
        for request in mine[:NEWEST]
    ]
    records = [record for one in asked for record in one.result().get("HistoryRecords", ())]
    return list(
        dict.fromkeys(
            f"{one.get('EventSubType', '')}: {' '.join(one.get('EventDescription', '').split())}"[
                :500
            ]
            for record in records
            if (one := record.get("EventInformation", {}))
            and (record["EventType"] == "error" or one.get("EventSubType") == "launchSpecUnusable")
        )
    )


def _is_of(config: Mapping[str, Any], resources: Mapping[str, Any]) -> bool:
    specifications = config.get("LaunchSpecifications", ())
    overrides = [
        each for one in config.get("LaunchTemplateConfigs", ()) for each in one.get("Overrides", ())
    ]
    subnets = {
        name.strip()
        for one in (*specifications, *overrides)
        for name in one.get("SubnetId", "").split(",")
    }
    profiles = {
        name_of(one["IamInstanceProfile"].get("Arn") or one["IamInstanceProfile"].get("Name", ""))
        for one in specifications
        if one.get("IamInstanceProfile")
    }
    return (
        config.get("IamFleetRole") == resources.get("spotIamFleetRole")
        and subnets <= {*resources.get("subnets", ()), ""}
        and profiles <= {name_of(resources.get("instanceRole", ""))}
    )


def quota(caller: Caller, instance_types: Sequence[str], *, spot: bool) -> facts.Quota | None:
    """Return the account's limit for these instance types, None for rare ones and for a mixture."""
    for pattern, kind, on_demand, of_spot in QUOTAS:
        if instance_types and all(re.match(pattern, name) for name in instance_types):
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
