"""From the instances to AWS and to the registry: the broken hops of each path, in its order."""

from __future__ import annotations

from collections.abc import Callable

from batchreg.doctor.facts import Facts
from batchreg.doctor.filters import DEFAULT_RULE
from batchreg.doctor.hops import Hop, Kind
from batchreg.doctor.path import paths
from batchreg.doctor.rules import Evidence, Found, Layer, Look, Table
from batchreg.doctor.rules.breaks import (
    CutOff,
    breaks,
    cut_off,
    listed,
    unusable_endpoint,
    without_route,
)
from batchreg.doctor.rules.commands import aws, deploy, repeated
from batchreg.doctor.rules.joining import none_joins
from batchreg.doctor.topology import ALL_ADDRESSES, Endpoint, Subnet

RULES = Table()
rule = RULES.rule

VPC = "docs.aws.amazon.com/vpc/latest/userguide/"
PRIVATELINK = "docs.aws.amazon.com/vpc/latest/privatelink/"
ENDPOINTS = "docs.aws.amazon.com/AmazonECS/latest/developerguide/vpc-endpoints.html"

LAST_RULE = 32766  # the highest number that a rule of a network ACL can have
EPHEMERAL = (1024, 65535)  # what to open for responses, whoever gets them


@rule(
    "subnet-missing",
    "A subnet of the compute environment does not exist",
    layer=Layer.NETWORK,
    source="docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeSubnets.html",
)
def subnet_missing(facts: Facts) -> Found:
    others = [subnet.id for subnet in facts.subnets or () if subnet.exists]
    for subnet in facts.subnets or ():
        if not subnet.exists:
            yield Evidence(
                f"EC2 has no subnet {subnet.id}.",
                fix=deploy(facts, *repeated("--subnet-id", others)) if others else "",
                step=""
                if others
                else f"Deploy with subnets that exist: {deploy(facts, '--subnet-id', 'ID')}",
            )


@rule(
    "group-missing",
    "A security group of the compute environment does not exist",
    layer=Layer.NETWORK,
    source="docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeSecurityGroups.html",
)
def group_missing(facts: Facts) -> Found:
    others = list(facts.groups or ())
    for group in facts.groups_missing or ():
        yield Evidence(
            f"EC2 has no security group {group}.",
            fix=deploy(facts, *repeated("--security-group-id", others)) if others else "",
            step=""
            if others
            else "Deploy with a security group that exists: "
            f"{deploy(facts, '--security-group-id', 'ID')}",
        )


@rule("dns-off", "The VPC does not resolve names", layer=Layer.NETWORK, source=VPC + "vpc-dns.html")
def dns_off(facts: Facts) -> Found:
    if facts.dns is False and facts.resolvers == ():
        vpc = next((subnet.vpc for subnet in _existing(facts)), "")
        text = f"enableDnsSupport is off in {vpc or 'the VPC'}."
        command = ("ec2", "modify-vpc-attribute", "--enable-dns-support", "--vpc-id", vpc)
        yield Evidence(
            text,
            fix=aws(facts, *command) if vpc else "",
            step="" if vpc else "Turn on DNS resolution of the VPC, in the VPC console.",
        )
    elif facts.name_servers is False and none_joins(facts):
        yield Evidence(
            "The DHCP options of the VPC name no DNS server, and no instance joins the cluster.",
            step="Give the VPC DHCP options with domain-name-servers AmazonProvidedDNS, in the VPC "
            "console. Instances that run need a new lease: terminate them.",
        )


@rule(
    "egress-closed",
    "The security groups do not allow outbound traffic to AWS or the registry",
    layer=Layer.NETWORK,
    source=VPC + "security-group-rules.html",
)
def egress_closed(facts: Facts) -> Found:
    for found in breaks(facts, Kind.EGRESS, by=lambda hop: hop.ports):
        port = str(found.hop.ports[0])
        text = (
            f"No outbound rule of {found.hop.at or 'the instances'} allows TCP port {port} to "
            f"{found.destinations}."
        )
        if not facts.groups:
            yield Evidence(text, step=f"Allow outbound TCP port {port} in a security group.")
            continue
        hops = [hop for path in found.paths for hop in path.broken if hop.kind is Kind.EGRESS]
        peers = {hop.peers for hop in hops}
        for peer in sorted({ALL_ADDRESSES} & peers or peers):
            yield Evidence(
                text,
                fix=aws(
                    facts,
                    *("ec2", "authorize-security-group-egress", "--group-id", facts.groups[0]),
                    *("--protocol", "tcp", "--port", port, "--cidr", peer),
                ),
            )


