"""How the network becomes facts: as EC2 describes it, all at once, and without changing anything."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.validate import validate_parameters
from stubs import Stubs
from worlds import QUESTIONS, Ec2, build, choices, meta

from batchreg.doctor.collect import network
from batchreg.doctor.collect.calls import Caller
from batchreg.doctor.facts import Facts, LaunchTemplate
from batchreg.doctor.findings import diagnose
from batchreg.doctor.rules.breaks import unknown_paths
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

HEALTHY = {question: answers[0] for question, answers in QUESTIONS.items()}
HOSTS: Future[list[Host]] = Future()
HOSTS.set_result([Host(name="harbor:8443", addresses=("10.0.5.5",))])
CALLS = {
    "describe_subnets",
    "describe_security_groups",
    "describe_route_tables",
    "describe_network_acls",
    "describe_vpc_endpoints",
    "describe_nat_gateways",
    "describe_internet_gateways",
    "describe_prefix_lists",
    "describe_vpcs",
    "describe_dhcp_options",
}


class Refusing(Ec2):
    """EC2 that refuses one call, or takes its time for each."""

    def __init__(self, refused: str = "", *, seconds: float = 0, **answers: str) -> None:
        super().__init__(build({**HEALTHY, **answers}))
        self.refused, self.seconds = refused, seconds
        self.at_once, self.most, self.lock = 0, 0, threading.Lock()

    def answer(self, method: str, request: dict[str, Any]) -> dict[str, Any]:
        with self.lock:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        time.sleep(self.seconds)
        with self.lock:
            self.at_once -= 1
        self.refuse(method)
        return super().answer(method, request)

    def describe_vpc_attribute(self, **request: Any) -> dict[str, Any]:
        self.refuse("describe_vpc_attribute")
        return super().describe_vpc_attribute(**request)

    def refuse(self, method: str) -> None:
        if method == self.refused:
            error = {"Error": {"Code": "UnauthorizedOperation", "Message": "No."}}
            raise ClientError(error, self.meta.method_to_api_mapping[method])


def look(ec2: Ec2) -> tuple[dict[str, Any], list[str]]:
    caller = Caller(lambda _: ec2)
    found = network.look(caller, ["subnet-a"], ["sg-1"], HOSTS)
    return found, sorted({gap.permission for gap in caller.gaps.values()})


def test_everything_that_a_packet_may_meet_is_a_fact() -> None:
    """Routes in full, gateways, endpoints with their groups, and the subnets on the way alone."""
    found, gaps = look(Refusing(endpoints="Secrets Manager alone", s3="gateway"))
    assert gaps == []
    (subnet,) = found["subnets"]
    assert (subnet.vpc, subnet.cidr, subnet.table, subnet.acl) == (
        "vpc-1",
        "10.0.1.0/24",
        "rtb-a",
        "acl-a",
    )
    assert subnet.routes == (
        Route(destination="10.0.0.0/16", target="local"),
        Route(destination="0.0.0.0/0", target="nat-1"),
        Route(destination="pl-s3", target="vpce-s3"),
    )
    assert subnet.row == ("Subnet subnet-a", "nat-1")
    # Of the NAT gateway, of the endpoint, and of the registry.
    assert {one.id for one in found["passed_subnets"]} == {"subnet-n", "subnet-e", "subnet-r"}
    assert found["nat_gateways"] == (NatGateway(id="nat-1", subnet="subnet-n"),)
    assert found["endpoints"] == (
        Endpoint(
            id="vpce-secretsmanager",
            service="secretsmanager",
            vpc="vpc-1",
            subnets=("subnet-e",),
            groups=("sg-9",),
        ),
        Endpoint(id="vpce-s3", service="s3", kind="Gateway", vpc="vpc-1", private_dns=False),
    )
    assert found["prefix_lists"] == (
        PrefixList(id="pl-s3", service="s3", cidrs=("3.5.134.0/23", "52.219.0.0/20")),
    )
    assert found["egress"] == (GroupRule(group="sg-1"),)
    assert found["ingress"] == (
        GroupRule(group="sg-9", protocol="tcp", first=443, last=443, target="10.0.0.0/16"),
    )
    assert (found["dns"], found["dns_hostnames"], found["resolvers"]) == (True, True, ())
    assert (found["groups"], found["groups_missing"], found["detached_gateways"]) == (
        ("sg-1",),
        (),
        (),
    )


@pytest.mark.parametrize("method", sorted({*CALLS, "describe_vpc_attribute"}))
@pytest.mark.parametrize("endpoints", ["none", "all"])
def test_missing_permission_is_a_gap_and_no_finding(method: str, endpoints: str) -> None:
    """In a healthy network nothing looks wrong for what could not be looked at."""
    found, gaps = look(Refusing(method, endpoints=endpoints))
    assert gaps == [f"ec2:{''.join(word.title() for word in method.split('_'))}"]
    facts = Facts(region="eu-central-1", launch_template=LaunchTemplate(id="lt-1"), **found)
    assert diagnose(facts) == []


@pytest.mark.parametrize(
    ("method", "why"),
    [
        ("describe_route_tables", "the route tables were not looked at"),
        ("describe_nat_gateways", "nat-1 was not looked at"),
        ("describe_network_acls", "the network ACL of subnet-a was not looked at"),
        ("describe_security_groups", "the security groups were not looked at"),
        ("describe_vpc_endpoints", "the VPC endpoints were not looked at"),
    ],
)
def test_what_a_missing_permission_hides_is_said(method: str, why: str) -> None:
    """Silence would look as if the network had been examined."""
    found, _ = look(Refusing(method))
    facts = Facts(region="eu-central-1", launch_template=LaunchTemplate(id="lt-1"), **found)
    assert [reason for _, reason in unknown_paths(facts)] == [why]


def test_stand_in_answers_in_the_shapes_of_ec2() -> None:
    """A misspelled field in it would test nothing."""
    for choice in choices(300, seed=1):
        for kind, found in build(choice).described.items():
            shape = meta().service_model.operation_model(f"Describe{kind}").output_shape
            validate_parameters({kind: found}, shape)
            names = {name for raw in found for name in raw}
            assert names <= {*shape.members[kind].member.members}


def test_two_round_trips_read_the_network() -> None:
    """Twelve calls one after another would take longer than anybody waits."""
    ec2 = Refusing(seconds=0.2)
    started = time.monotonic()
    look(ec2)
    assert time.monotonic() - started < 1.5
    assert ec2.most >= 8
    assert {ec2.meta.method_to_api_mapping[method].removeprefix("Describe") for method in CALLS} < {
        *ec2.calls
    }


def test_missing_things_are_facts() -> None:
    """A subnet or a security group that is gone is the finding, not a gap."""
    caller = Caller(lambda _: Refusing())
    found = network.look(caller, ["subnet-a", "subnet-gone"], ["sg-1", "sg-gone"], HOSTS)
    assert found["subnets"][1] == Subnet(id="subnet-gone", exists=False)
    assert (found["groups"], found["groups_missing"]) == (("sg-1",), ("sg-gone",))
    assert not caller.gaps


def test_rules_are_read_as_they_are() -> None:
    """All ports, one port, a prefix list, a group, IPv6; from the API's own shapes."""
    stubs = Stubs("ec2")
    stubs.ec2.add_response(
        "describe_security_groups",
        {
            "SecurityGroups": [
                {
                    "GroupId": "sg-1",
                    "IpPermissionsEgress": [
                        {
                            "IpProtocol": "-1",
                            "IpRanges": [{"CidrIp": "0.0.0.0/0"}],
                            "Ipv6Ranges": [{"CidrIpv6": "::/0"}],
                        },
                        {
                            "IpProtocol": "tcp",
                            "FromPort": 443,
                            "ToPort": 443,
                            "PrefixListIds": [{"PrefixListId": "pl-1"}],
                            "UserIdGroupPairs": [{"GroupId": "sg-2"}],
                        },
                    ],
                }
            ]
        },
    )
    found = network.look(stubs.caller, [], ["sg-1"], HOSTS)
    assert [(one.protocol, one.first, one.last, one.target) for one in found["egress"]] == [
        ("-1", 0, 65535, "0.0.0.0/0"),
        ("-1", 0, 65535, "::/0"),
        ("tcp", 443, 443, "pl-1"),
        ("tcp", 443, 443, "sg-2"),
    ]


