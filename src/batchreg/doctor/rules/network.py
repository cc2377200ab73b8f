"""From the instances to AWS and to the registry."""

from __future__ import annotations

import ipaddress
import re

from batchreg.doctor.facts import AclRule, Facts, Subnet
from batchreg.doctor.rules import Evidence, Found, Layer, Table
from batchreg.doctor.rules.commands import aws, deploy, repeated
from batchreg.registry_login import HUB

RULES = Table()
rule = RULES.rule

VPC = "docs.aws.amazon.com/vpc/latest/userguide/"
ENDPOINTS = "docs.aws.amazon.com/AmazonECS/latest/developerguide/vpc-endpoints.html"

# What an instance talks to before and while it runs a job. Sources: ENDPOINTS for the first three;
# registry_login; the jobs' log driver.
NEEDED = ("ecs", "ecs-agent", "ecs-telemetry", "secretsmanager", "logs")
PUBLIC = re.compile(
    r"([a-z0-9-]+\.)*(docker\.(io|com)|ghcr\.io|gitlab\.com|quay\.io|jfrog\.io|nvcr\.io|gcr\.io|"
    r"pkg\.dev|azurecr\.io|mcr\.microsoft\.com)"
)
PRIVATE = [
    ipaddress.IPv4Network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
]
ANY_ADDRESS = "1.1.1.1"  # of the internet
EPHEMERAL = (32768, 60999)  # where Linux expects responses: net.ipv4.ip_local_port_range


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
                else f"Deploy with subnets that exist: {deploy(facts, '--subnet-id')} ID",
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
            f"{deploy(facts, '--security-group-id')} ID",
        )


@rule(
    "no-route",
    "The subnets have no route to the internet",
    layer=Layer.NETWORK,
    source=VPC + "VPC_Route_Tables.html",
)
def no_route(facts: Facts) -> Found:
    for subnet in _cut_off(facts):
        if (not subnet.route or not subnet.route_works) and not _endpoints(facts, subnet):
            why = f"to {subnet.route}, which does not exist" if subnet.route else "missing"
            yield Evidence(
                f"{subnet.id}: the default route is {why}, and there are no VPC endpoints.",
                step="In the VPC console, add a route from 0.0.0.0/0 to a NAT gateway or an "
                f"internet gateway. {_other_subnets(facts)}",
            )


@rule(
    "no-public-address",
    "The instances get no public address, and there is no NAT gateway",
    layer=Layer.NETWORK,
    source=VPC + "VPC_Internet_Gateway.html",
)
def no_public_address(facts: Facts) -> Found:
    for subnet in _cut_off(facts):
        if subnet.route and subnet.route_works and not _endpoints(facts, subnet):
            yield Evidence(
                f"{subnet.id} routes to {subnet.route} and assigns no public addresses.",
                fix=aws(
                    facts,
                    *("ec2", "modify-subnet-attribute", "--map-public-ip-on-launch"),
                    *("--subnet-id", subnet.id),
                ),
            )


@rule(
    "endpoints-missing",
    "The subnets cannot reach some AWS services",
    layer=Layer.NETWORK,
    source=ENDPOINTS,
)
def endpoints_missing(facts: Facts) -> Found:
    for subnet in _cut_off(facts):
        has = _endpoints(facts, subnet)
        lacking = [service for service in NEEDED if service not in has]
        if has and lacking:
            yield Evidence(
                f"{subnet.id} has no route to the internet, and {subnet.vpc} has no endpoint for "
                f"{', '.join(lacking)}.",
                step="In the VPC console, create an interface endpoint with private DNS for each of "
                f"{', '.join(lacking)}; or add a NAT gateway.",
            )


@rule(
    "no-route-to-registry",
    "The subnets reach AWS but not the registry",
    layer=Layer.NETWORK,
    source="repost.aws/knowledge-center/ecs-fargate-pull-container-error",
)
def no_route_to_registry(facts: Facts) -> Found:
    public = [host for host in _hosts(facts) if PUBLIC.fullmatch(host)]
    for subnet in _cut_off(facts):
        if public and _endpoints(facts, subnet) >= set(NEEDED):
            yield Evidence(
                f"{subnet.id} has VPC endpoints only, and {public[0]} is on the internet.",
                step="In the VPC console, add a route from 0.0.0.0/0 to a NAT gateway; or use a "
                "registry inside the VPC that mirrors it.",
            )


