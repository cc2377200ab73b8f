"""Networks for the simulator and for doctor, each made of choices, and an EC2 that describes them.

A network is a choice for each of the QUESTIONS; the first answer to each is the healthy one.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache
from typing import Any

from packets import Goal, World
from stubs import client

from batchreg.doctor.collect import network
from batchreg.doctor.collect.calls import Caller
from batchreg.doctor.facts import Facts, LaunchTemplate, Secret
from batchreg.doctor.topology import Host
from batchreg.registry_login import HUB

Raw = dict[str, Any]
SERVICES = ("ecs", "ecs-agent", "ecs-telemetry", "secretsmanager", "logs")
ECR = ("ecr.api", "ecr.dkr")
S3 = ["3.5.134.0/23", "52.219.0.0/20"]
CIDRS = {"a": "10.0.1.0/24", "n": "10.0.9.0/24", "e": "10.0.8.0/24", "r": "10.0.5.0/24"}
IN_ECR = "111122223333.dkr.ecr.eu-central-1.amazonaws.com"
ELSEWHERE = "111122223333.dkr.ecr.us-east-1.amazonaws.com"
PUBLIC = {
    "ecs": ["52.94.140.10"],
    "ecs-agent": ["52.94.140.20", "52.94.140.21"],
    "ecs-telemetry": ["52.94.140.30"],
    "secretsmanager": ["35.71.100.10"],
    "logs": ["52.94.136.40"],
    "ecr.api": ["52.94.137.50"],
    "ghcr.io": ["140.82.121.33", "140.82.121.34"],
    "Docker Hub": ["98.85.1.1"],
    ELSEWHERE: ["44.200.1.1"],
    "registry.corp.example": ["198.41.7.7"],
    "harbor.corp.example:8443": ["10.0.5.5"],
}
REGISTRIES = {
    "ghcr.io": Goal("ghcr.io"),
    "docker.io": Goal("Docker Hub"),
    "10.0.5.5:5000": Goal("10.0.5.5:5000", 5000),
    "10.0.1.77:5000": Goal("10.0.1.77:5000", 5000),
    "172.20.1.5:5000": Goal("172.20.1.5:5000", 5000),
    "203.0.114.9:5000": Goal("203.0.114.9:5000", 5000),
    "registry.corp.example": Goal("registry.corp.example", public=False),
    "harbor.corp.example:8443": Goal("harbor.corp.example:8443", 8443, public=False),
    "hidden.corp.example:5050": Goal("hidden.corp.example:5050", 5050, public=False),
    ELSEWHERE: Goal(ELSEWHERE),
    IN_ECR: Goal(IN_ECR),
}


def to(destination: str, **target: str) -> Raw:
    return {"DestinationCidrBlock": destination, "State": "active", **target}


LOCAL = to("10.0.0.0/16", GatewayId="local")
ALL = "0.0.0.0/0"


def allow(number: int, **more: Any) -> Raw:
    return {"RuleNumber": number, "RuleAction": "allow", "Protocol": "-1", "CidrBlock": ALL, **more}


def deny(number: int, **more: Any) -> Raw:
    return {**allow(number, **more), "RuleAction": "deny"}


def tcp(first: int, last: int, cidr: str = ALL) -> Raw:
    return {"Protocol": "6", "PortRange": {"From": first, "To": last}, "CidrBlock": cidr}


OPEN = [allow(100)]
CLOSED: list[Raw] = []
# (outbound rules, inbound rules), besides the one that denies the rest
ACLS: dict[str, tuple[list[Raw], list[Raw]]] = {
    "open": (OPEN, OPEN),
    "nothing": (CLOSED, CLOSED),
    "no HTTPS out": ([deny(90, **tcp(443, 443)), *OPEN], OPEN),
    "HTTPS out denied after it was allowed": ([*OPEN, deny(200, **tcp(443, 443))], OPEN),
    "HTTPS out alone": ([allow(100, **tcp(443, 443))], OPEN),
    "web out, Linux's ports in": ([allow(100, **tcp(80, 443))], [allow(100, **tcp(32768, 65535))]),
    "as AWS recommends": (
        [
            allow(100, **tcp(443, 443)),
            allow(110, **tcp(1024, 65535)),
            allow(120, **tcp(5000, 5050)),
        ],
        [allow(100, **tcp(1024, 65535)), allow(110, **tcp(443, 443, "10.0.0.0/16"))],
    ),
    "low ports in": (OPEN, [allow(100, **tcp(1024, 32767))]),
    "nothing in": (OPEN, CLOSED),
    "a gap in the ephemeral ports": (OPEN, [deny(90, **tcp(40000, 40000)), *OPEN]),
    "a gap below Linux's ports": (OPEN, [deny(90, **tcp(3389, 3389)), *OPEN]),
    "a gap above Linux's ports": (OPEN, [deny(90, **tcp(61000, 65535)), *OPEN]),
    "a gap that is allowed before": (OPEN, [allow(80), deny(90, **tcp(40000, 50000))]),
    "ranges side by side": (
        OPEN,
        [allow(90, **tcp(1024, 40000)), allow(95, **tcp(40001, 65535)), deny(99)],
    ),
    "ranges with a hole": (OPEN, [allow(90, **tcp(1024, 40000)), allow(95, **tcp(40002, 65535))]),
    "a range where nothing is": ([deny(90, CidrBlock="203.0.113.0/24"), *OPEN], OPEN),
    "answers from a range where nothing is": (OPEN, [deny(90, CidrBlock="203.0.113.0/24"), *OPEN]),
    "the registry out": ([deny(90, CidrBlock="140.82.112.0/20"), *OPEN], OPEN),
    "the registry's answers": (OPEN, [deny(90, CidrBlock="140.82.112.0/20"), *OPEN]),
    "half of the registry": (OPEN, [deny(90, CidrBlock="140.82.121.34/32"), *OPEN]),
    "S3's answers, some": (OPEN, [deny(90, CidrBlock="3.5.134.0/24"), *OPEN]),
    "the VPC alone": ([allow(100, CidrBlock="10.0.0.0/16")], [allow(100, CidrBlock="10.0.0.0/16")]),
    "the internet alone": (
        [deny(90, CidrBlock="10.0.0.0/16"), *OPEN],
        [deny(90, CidrBlock="10.0.0.0/16"), *OPEN],
    ),
    "half of the instances": (OPEN, [deny(90, CidrBlock="10.0.1.128/25"), *OPEN]),
    "no UDP": ([deny(90, Protocol="17"), *OPEN], [deny(90, Protocol="17"), *OPEN]),
    "UDP alone": ([allow(100, Protocol="17")], OPEN),
    "IPv6 alone": (
        [{"RuleNumber": 100, "RuleAction": "allow", "Protocol": "-1", "Ipv6CidrBlock": "::/0"}],
        OPEN,
    ),
    "no HTTPS in": (OPEN, [deny(90, **tcp(443, 443)), *OPEN]),
    "half of the internet": ([allow(100, CidrBlock="0.0.0.0/1")], OPEN),
}


def group_rule(protocol: str, first: int = 0, last: int = 0, **targets: Any) -> Raw:
    ports = {} if protocol == "-1" else {"FromPort": first, "ToPort": last}
    return {"IpProtocol": protocol, **ports, **targets}


def cidr(text: str) -> Raw:
    return {"IpRanges": [{"CidrIp": text}]}


TO_ENDPOINTS = {"UserIdGroupPairs": [{"GroupId": "sg-9"}]}
TO_S3 = {"PrefixListIds": [{"PrefixListId": "pl-s3"}]}
EGRESS: dict[str, list[Raw]] = {
    "all": [group_rule("-1", **cidr(ALL))],
    "nothing": [],
    "HTTPS": [group_rule("tcp", 443, 443, **cidr(ALL))],
    "HTTP": [group_rule("tcp", 80, 80, **cidr(ALL))],
    "a range around HTTPS": [group_rule("tcp", 400, 9000, **cidr(ALL))],
    "HTTPS by UDP": [group_rule("udp", 443, 443, **cidr(ALL))],
    "IPv6": [group_rule("-1", Ipv6Ranges=[{"CidrIpv6": "::/0"}])],
    "private addresses": [group_rule("-1", **cidr("10.0.0.0/8"))],
    "HTTPS, and the registry's port inside": [
        group_rule("tcp", 443, 443, **cidr(ALL)),
        group_rule("tcp", 5000, 5050, **cidr("10.0.0.0/8")),
    ],
    "HTTPS, and the registry's port to it": [
        group_rule("tcp", 443, 443, **cidr(ALL)),
        group_rule("tcp", 5000, 5000, **cidr("10.0.5.5/32")),
    ],
    "the endpoints": [group_rule("tcp", 443, 443, **TO_ENDPOINTS)],
    "the endpoints and S3": [
        group_rule("tcp", 443, 443, **TO_ENDPOINTS),
        group_rule("tcp", 443, 443, **TO_S3),
    ],
    "a list of one's own": [
        group_rule("tcp", 443, 443, PrefixListIds=[{"PrefixListId": "pl-own"}])
    ],
    "another group": [group_rule("-1", UserIdGroupPairs=[{"GroupId": "sg-5"}])],
    "half of the internet": [group_rule("-1", **cidr("0.0.0.0/1"))],
    "the registry": [group_rule("tcp", 443, 443, **cidr("140.82.112.0/20"))],
}
FROM_INSTANCES = {"UserIdGroupPairs": [{"GroupId": "sg-1"}]}
INGRESS: dict[str, list[Raw]] = {
    "VPC": [group_rule("tcp", 443, 443, **cidr("10.0.0.0/16"))],
    "instances": [group_rule("tcp", 443, 443, **FROM_INSTANCES)],
    "nothing": [],
    "another group": [group_rule("-1", UserIdGroupPairs=[{"GroupId": "sg-5"}])],
    "another port": [group_rule("tcp", 80, 80, **cidr("10.0.0.0/16"))],
    "another subnet": [group_rule("tcp", 443, 443, **cidr("10.0.2.0/24"))],
    "half of the instances": [group_rule("tcp", 443, 443, **cidr("10.0.1.0/25"))],
    "both halves": [
        group_rule("tcp", 443, 443, **cidr("10.0.1.0/25")),
        group_rule("-1", **cidr("10.0.1.128/25")),
    ],
    "a list of one's own": [
        group_rule("tcp", 443, 443, PrefixListIds=[{"PrefixListId": "pl-own"}])
    ],
    "IPv6": [group_rule("-1", Ipv6Ranges=[{"CidrIpv6": "::/0"}])],
}
IGW, BY_NAT = to(ALL, GatewayId="igw-1"), to(ALL, NatGatewayId="nat-1")
GONE = {"State": "blackhole"}
# Routes of the instances' subnet besides the local one
WAYS: dict[str, list[Raw]] = {
    "NAT": [BY_NAT],
    "internet gateway": [IGW],
    "none": [],
    "NAT gone": [{**BY_NAT, **GONE}],
    "internet gateway gone": [{**IGW, **GONE}],
    "transit gateway": [to(ALL, TransitGatewayId="tgw-1")],
    "transit gateway to others": [to("10.0.0.0/8", TransitGatewayId="tgw-1")],
    "NAT, transit gateway to others": [BY_NAT, to("172.16.0.0/12", TransitGatewayId="tgw-1")],
    "peering to others": [to("172.20.0.0/16", VpcPeeringConnectionId="pcx-1")],
    "NAT, a hole": [BY_NAT, to("140.82.112.0/20", NetworkInterfaceId="eni-1", **GONE)],
    "NAT, half": [to("128.0.0.0/1", NatGatewayId="nat-1")],
    "NAT in halves": [
        to("128.0.0.0/1", NatGatewayId="nat-1"),
        to("0.0.0.0/1", NatGatewayId="nat-1"),
    ],
    "NAT instance": [to(ALL, NetworkInterfaceId="eni-1", InstanceId="i-1", InstanceOwnerId="1")],
    "NAT, a list of one's own": [
        BY_NAT,
        {"DestinationPrefixListId": "pl-own", "TransitGatewayId": "tgw-1", "State": "active"},
    ],
    "NAT, a list of one's own to it": [
        BY_NAT,
        {"DestinationPrefixListId": "pl-own", "NatGatewayId": "nat-1", "State": "active"},
    ],
    "firewall": [to(ALL, GatewayId="vpce-firewall")],
    "virtual private gateway": [to(ALL, GatewayId="vgw-1")],
    "IPv6": [{"DestinationIpv6CidrBlock": "::/0", "GatewayId": "igw-1", "State": "active"}],
}
NATS: dict[str, Raw] = {
    "available": {},
    "failed": {
        "State": "failed",
        "FailureMessage": "Network vpc-1 has no Internet gateway attached",
    },
    "deleting": {"State": "deleting"},
    "deleted": {"State": "deleted"},
    "pending": {"State": "pending"},
    "private": {"ConnectivityType": "private"},
    "with the instances": {"SubnetId": "subnet-a"},
    "regional": {"SubnetId": None},
    "not described": {"NatGatewayId": "nat-2"},
}
NAT_WAYS: dict[str, list[Raw]] = {
    "internet gateway": [IGW],
    "none": [],
    "itself": [BY_NAT],
    "internet gateway gone": [{**IGW, **GONE}],
    "transit gateway": [to(ALL, TransitGatewayId="tgw-1")],
    "other NAT": [to(ALL, NatGatewayId="nat-3")],
    "half": [to("0.0.0.0/1", GatewayId="igw-1")],
    "internet gateway, private by transit gateway": [
        IGW,
        to("172.16.0.0/12", TransitGatewayId="tgw-1"),
    ],
}
ENDPOINTS: dict[str, Callable[[Raw], Raw | None]] = {
    "none": lambda one: None,
    "all": lambda one: one,
    "with the instances": lambda one: {**one, "SubnetIds": ["subnet-a"]},
    "in two subnets": lambda one: {**one, "SubnetIds": ["subnet-e", "subnet-n"]},
    "without Secrets Manager": lambda one: None if _of(one, "secretsmanager") else one,
    "without ECS": lambda one: None if _of(one, "ecs") else one,
    "Secrets Manager alone": lambda one: one if _of(one, "secretsmanager") else None,
    "without private DNS": lambda one: {**one, "PrivateDnsEnabled": False},
    "ECS without private DNS": lambda one: {**one, "PrivateDnsEnabled": not _of(one, "ecs")},
    "await acceptance": lambda one: {**one, "State": "pendingAcceptance"},
    "failed": lambda one: {**one, "State": "failed"},
    "logs being deleted": lambda one: {**one, "State": "deleting"} if _of(one, "logs") else one,
    "in another VPC": lambda one: {**one, "VpcId": "vpc-2"},
}
S3_ENDPOINTS = ("none", "gateway", "gateway without a route", "interface", "inbound alone")
QUESTIONS: dict[str, list[str]] = {
    "registry": [*REGISTRIES],
    "way": [*WAYS],
    "public": ["no", "yes"],
    "nat": [*NATS],
    "nat way": [*NAT_WAYS],
    "internet gateway": ["attached", "detached"],
    "endpoints": [*ENDPOINTS],
    "ingress": [*INGRESS],
    "s3": [*S3_ENDPOINTS],
    "egress": [*EGRESS],
    "acl": [*ACLS],
    "nat acl": [*ACLS],
    "endpoint acl": [*ACLS],
    "registry acl": [*ACLS],
    "names": ["resolve", "do not resolve"],
    "hostnames": ["on", "off"],
    "resolver": ["Amazon's", "own"],
    "addresses": ["IPv4", "IPv6 alone"],
}
# Where a network has one of these answers, the question beside it matters.
MATTERS = {
    "nat": "NAT",
    "nat way": "NAT",
    "nat acl": "NAT",
    "ingress": "all",
    "endpoint acl": "all",
    "hostnames": "all",
    "resolver": "all",
}

Choice = dict[str, str]


def choices(count: int, seed: int) -> list[Choice]:
    """Return networks: each answer alone first, then by chance, the most near a healthy one."""
    rng = random.Random(seed)
    bases: list[Choice] = [
        {},
        {"way": "internet gateway", "public": "yes"},
        {"way": "none", "endpoints": "all", "s3": "gateway", "registry": IN_ECR},
        {"way": "none", "endpoints": "all", "registry": "10.0.5.5:5000"},
        {"endpoints": "all"},
    ]
    healthy = {question: answers[0] for question, answers in QUESTIONS.items()}
    found = [
        {**healthy, **base, question: answer}
        for base in bases
        for question, answers in QUESTIONS.items()
        for answer in answers
    ]
    while len(found) < count:
        choice = {**healthy, **rng.choice(bases)}
        for question in rng.sample([*QUESTIONS], rng.choice([1, 2, 2, 3, 4, 6])):
            choice[question] = rng.choice(QUESTIONS[question])
        found.append(choice)
    return list({tuple(one.items()): one for one in found}.values())


MATRIX = choices(1000, seed=4711)


def build(choice: Choice) -> World:
    """Return the network of a choice."""
    cells = {"a": choice["acl"], "n": choice["nat acl"]}
    cells |= {"e": choice["endpoint acl"], "r": choice["registry acl"]}
    nat = {
        "NatGatewayId": "nat-1",
        "VpcId": "vpc-1",
        "SubnetId": "subnet-n",
        "State": "available",
        "ConnectivityType": "public",
        **NATS[choice["nat"]],
    }
    if nat["SubnetId"] is None:
        del nat["SubnetId"]
    endpoints = [one for one in map(ENDPOINTS[choice["endpoints"]], _interfaces()) if one]
    ways = WAYS[choice["way"]]
    endpoints, routes = _with_s3(choice["s3"], endpoints)
    attached = choice["internet gateway"] == "attached"
    tables = [_table("main", [], Main=True), _table("a", [*ways, *routes], SubnetId="subnet-a")]
    tables.append(_table("n", NAT_WAYS[choice["nat way"]], SubnetId="subnet-n"))
    names = PUBLIC if choice["names"] == "resolve" else {}
    servers = ["AmazonProvidedDNS"] if choice["resolver"] == "Amazon's" else ["10.0.0.9"]
    values = [{"Value": one} for one in servers]
    return World(
        subnets=["subnet-a"],
        groups=["sg-1"],
        described={
            "Subnets": [
                {
                    "SubnetId": f"subnet-{key}",
                    "VpcId": "vpc-1",
                    "CidrBlock": whole,
                    "MapPublicIpOnLaunch": choice["public"] == "yes",
                    "AvailableIpAddressCount": 250,
                    "Ipv6Native": key == "a" and choice["addresses"] == "IPv6 alone",
                }
                for key, whole in CIDRS.items()
            ],
            "RouteTables": tables,
            "NetworkAcls": [
                {
                    "NetworkAclId": "acl-0",
                    "VpcId": "vpc-1",
                    "IsDefault": True,
                    "Associations": [],
                    "Entries": _entries("open"),
                },
                *(
                    {
                        "NetworkAclId": f"acl-{key}",
                        "VpcId": "vpc-1",
                        "IsDefault": False,
                        "Associations": [{"SubnetId": f"subnet-{key}"}],
                        "Entries": _entries(name),
                    }
                    for key, name in cells.items()
                ),
            ],
            "SecurityGroups": [
                _group("sg-1", [], EGRESS[choice["egress"]]),
                _group("sg-9", INGRESS[choice["ingress"]], []),
                _group("sg-5", [], []),
            ],
            "VpcEndpoints": endpoints,
            "NatGateways": [nat],
            "InternetGateways": [
                {
                    "InternetGatewayId": "igw-1",
                    "Attachments": [{"VpcId": "vpc-1", "State": "available"}] if attached else [],
                }
            ],
            "PrefixLists": [
                {
                    "PrefixListId": "pl-s3",
                    "PrefixListName": "com.amazonaws.eu-central-1.s3",
                    "Cidrs": S3,
                }
            ],
            "Vpcs": [{"VpcId": "vpc-1", "DhcpOptionsId": "dopt-1"}],
            "DhcpOptions": [
                {
                    "DhcpOptionsId": "dopt-1",
                    "DhcpConfigurations": [{"Key": "domain-name-servers", "Values": values}],
                }
            ],
        },
        attributes={"enableDnsSupport": True, "enableDnsHostnames": choice["hostnames"] == "on"},
        names=names,
    )


def goals(choice: Choice) -> list[Goal]:
    """Return what instances have to reach in a network."""
    services = [*SERVICES, *((*ECR, "s3") if choice["registry"] == IN_ECR else ())]
    found = [Goal(name, service=name) for name in services]
    return found + ([] if choice["registry"] == IN_ECR else [REGISTRIES[choice["registry"]]])


@cache
def meta() -> Any:
    return client("ec2").meta


class Ec2:
    """EC2's client as far as doctor uses it, for one network; it can only describe."""

    def __init__(self, world: World) -> None:
        self.world, self.meta = world, meta()
        self.calls: list[str] = []

    def get_paginator(self, method: str) -> Any:
        return type(
            "Pages", (), {"paginate": lambda _, **request: [self.answer(method, request)]}
        )()

    def answer(self, method: str, request: Raw) -> Raw:
        kind = self.meta.method_to_api_mapping[method].removeprefix("Describe")
        self.calls.append(kind)
        found = self.world.described[kind]
        for one in request.get("Filters", []):
            key = {"subnet-id": "SubnetId", "group-id": "GroupId", "vpc-id": "VpcId"}.get(
                one["Name"]
            )
            found = [raw for raw in found if key is None or raw[key] in one["Values"]]
        return {kind: found}

    def describe_vpc_attribute(self, *, VpcId: str, Attribute: str) -> Raw:
        self.calls.append(Attribute)
        name = Attribute[0].upper() + Attribute[1:]
        return {"VpcId": VpcId, name: {"Value": self.world.attributes[Attribute]}}


