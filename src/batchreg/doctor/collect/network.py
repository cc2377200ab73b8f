"""What packets of the instances pass: subnets, routes, gateways, endpoints, ACLs and groups."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from batchreg.aws import url_suffix
from batchreg.doctor.collect.calls import Absent, Caller, Unseen, start
from batchreg.doctor.destinations import ALWAYS, OF_ECR, service_host, split_port
from batchreg.doctor.filters import block, covers
from batchreg.doctor.topology import (
    AclRule,
    Endpoint,
    GroupRule,
    Host,
    NatGateway,
    PrefixList,
    Route,
    Subnet,
)
from batchreg.registry.names import host_of
from batchreg.registry_login import HUB

Raw = dict[str, Any]

# com.amazonaws.eu-central-1.ecr.api; in China, cn.com.amazonaws. ...
_SERVICE = re.compile(r"(?:cn\.)?com\.amazonaws\.[a-z0-9-]+\.(.+)")
_ON_HUB = "registry-1.docker.io"


def look(
    caller: Caller, ids: Sequence[str], group_ids: Sequence[str], hosts: Future[list[Host]]
) -> dict[str, Any]:
    """Return the facts about the network, by their names in Facts; what failed is not among them.

    Two round trips: the subnets lead to their VPCs, and what is in those is asked for at once.
    """
    groups = _begin(caller, _named, "security groups", "SecurityGroups", group_ids)
    raw = _begin(caller, _named, "subnets", "Subnets", ids).result()
    seen: dict[str, Any] = {}
    if raw is not None:
        found = {one["SubnetId"]: one for one in raw}
        vpcs = sorted({one["VpcId"] for one in raw})
        seen = _in_vpcs(caller, [(name, found.get(name)) for name in ids], vpcs, hosts)
    if (mine := groups.result()) is not None:
        # A security group belongs to this account, a subnet possibly to the one that shares it.
        owners = {one.get("OwnerId") for one in mine}
        shared = {one["SubnetId"] for one in raw or () if {one.get("OwnerId")} != owners}
        if owners and "subnets" in seen:
            seen["subnets"] = tuple(
                replace(one, shared=one.id in shared) for one in seen["subnets"]
            )
        known = [one["GroupId"] for one in mine]
        seen["egress"] = _rules(mine, "IpPermissionsEgress")
        seen["groups"] = tuple(name for name in group_ids if name in known)
        seen["groups_missing"] = tuple(name for name in group_ids if name not in known)
    return {name: value for name, value in seen.items() if value is not None}


def _in_vpcs(
    caller: Caller,
    subnets: list[tuple[str, Raw | None]],
    vpcs: Sequence[str],
    hosts: Future[list[Host]],
) -> dict[str, Any]:
    """Look at everything in the VPCs at once, and keep what packets from the subnets may meet."""

    def begin(what: str, items: str) -> Future[list[Raw] | None]:
        filters = [{"Name": "vpc-id", "Values": list(vpcs)}]
        return _begin(caller, _all, what, items, Filters=filters)

    tables, lists = begin("route tables", "RouteTables"), begin("network ACLs", "NetworkAcls")
    endpoints = begin("VPC endpoints", "VpcEndpoints")
    nats = begin("NAT gateways", "NatGateways")
    gateways = _begin(caller, _all, "internet gateways", "InternetGateways")
    others, groups = begin("subnets", "Subnets"), begin("security groups", "SecurityGroups")
    prefixes = _begin(caller, _all, "prefix lists", "PrefixLists")
    dns = _begin(caller, _attribute, vpcs, "enableDnsSupport")
    names = _begin(caller, _attribute, vpcs, "enableDnsHostnames")
    servers = _begin(caller, resolvers, vpcs)
    of_endpoints = _map(_endpoint, _inside(endpoints, vpcs))
    of_nats = _map(_nat_gateway, _inside(nats, vpcs))
    known = hosts.result()
    around = [one for one in others.result() or () if one.get("VpcId") in vpcs]
    met = {name for one in of_endpoints or () for name in one.subnets}
    met |= {one.subnet for one in of_nats or ()}
    passed = [one for one in around if one["SubnetId"] in met or _holds(one, known)]
    in_use = {name for one in of_endpoints or () for name in one.groups}
    admitting = _inside(groups, vpcs)
    if admitting is not None:
        admitting = [one for one in admitting if one["GroupId"] in in_use]
    shown = gateways.result()
    args = (_inside(tables, vpcs), _inside(lists, vpcs))
    return {
        "subnets": tuple(subnet(name, raw, *args) for name, raw in subnets),
        "passed_subnets": tuple(subnet(one["SubnetId"], one, *args) for one in passed),
        "endpoints": of_endpoints,
        "nat_gateways": of_nats,
        "detached_gateways": None
        if shown is None
        else tuple(one["InternetGatewayId"] for one in shown if not _attached(one, vpcs)),
        "prefix_lists": _map(_prefix_list, prefixes.result()),
        "ingress": None if admitting is None else _rules(admitting, "IpPermissions"),
        "hosts": tuple(known),
        "dns": dns.result(),
        "dns_hostnames": names.result(),
        **(servers.result() or {}),
    }


def resolve(caller: Caller, region: str, registries: Iterable[str]) -> list[Host]:
    """Return what this machine resolves the names of AWS's services and of the registries to."""
    suffix = url_suffix(region)
    names = {
        service: service_host(service, region, suffix)
        for service in (*ALWAYS, "secretsmanager", *OF_ECR)
    }
    names |= {host: _ON_HUB if host == host_of(HUB) else split_port(host)[0] for host in registries}
    until = time.monotonic() + caller.left / 2  # a name server that hangs leaves time for EC2
    asked = {name: start(_addresses, host) for name, host in names.items()}
    found = []
    for name, answer in asked.items():
        try:
            found.append(
                Host(name=name, addresses=answer.result(timeout=max(0.0, until - time.monotonic())))
            )
        except (OSError, UnicodeError):  # a TimeoutError is an OSError
            continue
    return found