ACLS = [
    {"VpcId": "v", "NetworkAclId": "acl-1", "IsDefault": True, "Entries": []},
    {
        "VpcId": "v",
        "NetworkAclId": "acl-2",
        "Associations": [{"SubnetId": "s"}],
        "Entries": [
            {
                "RuleNumber": 100,
                "Egress": True,
                "RuleAction": "deny",
                "Protocol": "6",
                "PortRange": {"From": 443, "To": 443},
                "CidrBlock": "0.0.0.0/0",
            }
        ],
    },
]


def test_network_acl_is_the_subnets_own() -> None:
    """The default one counts where it has none."""
    subnet = network.subnet("s", {"SubnetId": "s", "VpcId": "v"}, [], ACLS)
    rule = AclRule(number=100, egress=True, allows=False, protocol="6", first=443, last=443)
    assert (subnet.acl, subnet.acl_rules) == ("acl-2", (rule,))
    other = network.subnet("t", {"SubnetId": "t", "VpcId": "v"}, [], ACLS)
    assert (other.acl, other.acl_rules) == ("acl-1", ())


@pytest.mark.parametrize(
    ("route", "target", "works"),
    [
        ({"NatGatewayId": "nat-1", "State": "active"}, "nat-1", True),
        ({"NatGatewayId": "nat-1", "State": "blackhole"}, "nat-1", False),
        ({"TransitGatewayId": "tgw-1"}, "tgw-1", True),
        ({"InstanceId": "i-1", "InstanceOwnerId": "1", "NetworkInterfaceId": "eni-1"}, "i-1", True),
        ({"InstanceOwnerId": "1", "NetworkInterfaceId": "eni-1"}, "eni-1", True),
        ({"CoreNetworkArn": "arn:aws:networkmanager::1:x"}, "arn:aws:networkmanager::1:x", True),
        ({}, "an unknown target", True),
    ],
)
def test_routes_are_of_the_subnets_own_table(
    route: dict[str, str], target: str, works: bool
) -> None:
    """The main table counts where it has none; whatever the target is, it has a name."""
    main = {
        "VpcId": "v",
        "Associations": [{"Main": True}],
        "Routes": [{"DestinationCidrBlock": "0.0.0.0/0", "GatewayId": "igw-1"}],
    }
    own = {
        "VpcId": "v",
        "Associations": [{"SubnetId": "s"}],
        "Routes": [
            {"DestinationCidrBlock": "0.0.0.0/0", **route},
            {"DestinationIpv6CidrBlock": "::/0", "GatewayId": "igw-1"},
        ],
    }
    raw = {"SubnetId": "s", "VpcId": "v"}
    found = network.subnet("s", raw, [main, own], None)
    assert found.routes == (Route(destination="0.0.0.0/0", target=target, works=works),)
    assert network.subnet("s", raw, [main], None).row == ("Subnet s", "igw-1")
    assert network.subnet("s", raw, None, None).row == ("Subnet s", "unknown routes")
    assert network.subnet("s", raw, [{**main, "Routes": []}], None).row == (
        "Subnet s",
        "no default route",
    )


