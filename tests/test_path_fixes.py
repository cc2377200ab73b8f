"""The commands that doctor prints for the network, applied to the simulator's networks."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from packets import World, outcome
from worlds import MATRIX, Choice, build, goals, label, seen

from batchreg.doctor.findings import Finding, diagnose

Options = dict[str, str]


def run(world: World, command: str) -> None:
    """Do to a network what a command of the AWS CLI does."""
    program, service, name, *words = shlex.split(command)
    assert (program, service) == ("aws", "ec2")
    options: Options = {}
    for word in words:
        if word.startswith("--"):
            option = word.removeprefix("--")
            options[option] = ""
        else:
            options[option] = word
    assert options.pop("region") == "eu-central-1"
    COMMANDS[name](world, options)


def authorize(permissions: str) -> Any:
    def add(world: World, options: Options) -> None:
        group = world.one("SecurityGroups", "GroupId", options["group-id"])
        port = int(options["port"])
        source = options.get("source-group")
        peer: dict[str, Any] = (
            {"UserIdGroupPairs": [{"GroupId": source}]}
            if source
            else {"IpRanges": [{"CidrIp": options["cidr"]}]}
        )
        rule = {"IpProtocol": options["protocol"], "FromPort": port, "ToPort": port, **peer}
        assert rule not in group[permissions]  # AWS refuses a duplicate
        group[permissions] = [*group[permissions], rule]

    return add


def create_network_acl_entry(world: World, options: Options) -> None:
    entries = world.one("NetworkAcls", "NetworkAclId", options["network-acl-id"])["Entries"]
    egress, number = "egress" in options, int(options["rule-number"])
    assert ("ingress" in options) is not egress
    assert 1 <= number <= 32766
    # AWS refuses a number that is taken.
    assert (egress, number) not in {(one["Egress"], one["RuleNumber"]) for one in entries}
    first, last = (int(text.partition("=")[2]) for text in options["port-range"].split(","))
    entries.append(
        {
            "RuleNumber": number,
            "Egress": egress,
            "RuleAction": options["rule-action"],
            "Protocol": {"tcp": "6"}[options["protocol"]],
            "PortRange": {"From": first, "To": last},
            "CidrBlock": options["cidr-block"],
        }
    )


def modify_subnet_attribute(world: World, options: Options) -> None:
    assert "map-public-ip-on-launch" in options
    world.one("Subnets", "SubnetId", options["subnet-id"])["MapPublicIpOnLaunch"] = True


def modify_vpc_endpoint(world: World, options: Options) -> None:
    assert "private-dns-enabled" in options
    endpoint = world.one("VpcEndpoints", "VpcEndpointId", options["vpc-endpoint-id"])
    endpoint["PrivateDnsEnabled"] = True
    if given := options.get("dns-options"):
        assert given == "PrivateDnsOnlyForInboundResolverEndpoint=false"
        endpoint["DnsOptions"] = {"PrivateDnsOnlyForInboundResolverEndpoint": False}


def modify_vpc_attribute(world: World, options: Options) -> None:
    assert options == {"enable-dns-hostnames": "", "vpc-id": "vpc-1"}
    world.attributes["enableDnsHostnames"] = True


COMMANDS = {
    "authorize-security-group-egress": authorize("IpPermissionsEgress"),
    "authorize-security-group-ingress": authorize("IpPermissions"),
    "create-network-acl-entry": create_network_acl_entry,
    "modify-subnet-attribute": modify_subnet_attribute,
    "modify-vpc-endpoint": modify_vpc_endpoint,
    "modify-vpc-attribute": modify_vpc_attribute,
}


def arriving(choice: Choice, world: World) -> set[str]:
    return {goal.name for goal in goals(choice) if not outcome(world, "subnet-a", goal)}


def fixed(choice: Choice) -> tuple[list[Finding], str]:
    """Return the findings of a network, and what is wrong after all fixes of the first one."""
    world = build(choice)
    findings = diagnose(seen(choice, world))
    if not findings or not findings[0].fix:
        return findings, ""
    before = arriving(choice, world)
    for command in (one for fix in findings[0].fix for one in fix.split(" && ")):
        run(world, command)
    lost = before - arriving(choice, world)
    left = diagnose(seen(choice, world))
    again = [one for one in left if one.cause == findings[0].cause and not one.steps]
    if lost:
        return findings, f"{findings[0].fix} broke the way to {lost}"
    if again and {*again[0].evidence} & {*findings[0].evidence}:
        return findings, f"{findings[0].fix} did not help: {again[0].evidence}"
    return findings, ""


@pytest.mark.parametrize("part", range(10))
def test_fix_helps_and_breaks_nothing(part: int) -> None:
    """After it, the finding is gone or about something else, and what arrived still arrives."""
    for choice in MATRIX[part::10]:
        _, wrong = fixed(choice)
        assert not wrong, label(choice)


def test_commands_of_all_kinds_are_tried() -> None:
    """Each of the commands above is some first finding's fix."""
    printed = {
        shlex.split(command)[2]
        for choice in MATRIX
        for finding in diagnose(seen(choice, build(choice)))[:1]
        for fix in finding.fix
        for command in fix.split(" && ")
    }
    assert printed == {*COMMANDS}