def seen(choice: Choice, world: World) -> Facts:
    """Collect the facts as doctor does, from what EC2 says about the network."""
    registry = choice["registry"]
    known = [Host(name=name, addresses=tuple(ips)) for name, ips in world.names.items()]
    if re.fullmatch(r"[\d.]+:\d+", registry):
        known.append(Host(name=registry, addresses=(registry.partition(":")[0],)))
    hosts: Future[list[Host]] = Future()
    hosts.set_result(known)
    ec2 = Ec2(world)
    found = network.look(Caller(lambda _: ec2), world.subnets, world.groups, hosts)
    return Facts(
        region="eu-central-1",
        launch_template=LaunchTemplate(id="lt-1"),
        secrets=(
            Secret(
                name="s",
                host=HUB if registry == "docker.io" else registry,
                keys=("username", "password", "registry_url"),
            ),
        ),
        **found,
    )


def label(choice: Choice) -> str:
    return "; ".join(
        f"{key}: {value}" for key, value in choice.items() if value != QUESTIONS[key][0]
    )


def _of(one: Raw, service: str) -> bool:
    return str(one["ServiceName"]).endswith(f".{service}")


def _interfaces() -> list[Raw]:
    return [
        {
            "VpcEndpointId": f"vpce-{service}",
            "VpcEndpointType": "Interface",
            "VpcId": "vpc-1",
            "ServiceName": f"com.amazonaws.eu-central-1.{service}",
            "State": "available",
            "PrivateDnsEnabled": True,
            "SubnetIds": ["subnet-e"],
            "Groups": [{"GroupId": "sg-9"}],
        }
        for service in (*SERVICES, *ECR)
    ]