@pytest.mark.parametrize(
    ("name", "service"),
    [
        ("com.amazonaws.eu-central-1.ecs-agent", "ecs-agent"),
        ("com.amazonaws.eu-central-1.ecr.dkr", "ecr.dkr"),
        ("cn.com.amazonaws.cn-north-1.ecr.api", "ecr.api"),
        ("com.amazonaws.vpce.eu-central-1.vpce-svc-1", "eu-central-1.vpce-svc-1"),
    ],
)
def test_endpoints_are_known_by_their_service(name: str, service: str) -> None:
    """ECR has two, and those of others are none of them."""
    ec2 = Refusing(endpoints="Secrets Manager alone")
    ec2.world.described["VpcEndpoints"][0]["ServiceName"] = name
    assert [one.service for one in look(ec2)[0]["endpoints"]] == [service]


def test_shared_subnets_are_known_by_their_owner() -> None:
    """The owner's endpoints and gateways are not described to those who use them."""
    ec2 = Refusing()
    for one in ec2.world.described["SecurityGroups"]:
        one["OwnerId"] = "111122223333"
    for owner, shared in (("111122223333", False), ("444455556666", True)):
        ec2.world.described["Subnets"][0]["OwnerId"] = owner
        assert look(ec2)[0]["subnets"][0].shared is shared


def test_names_are_resolved_at_once_and_what_does_not_resolve_is_left_out() -> None:
    """An address is its own; a name of nobody's costs no time."""
    started = time.monotonic()
    hosts = network.resolve(Caller(lambda _: None), "eu-central-1", ["10.0.5.5:5000", "x.invalid"])
    found = {host.name: host.addresses for host in hosts}
    assert found["10.0.5.5:5000"] == ("10.0.5.5",)
    assert "x.invalid" not in found
    assert time.monotonic() - started < 8