# One cause, at two places of the path: the order of findings is that of the hops.
def _acl_rule(where: str) -> Callable[[Look], Look]:
    return rule(
        "acl-closed",
        "The network ACL blocks the traffic",
        layer=Layer.NETWORK,
        source=f"{VPC}{where}",
    )


@_acl_rule("vpc-network-acls.html")
def acl_closed_to_requests(facts: Facts) -> Found:
    yield from _denied(facts, Kind.ACL_OUT)


@rule(
    "endpoint-unusable",
    "A VPC endpoint cannot be used",
    layer=Layer.NETWORK,
    source=PRIVATELINK + "interface-endpoints.html",
)
def endpoint_unusable(facts: Facts) -> Found:
    seen: dict[Endpoint, list[str]] = {}
    for _, path in without_route(facts):
        if endpoint := unusable_endpoint(facts, path):
            seen.setdefault(endpoint, []).append(path.subnet.id)
    repairs = {endpoint: _repair(facts, endpoint) for endpoint in seen}
    # All of it in one line: endpoints come by the half dozen.
    fix = " && ".join(dict.fromkeys(one for _, one, _ in repairs.values() if one))
    for endpoint, subnets in seen.items():
        why, _, step = repairs[endpoint]
        yield Evidence(
            f"{endpoint.id} for {endpoint.service} {why}, so its name leads to the internet, to "
            f"which {listed(subnets)} {'has' if len(subnets) == 1 else 'have'} no route.",
            fix,
            step,
        )


@rule(
    "endpoints-missing",
    "The subnets cannot reach some AWS services",
    layer=Layer.NETWORK,
    source=ENDPOINTS,
)
def endpoints_missing(facts: Facts) -> Found:
    for found in cut_off(facts):
        if found.services and found.has_endpoints:
            yield Evidence(
                f"{found.subnet.id}: {found.why}, and {found.subnet.vpc} has no endpoint for "
                f"{listed(found.services)}.",
                step=_endpoints_for(found),
            )


@rule(
    "no-route",
    "The subnets have no route to the internet",
    layer=Layer.NETWORK,
    source=VPC + "VPC_Route_Tables.html",
)
def no_route(facts: Facts) -> Found:
    for found in cut_off(facts):
        if found.services and not found.has_endpoints:
            yield Evidence(
                f"{found.subnet.id}: {found.why}, and there are no VPC endpoints. It cannot reach "
                f"{listed((*found.services, *found.registries))}.",
                step="In the VPC console, add a route from 0.0.0.0/0 to a NAT gateway or an "
                f"internet gateway. {_other_subnets(facts)}".rstrip(),
            )


@rule(
    "no-route-to-registry",
    "The subnets have no route to the registry",
    layer=Layer.NETWORK,
    source="repost.aws/knowledge-center/ecs-fargate-pull-container-error",
)
def no_route_to_registry(facts: Facts) -> Found:
    for found in cut_off(facts):
        if found.registries and not found.services:
            yield Evidence(
                f"{found.subnet.id}: {found.why}. It cannot reach {listed(found.registries)}.",
                step="In the VPC console, add a route to it: for a registry on the internet, from "
                "0.0.0.0/0 to a NAT gateway; or use a registry inside the VPC that mirrors it.",
            )


@rule(
    "no-public-address",
    "The instances get no public address, and there is no NAT gateway",
    layer=Layer.NETWORK,
    source=VPC + "VPC_Internet_Gateway.html",
)
def no_public_address(facts: Facts) -> Found:
    for found in breaks(facts, Kind.ADDRESS, by=lambda hop: hop.at):
        yield Evidence(
            f"{found.hop.at} {found.hop.why}, but {found.destinations} "
            f"{'is' if len(found.paths) == 1 else 'are'} on the internet.",
            fix=aws(
                facts,
                *("ec2", "modify-subnet-attribute", "--map-public-ip-on-launch"),
                *("--subnet-id", found.hop.at),
            ),
        )


@_acl_rule("vpc-network-acls.html")
def acl_closed_to_the_next_subnet(facts: Facts) -> Found:
    yield from _denied(facts, Kind.ACL_IN)