def _with_s3(choice: str, endpoints: list[Raw]) -> tuple[list[Raw], list[Raw]]:
    s3 = {**_interfaces()[0], "VpcEndpointId": "vpce-s3"}
    s3["ServiceName"] = "com.amazonaws.eu-central-1.s3"
    if choice.startswith("gateway"):
        s3 |= {
            "VpcEndpointType": "Gateway",
            "PrivateDnsEnabled": False,
            "SubnetIds": [],
            "Groups": [],
        }
        route = {"DestinationPrefixListId": "pl-s3", "GatewayId": "vpce-s3", "State": "active"}
        return [*endpoints, s3], [] if choice.endswith("route") else [route]
    if choice == "inbound alone":
        s3["DnsOptions"] = {"PrivateDnsOnlyForInboundResolverEndpoint": True}
    return [*endpoints, *([] if choice == "none" else [s3])], []


def _table(name: str, routes: list[Raw], **association: Any) -> Raw:
    return {
        "RouteTableId": f"rtb-{name}",
        "VpcId": "vpc-1",
        "Associations": [association],
        "Routes": [LOCAL, *routes],
    }


def _entries(name: str) -> list[Raw]:
    outbound, inbound = ACLS[name]
    return [
        *({**one, "Egress": True} for one in (*outbound, deny(32767))),
        *({**one, "Egress": False} for one in (*inbound, deny(32767))),
    ]


def _group(name: str, inbound: list[Raw], outbound: list[Raw]) -> Raw:
    permissions = {"IpPermissions": inbound, "IpPermissionsEgress": outbound}
    return {"GroupId": name, "VpcId": "vpc-1", **permissions}