def subnet(name: str, raw: Raw | None, tables: list[Raw] | None, lists: list[Raw] | None) -> Subnet:
    """Describe one subnet; without route tables its routes are unknown, and likewise its ACL."""
    if raw is None:
        return Subnet(id=name, exists=False)
    more: Raw = {}
    if tables is not None:
        table = _serving(raw, tables, "Main")
        more["table"] = table.get("RouteTableId", "")
        more["routes"] = tuple(_routes(table))
    entry = _serving(raw, lists or [], "IsDefault")
    if entry:
        more["acl"] = entry["NetworkAclId"]
        more["acl_rules"] = tuple(map(_acl_rule, entry.get("Entries", [])))
    return Subnet(
        id=name,
        vpc=raw["VpcId"],
        cidr=raw.get("CidrBlock", ""),
        zone=raw.get("AvailabilityZone", ""),
        public=raw.get("MapPublicIpOnLaunch", False),
        ipv6_only=raw.get("Ipv6Native", False),
        free=raw.get("AvailableIpAddressCount", 1),
        **more,
    )


def _begin(
    caller: Caller, function: Callable[..., Any], *arguments: Any, **more: Any
) -> Future[Any]:
    """Begin to look; the result is None where that fails."""

    def found() -> Any:
        try:
            return function(caller, *arguments, **more)
        except (Unseen, Absent):
            return None

    return start(found)


_METHODS = {
    "SecurityGroups": "describe_security_groups",
    "Subnets": "describe_subnets",
    "RouteTables": "describe_route_tables",
    "NetworkAcls": "describe_network_acls",
    "VpcEndpoints": "describe_vpc_endpoints",
    "NatGateways": "describe_nat_gateways",
    "InternetGateways": "describe_internet_gateways",
    "PrefixLists": "describe_prefix_lists",
    "Vpcs": "describe_vpcs",
    "DhcpOptions": "describe_dhcp_options",
}


def _all(caller: Caller, what: str, items: str, **request: Any) -> list[Raw]:
    found: list[Raw] = caller.ask(what, "ec2", _METHODS[items], items=items, **request)
    return found


def _named(caller: Caller, what: str, items: str, ids: Sequence[str]) -> list[Raw] | None:
    """Return what has these ids; by a filter, which ignores those that do not exist."""
    if not ids:
        return None
    by, key = {"Subnets": ("subnet-id", "SubnetId"), "SecurityGroups": ("group-id", "GroupId")}[
        items
    ]
    found = _all(caller, what, items, Filters=[{"Name": by, "Values": list(ids)}])
    return [one for one in found if one[key] in ids]


def _inside(asked: Future[list[Raw] | None], vpcs: Sequence[str]) -> list[Raw] | None:
    found = asked.result()
    return None if found is None else [one for one in found if one.get("VpcId") in vpcs]


def _attribute(caller: Caller, vpcs: Sequence[str], name: str) -> bool:
    """Tell whether an attribute is on in all VPCs."""
    return all(
        caller.ask("VPC's DNS", "ec2", "describe_vpc_attribute", VpcId=vpc, Attribute=name)[
            name[0].upper() + name[1:]
        ]["Value"]
        for vpc in vpcs
    )