@rule(
    "nat-gateway-without-internet",
    "The NAT gateway does not lead to the internet",
    layer=Layer.NETWORK,
    source=VPC + "nat-gateway-troubleshooting.html",
)
def nat_gateway(facts: Facts) -> Found:
    for found in breaks(facts, Kind.NAT, by=lambda hop: (hop.at, hop.why)):
        yield Evidence(
            f"{found.hop.at}, to which {found.subnets} "
            f"{'routes' if ' and ' not in found.subnets else 'route'}, {found.hop.why}.",
            step="In the VPC console, route 0.0.0.0/0 to a public NAT gateway that is available and "
            "in a subnet with a route from 0.0.0.0/0 to an attached internet gateway.",
        )


@rule(
    "internet-gateway-detached",
    "The internet gateway is not attached to the VPC",
    layer=Layer.NETWORK,
    source=VPC + "VPC_Internet_Gateway.html",
)
def internet_gateway_detached(facts: Facts) -> Found:
    for found in breaks(facts, Kind.GATEWAY, by=lambda hop: hop.at):
        gateway, vpc = found.hop.at, found.paths[0].subnet.vpc
        command = aws(
            facts,
            *("ec2", "attach-internet-gateway", "--internet-gateway-id", gateway, "--vpc-id", vpc),
        )
        yield Evidence(
            f"{gateway} is not attached to {vpc}. {found.subnets} cannot reach "
            f"{found.destinations}.",
            step=f"If {gateway} exists, attach it: {command}; else create another, and route to it "
            "in the VPC console.",
        )


@rule(
    "endpoint-closed",
    "The security groups of a VPC endpoint do not admit the instances",
    layer=Layer.NETWORK,
    source=PRIVATELINK + "create-interface-endpoint.html",
)
def endpoint_closed(facts: Facts) -> Found:
    for found in breaks(facts, Kind.GROUP_IN, by=lambda hop: hop.peers):
        endpoint = found.paths[0].endpoint
        groups = endpoint.groups if endpoint else ()
        text = (
            f"No inbound rule of {found.hop.peers or 'a security group'} allows TCP port 443 from "
            f"{found.subnets} to {listed(path.endpoint.id for path in found.paths if path.endpoint)}"
            f" for {found.destinations}."
        )
        if not groups or not facts.groups:
            yield Evidence(text, step="Allow inbound TCP port 443 from the instances there.")
            continue
        yield Evidence(
            text,
            fix=aws(
                facts,
                *("ec2", "authorize-security-group-ingress", "--group-id", groups[0]),
                *("--protocol", "tcp", "--port", "443", "--source-group", facts.groups[0]),
            ),
        )


@_acl_rule("custom-network-acl.html")
def acl_closed_to_responses(facts: Facts) -> Found:
    yield from _denied(facts, Kind.ACL_FAR, Kind.ACL_BACK)


@rule(
    "no-free-addresses",
    "A subnet has no free addresses",
    layer=Layer.NETWORK,
    source="docs.aws.amazon.com/batch/latest/userguide/best-practices.html",
)
def no_free_addresses(facts: Facts) -> Found:
    subnets = [subnet.id for subnet in _existing(facts)]
    for subnet in _existing(facts):
        if subnet.free == 0:
            yield Evidence(
                f"{subnet.id} has 0 free addresses.",
                step="Add another subnet of the same VPC: "
                f"{deploy(facts, *repeated('--subnet-id', [*subnets, 'ID']))}",
            )


def _denied(facts: Facts, *kinds: Kind) -> Found:
    """Yield what network ACLs deny at these hops."""
    used: dict[tuple[str, bool], int] = {}  # by all that are printed, also at other hops
    for found in breaks(
        facts,
        *(Kind.ACL_OUT, Kind.ACL_IN, Kind.ACL_FAR, Kind.ACL_BACK),
        by=lambda hop: (hop.key, hop.subnet, hop.rule, hop.ports, hop.source),
    ):
        hop = found.hop
        fix, step = _allow(facts, hop, used)
        if hop.kind not in kinds:
            continue
        beyond = hop.kind is Kind.ACL_FAR and not hop.source
        way = f" on the path from {found.subnets}" if beyond else ""
        denial = "no rule allows it" if hop.rule == DEFAULT_RULE else f"rule {hop.rule} denies it"
        yield Evidence(
            f"{hop.at} of {hop.subnet} blocks {_traffic(hop.egress, *hop.ports)}"
            f"{', responses' if hop.responses else ''} {'to' if hop.egress else 'from'} "
            f"{hop.source or found.destinations}{way}: {denial}.",
            fix,
            step,
        )