@rule(
    "egress-closed",
    "The security groups do not allow outbound traffic to AWS or the registry",
    layer=Layer.NETWORK,
    source=VPC + "security-group-rules.html",
)
def egress_closed(facts: Facts) -> Found:
    if facts.egress is None or facts.groups_missing:
        return
    inside = bool(facts.endpoints)
    wanted = {(443, "AWS", not inside)}
    wanted |= {(_port(host), host, bool(PUBLIC.fullmatch(host))) for host in _hosts(facts)}
    for port, peer, outside in sorted(wanted):
        if not any(
            one.protocol in ("-1", "tcp", "6")
            and one.first <= port <= one.last
            and (not outside or _outward(one.target))
            for one in facts.egress
        ):
            text = f"No outbound rule allows TCP port {port} to {peer}."
            if not facts.groups:
                yield Evidence(text, step=f"Allow outbound TCP port {port} in a security group.")
            else:
                yield Evidence(
                    text,
                    fix=aws(
                        facts,
                        *("ec2", "authorize-security-group-egress", "--group-id", facts.groups[0]),
                        *("--protocol", "tcp", "--port", str(port), "--cidr", "0.0.0.0/0"),
                    ),
                )


@rule(
    "acl-closed",
    "The network ACL blocks the traffic",
    layer=Layer.NETWORK,
    source=VPC + "vpc-network-acls.html",
)
def acl_closed(facts: Facts) -> Found:
    ports = sorted({443, *map(_port, _hosts(facts))})
    for subnet in _existing(facts):
        if subnet.acl_rules is None or (not _open(subnet) and _endpoints(facts, subnet)):
            continue  # traffic to endpoints stays inside the VPC
        stopped = [
            f"outbound port {port}" for port in ports if not _passes(subnet.acl_rules, True, port)
        ]
        stopped += [
            f"responses to port {port}"
            for port in EPHEMERAL
            if not _passes(subnet.acl_rules, False, port)
        ]
        if stopped:
            yield Evidence(
                f"{subnet.acl} of {subnet.id} denies {', '.join(stopped)}.",
                step="In the VPC console, allow outbound TCP to the port and inbound TCP to ports "
                f"1024-65535 in {subnet.acl}, with rule numbers below the one that denies.",
            )


@rule("dns-off", "The VPC does not resolve names", layer=Layer.NETWORK, source=VPC + "vpc-dns.html")
def dns_off(facts: Facts) -> Found:
    if facts.dns is False:
        vpc = next((subnet.vpc for subnet in _existing(facts)), "")
        text = f"enableDnsSupport is off in {vpc or 'the VPC'}."
        command = ("ec2", "modify-vpc-attribute", "--enable-dns-support", "--vpc-id", vpc)
        yield Evidence(
            text,
            fix=aws(facts, *command) if vpc else "",
            step="" if vpc else "Turn on DNS resolution of the VPC, in the VPC console.",
        )


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


def _other_subnets(facts: Facts) -> str:
    """Return how to leave out the subnets without a route, empty where no other is left."""
    working = [subnet.id for subnet in _existing(facts) if _open(subnet)]
    if not working:
        return ""
    return f"Or use only the others: {deploy(facts, *repeated('--subnet-id', working))}"


def _existing(facts: Facts) -> list[Subnet]:
    return [subnet for subnet in facts.subnets or () if subnet.exists]


def _open(subnet: Subnet) -> bool:
    """Tell whether the routes lead an instance in it to the internet."""
    return (
        bool(subnet.route)
        and subnet.route_works
        and (subnet.public or not subnet.route.startswith("igw-"))
    )


def _cut_off(facts: Facts) -> list[Subnet]:
    """Return the subnets without a route to the internet; none if endpoints are unknown."""
    if facts.endpoints is None:
        return []
    return [subnet for subnet in _existing(facts) if not _open(subnet)]


def _endpoints(facts: Facts, subnet: Subnet) -> set[str]:
    return {
        endpoint.service
        for endpoint in facts.endpoints or ()
        if endpoint.vpc == subnet.vpc
        and endpoint.state == "available"
        and endpoint.private_dns
        and endpoint.service in NEEDED
    }


def _hosts(facts: Facts) -> list[str]:
    """Return the registries' hosts: of the secrets and of the image."""
    hosts = [secret.host for secret in facts.secrets or () if secret.host]
    hosts += [facts.image.registry] if facts.image and facts.image.registry else []
    return sorted({"index.docker.io" if host in (HUB, "docker.io") else host for host in hosts})


def _port(host: str) -> int:
    port = host.rpartition(":")[2]
    return int(port) if port.isdecimal() and port != host else 443


def _outward(target: str) -> bool:
    """Tell whether a rule's target covers more than private addresses."""
    try:
        network = ipaddress.ip_network(target)
    except ValueError:
        return target.startswith("pl-")  # what is in it is unknown
    return isinstance(network, ipaddress.IPv4Network) and not any(
        network.subnet_of(private) for private in PRIVATE
    )


def _passes(rules: tuple[AclRule, ...], egress: bool, port: int) -> bool:
    """Follow a network ACL as EC2 does: the first rule by number that fits decides."""
    for one in sorted(rules, key=lambda one: one.number):
        if (
            one.egress == egress
            and one.protocol in ("-1", "6")
            and ":" not in one.target
            and one.first <= port <= one.last
            and ipaddress.ip_address(ANY_ADDRESS) in ipaddress.ip_network(one.target)
        ):
            return one.allows
    return False
