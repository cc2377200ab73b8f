"""The subnets and security groups that a stack can use, over an injected EC2 client."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from batchreg.errors import BatchregError


@dataclass(frozen=True)
class Vpc:
    id: str
    name: str
    cidr: str
    default: bool


@dataclass(frozen=True)
class Subnet:
    """A subnet. `internet` says how it reaches the internet, or that it does not."""

    id: str
    vpc_id: str
    name: str
    zone: str
    cidr: str
    internet: str


@dataclass(frozen=True)
class SecurityGroup:
    id: str
    name: str
    description: str


def default_vpc(ec2: Any) -> str:
    """Return the id of the region's default VPC; BatchregError if it has none."""
    found = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    if not found:
        raise BatchregError(
            "This region has no default VPC.", "Give --subnet-id and --security-group-id."
        )
    return str(found[0]["VpcId"])


def vpcs(ec2: Any) -> list[Vpc]:
    """Return the region's VPCs, the default one first."""
    found = [
        Vpc(raw["VpcId"], _name(raw), raw.get("CidrBlock", ""), raw.get("IsDefault", False))
        for raw in _all(ec2, "describe_vpcs", "Vpcs", [])
    ]
    return sorted(found, key=lambda vpc: (not vpc.default, vpc.name, vpc.id))


def subnets(ec2: Any, vpc_id: str | None = None) -> list[Subnet]:
    """Return the region's subnets, or one VPC's, by VPC and zone."""
    filters = [{"Name": "vpc-id", "Values": [vpc_id]}] if vpc_id else []
    tables = _all(ec2, "describe_route_tables", "RouteTables", filters)
    found = [
        Subnet(
            id=raw["SubnetId"],
            vpc_id=raw["VpcId"],
            zone=raw.get("AvailabilityZone", ""),
            name=_name(raw),
            cidr=raw.get("CidrBlock", ""),
            internet=route_to_internet(raw, tables),
        )
        for raw in _all(ec2, "describe_subnets", "Subnets", filters)
    ]
    return sorted(found, key=lambda subnet: (subnet.vpc_id, subnet.zone, subnet.cidr))


def security_groups(ec2: Any, vpc_id: str) -> list[SecurityGroup]:
    """Return a VPC's security groups, its default one first."""
    raw = _all(
        ec2, "describe_security_groups", "SecurityGroups", [{"Name": "vpc-id", "Values": [vpc_id]}]
    )
    groups = [
        SecurityGroup(group["GroupId"], group["GroupName"], group.get("Description", ""))
        for group in raw
    ]
    return sorted(groups, key=lambda group: (group.name != "default", group.name))


def route_to_internet(subnet: dict[str, Any], tables: list[dict[str, Any]]) -> str:
    """Follow the subnet's default route, in its own table or else the VPC's main one."""

    def serves(table: dict[str, Any], own: bool) -> bool:
        return (
            any(
                link.get("SubnetId") == subnet["SubnetId"] if own else link.get("Main")
                for link in table.get("Associations", [])
            )
            and table["VpcId"] == subnet["VpcId"]
        )

    table = next((table for own in (True, False) for table in tables if serves(table, own)), {})
    for route in table.get("Routes", []):
        if route.get("DestinationCidrBlock") != "0.0.0.0/0" or route.get("State") == "blackhole":
            continue
        if str(route.get("GatewayId", "")).startswith("igw-"):
            # Batch's instances get a public address from the subnet, or none at all.
            return "yes" if subnet.get("MapPublicIpOnLaunch") else "no public IP"
        return "by NAT" if route.get("NatGatewayId") else "by a gateway"
    return "no"


# What `route_to_internet` says of a subnet whose instances reach nothing outside of the VPC.
CLOSED = ("no", "no public IP")


def why_closed(subnet_id: str, route: str) -> str:
    """Say in a sentence why nothing leaves a subnet, for one of CLOSED."""
    if route == "no":
        return f"Subnet {subnet_id} has no route out of its VPC."
    return (
        f"Subnet {subnet_id} routes to an internet gateway, but its instances get no public "
        "address."
    )


CLOSED_MEANS = "Instances there can reach neither AWS nor a registry on the internet."


def has_endpoints(ec2: Any, vpc_ids: Sequence[str]) -> bool:
    """Tell whether instances join through VPC endpoints; the registry may be inside the VPC."""
    filters = [{"Name": "vpc-id", "Values": list(vpc_ids)}]
    services = {
        one["ServiceName"].rsplit(".", 1)[-1]
        for one in ec2.describe_vpc_endpoints(Filters=filters)["VpcEndpoints"]
    }
    return services >= {"ecs", "ecs-agent", "secretsmanager"}


def _name(raw: dict[str, Any]) -> str:
    return next((tag["Value"] for tag in raw.get("Tags", []) if tag["Key"] == "Name"), "")


def _all(ec2: Any, operation: str, key: str, filters: list[dict[str, Any]]) -> list[dict[str, Any]]:
    pages = ec2.get_paginator(operation).paginate(Filters=filters)
    return [item for page in pages for item in page[key]]
