"""The path of a packet: what must stay silent next to each fault, and what is not known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from write_troubleshooting import changed

from batchreg.doctor import savefile
from batchreg.doctor.filters import Decision, State, acl, block, pieces
from batchreg.doctor.findings import diagnose
from batchreg.doctor.hops import Kind
from batchreg.doctor.path import paths
from batchreg.doctor.rules.breaks import unknown_paths
from batchreg.doctor.topology import AclRule
from batchreg.errors import BatchregError

LOCAL = {"destination": "10.0.0.0/16", "target": "local"}
INSIDE = {"subnets.0.routes": [LOCAL], "subnets.1.routes": [LOCAL]}
SERVICES = ("ecs", "ecs-agent", "ecs-telemetry", "secretsmanager", "logs")
ADMITS = {"ingress": [{"group": "sg-9", "target": "10.0.0.0/16"}]}
PRIVATE = {"secrets.0.host": "10.0.5.5:5000", "image": None}
IN_ECR = "111122223333.dkr.ecr.eu-central-1.amazonaws.com"
ECR = {
    "secrets.0.host": "10.0.5.5:5000",
    "image": {"image": f"{IN_ECR}/align:3", "ok": True, "cause": "ok", "registry": IN_ECR},
}


def to(target: str, destination: str = "0.0.0.0/0", **more: Any) -> dict[str, Any]:
    return {"destination": destination, "target": target, **more}


def endpoints(*services: str, **more: Any) -> list[dict[str, Any]]:
    return [
        {
            "service": service,
            "id": f"vpce-{service}",
            "vpc": "vpc-1",
            "subnets": ["subnet-0a"],
            "groups": ["sg-9"],
            **more,
        }
        for service in services
    ]


def rule(number: int, *, egress: bool, allows: bool = True, **more: Any) -> dict[str, Any]:
    return {"number": number, "egress": egress, "allows": allows, **more}


def tcp(first: int, last: int, target: str = "0.0.0.0/0") -> dict[str, Any]:
    return {"protocol": "6", "first": first, "last": last, "target": target}


def inbound(*rules: dict[str, Any]) -> dict[str, Any]:
    return {"subnets.0.acl_rules": [rule(100, egress=True), *rules]}


ALL_IN = rule(100, egress=False)


def private_subnet(*routes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": "subnet-0b",
        "vpc": "vpc-1",
        "cidr": "10.0.1.0/24",
        "public": False,
        "routes": [LOCAL, *routes],
        "acl_rules": [rule(100, egress=True), ALL_IN],
        **more,
    }


SILENT: dict[str, dict[str, Any]] = {
    "network ACL denies a range in which nothing is": inbound(
        rule(90, egress=False, allows=False, target="203.0.113.0/24"), ALL_IN
    ),
    "network ACL lets in the ports of Linux alone": {
        "subnets.1.acl_rules": [
            rule(100, egress=True),
            rule(100, egress=False, **tcp(32768, 60999)),
        ]
    },
    "network ACL denies a port below those of Linux": {
        "subnets.1.acl_rules": [
            rule(100, egress=True),
            rule(90, egress=False, allows=False, **tcp(3389, 3389)),
            ALL_IN,
        ]
    },
    "network ACL denies after it has allowed": inbound(
        ALL_IN, rule(110, egress=False, allows=False, **tcp(40000, 50000))
    ),
    "network ACL allows in two ranges side by side": {
        "subnets.1.acl_rules": [
            rule(100, egress=True),
            rule(90, egress=False, **tcp(1024, 40000)),
            rule(91, egress=False, **tcp(40001, 65535)),
        ]
    },
    "network ACL denies UDP": inbound(rule(90, egress=False, allows=False, protocol="17"), ALL_IN),
    "network ACL denies what only other subnets use": {
        "subnets.0.acl_rules": [
            rule(90, egress=True, allows=False, **tcp(5432, 5432)),
            rule(100, egress=True),
            ALL_IN,
        ]
    },
    "security group allows HTTPS alone": {
        "egress": [{"group": "sg-1", "protocol": "tcp", "first": 443, "last": 443}]
    },
    "security group allows HTTPS in halves of the internet": {
        "egress": [
            {"group": "sg-1", "target": "0.0.0.0/1"},
            {"group": "sg-1", "target": "128.0.0.0/1"},
        ]
    },
    "registry inside, its port open to private addresses alone": {
        **PRIVATE,
        "egress": [
            {"group": "sg-1", "protocol": "tcp", "first": 443, "last": 443},
            {
                "group": "sg-1",
                "protocol": "tcp",
                "first": 5000,
                "last": 5000,
                "target": "10.0.0.0/8",
            },
        ],
    },
    "registry in the instances' subnet, behind no network ACL": {
        "secrets.0.host": "10.0.0.7:5000",
        "image": None,
        "subnets": [
            {
                "id": "subnet-0a",
                "vpc": "vpc-1",
                "cidr": "10.0.0.0/24",
                "routes": [LOCAL, to("igw-1")],
                "acl_rules": [
                    rule(90, egress=True, allows=False, target="10.0.0.0/8"),
                    rule(100, egress=True),
                    ALL_IN,
                ],
            }
        ],
    },
    "registry by its own name, with a private address": {
        "secrets.0.host": "harbor.corp.example",
        "image": None,
        "hosts.5": {"name": "harbor.corp.example", "addresses": ["10.0.5.5"]},
    },
    "registry on this machine": {"secrets.0.host": "127.0.0.1:5000", "image": None},
    "endpoints and nothing else, and a registry inside": {
        **INSIDE,
        **ADMITS,
        **PRIVATE,
        "endpoints": endpoints(*SERVICES),
    },
    "endpoints that admit the instances' group": {
        **INSIDE,
        **PRIVATE,
        "endpoints": endpoints(*SERVICES),
        "ingress": [
            {"group": "sg-9", "protocol": "tcp", "first": 443, "last": 443, "target": "sg-1"}
        ],
    },
    "endpoints that await acceptance, beside a NAT gateway": {
        "endpoints": endpoints(*SERVICES, state="pendingacceptance")
    },
    "endpoints without private DNS, beside a NAT gateway": {
        "endpoints": endpoints(*SERVICES, private_dns=False)
    },
    "endpoint of another VPC that admits nothing": {
        "endpoints": endpoints("ecs", vpc="vpc-2"),
        "ingress": [],
    },
    "endpoint of a service that nobody needs": {"endpoints": endpoints("sqs"), "ingress": []},
    "egress to the endpoints' group, and S3's prefix list": {
        **ADMITS,
        **ECR,
        "secrets.0.host": "",
        "subnets.0.routes": [LOCAL, to("vpce-s3", "pl-6ea54007")],
        "subnets.1.routes": [LOCAL, to("vpce-s3", "pl-6ea54007")],
        "endpoints": [
            *endpoints(*SERVICES, "ecr.api", "ecr.dkr"),
            {"service": "s3", "id": "vpce-s3", "kind": "Gateway", "vpc": "vpc-1"},
        ],
        "egress": [
            {"group": "sg-1", "protocol": "tcp", "first": 443, "last": 443, "target": "sg-9"},
            {
                "group": "sg-1",
                "protocol": "tcp",
                "first": 443,
                "last": 443,
                "target": "pl-6ea54007",
            },
        ],
    },
    "endpoints without S3, and an image that is not in ECR": {
        **INSIDE,
        **ADMITS,
        **PRIVATE,
        "endpoints": endpoints(*SERVICES),
    },
    "internet gateway of another VPC that is detached": {"detached_gateways": ["igw-2"]},
    "NAT gateway of other subnets that failed": {
        "nat_gateways.1": {"id": "nat-2", "subnet": "subnet-0x", "state": "failed"}
    },
    "route that is a black hole to where nothing is": {
        "subnets.1.routes": [LOCAL, to("nat-1"), to("pcx-1", "10.9.0.0/16", works=False)]
    },
    "two routes in place of a default route": {
        "subnets.1.routes": [LOCAL, to("nat-1", "0.0.0.0/1"), to("nat-1", "128.0.0.0/1")]
    },
    "DNS that is off, where the VPC has name servers of its own": {
        "dns": False,
        "resolvers": ["10.0.0.9"],
    },
}


@pytest.mark.parametrize("name", SILENT)
def test_what_works_is_no_finding_and_known(name: str) -> None:
    """Next to each fault is something that looks like it, and through which packets pass."""
    facts = changed(SILENT[name])
    assert diagnose(facts) == []
    assert list(unknown_paths(facts)) == []
    assert paths(facts)


NOT_KNOWN: dict[str, tuple[dict[str, Any], str]] = {
    "transit gateway": ({"subnets.1.routes": [LOCAL, to("tgw-1")]}, "subnet-0b routes it to tgw-1"),
    "firewall": ({"subnets.1.routes": [LOCAL, to("vpce-1")]}, "subnet-0b routes it to vpce-1"),
    "NAT instance": ({"subnets.1.routes": [LOCAL, to("eni-1")]}, "subnet-0b routes it to eni-1"),
    "prefix list of one's own": (
        {"subnets.1.routes": [LOCAL, to("nat-1"), to("tgw-1", "pl-own")]},
        "what pl-own contains",
    ),
    "prefix list in a security group": (
        {"egress": [{"group": "sg-1", "target": "pl-own"}]},
        "what a security group or prefix list in an outbound rule contains",
    ),
    "proxy": ({"launch_template.proxy": True}, "the user data set a proxy"),
    "IPv6 alone": ({"subnets.1.ipv6_only": True}, "the subnet has IPv6 alone"),
    "NAT gateway behind a transit gateway": (
        {
            "nat_gateways.0": {"id": "nat-1", "subnet": "subnet-0n", "private": True},
            "passed_subnets": [
                {
                    "id": "subnet-0n",
                    "vpc": "vpc-1",
                    "cidr": "10.0.9.0/24",
                    "routes": [to("tgw-1")],
                    "acl_rules": [rule(100, egress=True), ALL_IN],
                }
            ],
        },
        "nat-1 in subnet-0n routes it to tgw-1",
    ),
    "NAT gateway that is being created": ({"nat_gateways.0.state": "pending"}, "nat-1 is pending"),
    "regional NAT gateway": (
        {"nat_gateways.0": {"id": "nat-1"}},
        "the subnet of nat-1 is not known",
    ),
    "endpoints in a VPC beyond a transit gateway": (
        {**PRIVATE, "subnets": [private_subnet(to("tgw-1", "10.0.0.0/8"))]},
        "its name may lead to a private address",
    ),
    "a subnet that another account shares": (
        {**PRIVATE, "subnets": [private_subnet(shared=True)]},
        "its name may lead to a private address",
    ),
    "network ACL that denies half of the internet": (
        {"hosts": [], "subnets.1.acl_rules": [rule(100, egress=True, target="0.0.0.0/1"), ALL_IN]},
        "it depends on the address",
    ),
    "endpoint that admits half of the subnet": (
        {
            "endpoints": endpoints("ecs"),
            "ingress": [
                {"group": "sg-9", "target": "10.0.1.0/25"},
                {"group": "sg-9", "target": "10.0.0.0/24"},
            ],
        },
        "the security groups of vpce-ecs admit a part of subnet-0b",
    ),
    "name servers of one's own, and an endpoint that admits nothing": (
        {"endpoints": endpoints("ecs"), "ingress": [], "resolvers": ["10.0.0.9"]},
        "10.0.0.9 resolves the names",
    ),
    "registry whose name may be private": (
        {
            **INSIDE,
            **ADMITS,
            "endpoints": endpoints(*SERVICES),
            "secrets.0.host": "harbor.corp.example",
            "image": None,
            "hosts.5": {"name": "harbor.corp.example", "addresses": ["198.41.7.7"]},
        },
        "its name may lead to a private address",
    ),
}


@pytest.mark.parametrize("name", NOT_KNOWN)
def test_what_cannot_be_known_is_said_and_is_no_finding(name: str) -> None:
    """A transit gateway may lead anywhere; a guess costs more trust than a gap."""
    change, why = NOT_KNOWN[name]
    facts = changed(change)
    assert diagnose(facts) == []
    assert {reason for _, reason in unknown_paths(facts)} == {why}


def test_what_denies_for_certain_is_a_finding_although_the_rest_is_not_known() -> None:
    """Wherever the transit gateway leads: the security group lets nothing out."""
    facts = changed({"egress": [], "subnets.1.routes": [LOCAL, to("tgw-1")]})
    (finding,) = diagnose(facts)
    assert finding.cause == "egress-closed"


def test_one_hop_that_breaks_all_paths_is_one_finding_that_lists_them() -> None:
    """Six findings about one security group would hide what else is wrong."""
    (finding,) = diagnose(changed({"egress": []}))
    assert finding.evidence == (
        "No outbound rule of sg-1 allows TCP port 443 to ecs, ecs-agent, ecs-telemetry, "
        "secretsmanager, logs and ghcr.io.",
    )


def test_hops_are_in_the_order_of_the_packet() -> None:
    """From the instance by its security group to the NAT gateway, and back by the network ACL."""
    facts = changed({"subnets.0.acl": "acl-2"})
    path = next(one for one in paths(facts) if one.subnet.id == "subnet-0b")
    assert [(hop.kind, hop.at) for hop in path.hops] == [
        (Kind.EGRESS, "sg-1"),
        (Kind.ACL_OUT, "acl-1"),
        (Kind.ROUTE, "subnet-0b"),
        (Kind.ACL_IN, "acl-2"),
        (Kind.NAT, "nat-1"),
        (Kind.ROUTE, "subnet-0a"),
        (Kind.GATEWAY, "igw-1"),
        (Kind.ACL_FAR, "acl-2"),
        (Kind.ACL_FAR, "acl-2"),
        (Kind.ACL_FAR, "acl-2"),
        (Kind.ACL_BACK, "acl-1"),
    ]
    assert path.state is State.PASSES


def test_secrets_manager_is_needed_only_where_something_reads_it() -> None:
    """Queues of any origin have instances that fetch no credentials."""
    without = {"secrets": [], "launch_template.fetches_credentials": False}
    names = {path.destination.name for path in paths(changed(without))}
    assert names == {"ecs", "ecs-agent", "ecs-telemetry", "logs", "ghcr.io"}


def test_file_of_an_older_format_is_refused_with_the_reason() -> None:
    """It knows too little of the network to judge it."""
    with pytest.raises(
        BatchregError, match=r"^f was written by doctor --save of an older batchreg"
    ):
        savefile.load('{"format": "batchreg-facts-1"}', "f")


ENTRIES = st.builds(
    AclRule,
    number=st.integers(1, 6),
    egress=st.just(False),
    allows=st.booleans(),
    protocol=st.sampled_from(["-1", "6", "17"]),
    first=st.integers(0, 12),
    last=st.integers(4, 20),
    target=st.sampled_from(["0.0.0.0/0", "10.0.0.0/30", "10.0.0.2/31", "10.0.0.4/32", "::/0"]),
)


@given(st.lists(ENTRIES, max_size=6, unique_by=lambda one: one.number).map(tuple))
def test_network_acl_is_what_its_rules_say_for_each_address_and_port(
    rules: tuple[AclRule, ...],
) -> None:
    """Blocks and ranges stand for each single packet in them."""

    def allowed(address: int, port: int) -> bool:
        for one in sorted(rules, key=lambda one: one.number):
            target = block(one.target)
            if (
                one.protocol != "17"
                and target
                and target[0] <= address <= target[1]
                and one.first <= port <= one.last
            ):
                return one.allows
        return False

    first, last = 0x0A000000, 0x0A000005
    each = {
        all(allowed(address, port) for port in range(3, 16)) for address in range(first, last + 1)
    }
    decided = acl(rules, False, ((first, last),), (3, 15))
    wanted = State.UNKNOWN if len(each) > 1 else State.PASSES if each == {True} else State.BROKEN
    assert decided.state is wanted
    if decided != Decision(State.PASSES):
        assert 3 <= decided.ports[0] <= decided.ports[1] <= 15


def test_blocks_are_cut_where_others_begin_and_end() -> None:
    assert pieces([(0, 9)], [(2, 3), (8, 20)]) == [(0, 1), (2, 3), (4, 7), (8, 9)]


def test_what_is_not_known_is_printed(batchreg: Any, tmp_path: Path) -> None:
    """With the subnet, the destinations and the reason; it is not a finding, so the status is 0."""
    file = tmp_path / "facts.json"
    file.write_text(savefile.dump(changed({"subnets.1.routes": [LOCAL, to("tgw-1")]})))
    what = "Path from subnet-0b to ecs, ecs-agent, ecs-telemetry, secretsmanager, logs and ghcr.io"
    why = "subnet-0b routes it to tgw-1"
    done = batchreg("doctor", "--stack-name", "genomics", "--from", str(file))
    assert done.returncode == 0
    assert f"Not known:\n   {what}: {why}\n" in done.stdout
    done = batchreg("doctor", "--stack-name", "genomics", "--from", str(file), "--json")
    assert json.loads(done.stdout)["unknown"] == [{"what": what, "is": why}]
