"""Subnets, routes, network ACLs, security groups and VPC endpoints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from batchreg.doctor import facts
from batchreg.doctor.collect.calls import Caller

Raw = dict[str, Any]


def subnets(caller: Caller, ids: Sequence[str]) -> dict[str, Raw]:
    """Return {id: subnet as EC2 describes it}; by a filter, which ignores one that does not exist."""
    found = caller.ask(
        "subnets",
        "ec2",
        "describe_subnets",
        items="Subnets",
        Filters=[{"Name": "subnet-id", "Values": list(ids)}],
    )
    return {one["SubnetId"]: one for one in found if one["SubnetId"] in ids}


def route_tables(caller: Caller, vpcs: Sequence[str]) -> list[Raw]:
    return _of(caller, vpcs, "route tables", "describe_route_tables", "RouteTables")


def acls(caller: Caller, vpcs: Sequence[str]) -> list[Raw]:
    return _of(caller, vpcs, "network ACLs", "describe_network_acls", "NetworkAcls")


def endpoints(caller: Caller, vpcs: Sequence[str]) -> list[facts.Endpoint]:
    """Return the VPC's endpoints to services of AWS."""
    return [
        facts.Endpoint(
            # com.amazonaws.eu-central-1.ecs-agent; in China, cn.com.amazonaws. ...
            service=one["ServiceName"].rsplit(".", 1)[-1],
            vpc=one["VpcId"],
            state=str(one.get("State", "")).lower(),
            private_dns=one.get("PrivateDnsEnabled", True),
        )
        for one in _of(caller, vpcs, "VPC endpoints", "describe_vpc_endpoints", "VpcEndpoints")
    ]


def dns(caller: Caller, vpcs: Sequence[str]) -> bool:
    """Tell whether instances in the VPCs can resolve names."""
    return all(
        caller.ask(
            "VPC's DNS", "ec2", "describe_vpc_attribute", VpcId=vpc, Attribute="enableDnsSupport"
        )["EnableDnsSupport"]["Value"]
        for vpc in vpcs
    )


def groups(caller: Caller, ids: Sequence[str]) -> dict[str, Raw]:
    """Return {id: security group as EC2 describes it}."""
    found = caller.ask(
        "security groups",
        "ec2",
        "describe_security_groups",
        items="SecurityGroups",
        Filters=[{"Name": "group-id", "Values": list(ids)}],
    )
    return {one["GroupId"]: one for one in found if one["GroupId"] in ids}


def egress(found: dict[str, Raw]) -> tuple[facts.Egress, ...]:
    """Return the outbound rules of the security groups, one for each target."""
    return tuple(
        facts.Egress(
            group=group,
            protocol=str(rule["IpProtocol"]),
            **_ports(rule, "FromPort", "ToPort"),
            target=target,
        )
        for group, raw in sorted(found.items())
        for rule in raw.get("IpPermissionsEgress", [])
        for target in _targets(rule)
    )


def subnet(
    name: str, raw: Raw | None, tables: list[Raw] | None, lists: list[Raw] | None
) -> facts.Subnet:
    """Describe one subnet; its route is unknown without route tables."""
    if raw is None:
        return facts.Subnet(id=name, exists=False)
    more: Raw = {}
    if tables is None:
        more["route"] = "unknown"
    else:
        route = _default_route(raw, tables)
        if route:
            targets = (str(route[key]) for key in route if key.endswith("Id"))
            more["route"] = next(targets, "a route")
            more["route_works"] = route.get("State") != "blackhole"
    entry = _serving(raw, lists or [], "IsDefault")
    if entry:
        more["acl"] = entry["NetworkAclId"]
        more["acl_rules"] = tuple(map(_acl_rule, entry.get("Entries", [])))
    return facts.Subnet(
        id=name,
        vpc=raw["VpcId"],
        public=raw.get("MapPublicIpOnLaunch", False),
        free=raw.get("AvailableIpAddressCount", 1),
        **more,
    )


def _of(caller: Caller, vpcs: Sequence[str], what: str, method: str, items: str) -> list[Raw]:
    found: list[Raw] = caller.ask(
        what, "ec2", method, items=items, Filters=[{"Name": "vpc-id", "Values": list(vpcs)}]
    )
    return [one for one in found if one.get("VpcId") in vpcs]


def _serving(raw: Raw, candidates: Iterable[Raw], default: str) -> Raw:
    """Return what is associated with the subnet, or else its VPC's default."""
    own = [one for one in candidates if one["VpcId"] == raw["VpcId"]]
    for one in own:
        if any(link.get("SubnetId") == raw["SubnetId"] for link in one.get("Associations", [])):
            return one
    return next(
        (
            one
            for one in own
            if one.get(default) or any(link.get(default) for link in one.get("Associations", []))
        ),
        {},
    )


def _default_route(raw: Raw, tables: list[Raw]) -> Raw:
    routes: list[Raw] = _serving(raw, tables, "Main").get("Routes", [])
    return next((route for route in routes if route.get("DestinationCidrBlock") == "0.0.0.0/0"), {})


def _acl_rule(entry: Raw) -> facts.AclRule:
    return facts.AclRule(
        number=entry["RuleNumber"],
        egress=entry["Egress"],
        allows=entry["RuleAction"] == "allow",
        protocol=str(entry["Protocol"]),
        **_ports(entry.get("PortRange", {}), "From", "To"),
        target=entry.get("CidrBlock") or entry.get("Ipv6CidrBlock", ""),
    )


def _ports(record: Raw, first: str, last: str) -> dict[str, int]:
    """Return the range of ports; none, or -1, means all of them."""
    if record.get(first, -1) == -1:
        return {}
    return {"first": record[first], "last": record[last]}


def _targets(rule: Raw) -> list[str]:
    return [
        *(one["CidrIp"] for one in rule.get("IpRanges", [])),
        *(one["CidrIpv6"] for one in rule.get("Ipv6Ranges", [])),
        *(one["PrefixListId"] for one in rule.get("PrefixListIds", [])),
        *(one.get("GroupId", "") for one in rule.get("UserIdGroupPairs", [])),
    ]