def resolvers(caller: Caller, vpcs: Sequence[str]) -> dict[str, Any] | None:
    """Return the VPCs' own name servers, and whether they have any, from their DHCP options.

    A VPC whose set is called "default" has no options at all.
    """
    asked = _begin(caller, _all, "DHCP options", "DhcpOptions")
    found = _all(caller, "VPCs", "Vpcs", Filters=[{"Name": "vpc-id", "Values": list(vpcs)}])
    options = asked.result()
    if options is None:
        return None
    used = {one.get("DhcpOptionsId") for one in found if one["VpcId"] in vpcs}
    servers = {
        one["DhcpOptionsId"]: [
            value["Value"]
            for setting in one.get("DhcpConfigurations", [])
            if setting["Key"] == "domain-name-servers"
            for value in setting["Values"]
        ]
        for one in options
    }
    known = {**servers, "default": []}
    named = [name for each in used for name in known.get(each, [])]
    return {
        "resolvers": tuple(name for name in named if name != "AmazonProvidedDNS"),
        "name_servers": all(known[each] for each in used) if used <= known.keys() else None,
    }


def _addresses(host: str) -> tuple[str, ...]:
    found = socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


def _holds(raw: Raw, hosts: Iterable[Host]) -> bool:
    addresses = {
        block(text) for host in hosts for text in (*host.addresses, split_port(host.name)[0])
    }
    whole = block(raw.get("CidrBlock", ""))
    return any(one is not None and covers(whole, one) for one in addresses)


def _attached(raw: Raw, vpcs: Sequence[str]) -> bool:
    return any(
        one.get("VpcId") in vpcs and one.get("State") in ("available", "attached")
        for one in raw.get("Attachments", [])
    )


def _map(describe: Callable[[Raw], Any], found: list[Raw] | None) -> tuple[Any, ...] | None:
    return None if found is None else tuple(map(describe, found))


def _endpoint(raw: Raw) -> Endpoint:
    name = _SERVICE.fullmatch(raw["ServiceName"])
    # Where this is on, the service's name leads to the endpoint only from outside of the VPC.
    outside = raw.get("DnsOptions", {}).get("PrivateDnsOnlyForInboundResolverEndpoint", False)
    return Endpoint(
        id=raw["VpcEndpointId"],
        service=name[1] if name else raw["ServiceName"],
        kind=raw.get("VpcEndpointType", "Interface"),
        vpc=raw["VpcId"],
        state=str(raw.get("State", "")).lower(),
        private_dns=raw.get("PrivateDnsEnabled", False) and not outside,
        subnets=tuple(raw.get("SubnetIds", ())),
        groups=tuple(one["GroupId"] for one in raw.get("Groups", ())),
    )


def _nat_gateway(raw: Raw) -> NatGateway:
    return NatGateway(
        id=raw["NatGatewayId"],
        subnet=raw.get("SubnetId", ""),
        state=raw.get("State", "available"),
        reason=raw.get("FailureMessage", ""),
        private=raw.get("ConnectivityType") == "private",
    )


def _prefix_list(raw: Raw) -> PrefixList:
    return PrefixList(
        id=raw["PrefixListId"],
        service=raw["PrefixListName"].rsplit(".", 1)[-1],
        cidrs=tuple(raw.get("Cidrs", ())),
    )


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


def _routes(table: Raw) -> Iterable[Route]:
    """Yield the routes for IPv4; the target is the one key of a route that names a thing."""
    for raw in table.get("Routes", []):
        destination = raw.get("DestinationCidrBlock") or raw.get("DestinationPrefixListId")
        if destination:
            named = [raw[key] for key in raw if key.endswith("Id") and key not in _NOT_TARGETS]
            target = raw.get("CoreNetworkArn") or raw.get("OdbNetworkArn")
            yield Route(
                destination=destination,
                target=str(next(iter(named), target or "an unknown target")),
                works=raw.get("State") != "blackhole",
            )


# A route to a network interface names its instance and its owner as well.
_NOT_TARGETS = ("DestinationPrefixListId", "InstanceOwnerId")


def _acl_rule(entry: Raw) -> AclRule:
    return AclRule(
        number=entry["RuleNumber"],
        egress=entry["Egress"],
        allows=entry["RuleAction"] == "allow",
        protocol=str(entry["Protocol"]),
        **_ports(entry.get("PortRange", {}), "From", "To"),
        target=entry.get("CidrBlock") or entry.get("Ipv6CidrBlock", ""),
    )


def _rules(groups: Iterable[Raw], permissions: str) -> tuple[GroupRule, ...]:
    """Return the rules of the security groups, one for each target."""
    return tuple(
        GroupRule(
            group=raw["GroupId"],
            protocol=str(rule["IpProtocol"]),
            **_ports(rule, "FromPort", "ToPort"),
            target=target,
        )
        for raw in sorted(groups, key=lambda one: str(one["GroupId"]))
        for rule in raw.get(permissions, [])
        for target in _targets(rule)
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