def _traffic(egress: bool, first: int, last: int) -> str:
    ports = f"port {first}" if first == last else f"ports {first}-{last}"
    return f"{'outbound' if egress else 'inbound'} TCP {ports}"


def _allow(facts: Facts, hop: Hop, used: dict[tuple[str, bool], int]) -> tuple[str, str]:
    """Return the command that allows what no rule allows; or the step, where a rule denies it.

    The command's rule comes after all others, so what they deny stays denied. `used` remembers the
    highest number of each network ACL and direction.
    """
    first, last = EPHEMERAL if hop.responses else hop.ports
    known = (*(facts.subnets or ()), *(facts.passed_subnets or ()))
    rules = next(one.acl_rules or () for one in known if one.id == hop.subnet)
    numbers = [
        one.number for one in rules if one.egress == hop.egress and one.number < DEFAULT_RULE
    ]
    key = (hop.at, hop.egress)
    number = 10 + max(*numbers, used.get(key, 90), 90)
    if hop.rule != DEFAULT_RULE or number > LAST_RULE:
        return "", (
            f"In the VPC console, allow {_traffic(hop.egress, first, last)} in {hop.at}, with a "
            "rule number below the one that denies."
        )
    used[key] = number
    return (
        aws(
            facts,
            *("ec2", "create-network-acl-entry", "--network-acl-id", hop.at),
            *("--egress" if hop.egress else "--ingress", "--rule-number", str(number)),
            *("--protocol", "tcp", "--port-range", f"From={first},To={last}"),
            *("--cidr-block", hop.peers, "--rule-action", "allow"),
        ),
        "",
    )


def _repair(facts: Facts, endpoint: Endpoint) -> tuple[str, str, str]:
    """Say why an endpoint cannot be used, and return the command or the step that helps."""
    if endpoint.state == "pendingacceptance":
        why = "awaits acceptance"
        return why, "", "Ask the owner of the endpoint service to accept the connection."
    if endpoint.state == "pending":
        return "is not available yet", "", "Wait until it is available."
    if endpoint.state != "available":
        step = f"Delete {endpoint.id}, and create an interface endpoint with private DNS instead."
        return f"is {endpoint.state}", "", step
    if not endpoint.private_dns:
        words = ["modify-vpc-endpoint", "--private-dns-enabled", "--vpc-endpoint-id", endpoint.id]
        if endpoint.service == "s3":  # whose private DNS may be for other networks alone
            words += ["--dns-options", "PrivateDnsOnlyForInboundResolverEndpoint=false"]
        return "has no private DNS inside the VPC", aws(facts, "ec2", *words), ""
    vpc = endpoint.vpc
    command = ("modify-vpc-attribute", "--enable-dns-hostnames", "--vpc-id", vpc)
    return f"needs DNS hostnames, which are off in {vpc}", aws(facts, "ec2", *command), ""


def _endpoints_for(found: CutOff) -> str:
    """Return the step that makes up for missing endpoints."""
    interfaces = [name for name in found.services if name != "s3"]
    wanted = ["a gateway endpoint for s3"] if "s3" in found.services else []
    if interfaces:
        wanted.insert(0, f"interface endpoints with private DNS for {listed(interfaces)}")
    step = f"In the VPC console, create {' and '.join(wanted)}; or add a NAT gateway"
    if found.registries:
        return f"{step}, which {listed(found.registries)} needs in any case."
    return f"{step}."


def _other_subnets(facts: Facts) -> str:
    """Return how to use only the subnets whose paths are whole, empty where no other is left."""
    failing = {path.subnet.id for path in paths(facts) if path.broken}
    working = [subnet.id for subnet in _existing(facts) if subnet.id not in failing]
    if not working:
        return ""
    return f"Or use only the others: {deploy(facts, *repeated('--subnet-id', working))}"


def _existing(facts: Facts) -> list[Subnet]:
    return [subnet for subnet in facts.subnets or () if subnet.exists]
