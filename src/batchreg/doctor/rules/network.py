"""From the instances to AWS and to the registry."""

from __future__ import annotations

import ipaddress
import re

from batchreg.doctor.facts import AclRule, Facts, Subnet
from batchreg.doctor.rules import Found, Table, deploy
from batchreg.registry_login import HUB

RULES = Table()
rule = RULES.rule

# What an instance talks to before and while it runs a job.
# Sources: docs.aws.amazon.com/AmazonECS/latest/developerguide/vpc-endpoints.html for the first
# three; registry_login; the jobs' log driver.
NEEDED = ("ecs", "ecs-agent", "ecs-telemetry", "secretsmanager", "logs")
PUBLIC = re.compile(
    r"([a-z0-9-]+\.)*(docker\.(io|com)|ghcr\.io|gitlab\.com|quay\.io|jfrog\.io|nvcr\.io|gcr\.io|"
    r"pkg\.dev|azurecr\.io|mcr\.microsoft\.com)"
)
PRIVATE = [
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
]
SOMEWHERE = "1.1.1.1"  # any address of the internet
EPHEMERAL = (32768, 60999)  # where Linux expects answers: net.ipv4.ip_local_port_range


@rule("subnet-missing", "A subnet of the compute environment is gone")
def subnet_missing(facts: Facts) -> Found:
    for subnet in facts.subnets or ():
        if not subnet.exists:
            yield f"EC2 knows no subnet {subnet.id}.", deploy(facts, "--subnet-id ID")


@rule("group-missing", "A security group of the compute environment is gone")
def group_missing(facts: Facts) -> Found:
    for group in facts.groups_missing or ():
        yield f"EC2 knows no security group {group}.", deploy(facts, "--security-group-id ID")


@rule("no-route", "The subnets have no way out")
def no_route(facts: Facts) -> Found:
    for subnet in _cut_off(facts):
        if (not subnet.route or not subnet.route_works) and not _endpoints(facts, subnet):
            why = f"leads to {subnet.route}, which is gone" if subnet.route else "is missing"
            yield (
                f"{subnet.id}: the default route {why}; there are no VPC endpoints.",
                (
                    "VPC console, Route tables: a route from 0.0.0.0/0 to a NAT or internet gateway; "
                    f"or other subnets: {deploy(facts, '--subnet-id ID')}"
                ),
            )


@rule("no-public-address", "The instances get no public address, and there is no NAT")
def no_public_address(facts: Facts) -> Found:
    for subnet in _cut_off(facts):
        if subnet.route and subnet.route_works and not _endpoints(facts, subnet):
            yield (
                f"{subnet.id} routes to {subnet.route} and assigns no public addresses.",
                f"aws ec2 modify-subnet-attribute --map-public-ip-on-launch --subnet-id {subnet.id}",
            )


@rule("endpoints-missing", "The subnets have no way to some services of AWS")
def endpoints_missing(facts: Facts) -> Found:
    for subnet in _cut_off(facts):
        has = _endpoints(facts, subnet)
        lacking = [service for service in NEEDED if service not in has]
        if has and lacking:
            yield (
                f"{subnet.id} has no way out, and {subnet.vpc} has no endpoint for "
                f"{', '.join(lacking)}.",
                (
                    "VPC console, Endpoints: one each for "
                    + ", ".join(f"com.amazonaws.{facts.region}.{service}" for service in lacking)
                ),
            )


@rule("no-route-to-registry", "The subnets reach AWS and not the registry")
def no_route_to_registry(facts: Facts) -> Found:
    public = [host for host in _hosts(facts) if PUBLIC.fullmatch(host)]
    for subnet in _cut_off(facts):
        if public and _endpoints(facts, subnet) >= set(NEEDED):
            yield (
                f"{subnet.id} has VPC endpoints alone, and {public[0]} is on the internet.",
                (
                    "VPC console, Route tables: a route from 0.0.0.0/0 to a NAT gateway; or a registry "
                    "inside the VPC that mirrors it"
                ),
            )


@rule("egress-closed", "The security groups let nothing out to AWS or the registry")
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
            yield (
                f"No outgoing rule allows TCP port {port} to {peer}.",
                (
                    "VPC console, Security groups, Outbound rules: allow TCP port "
                    f"{port}; or another group: {deploy(facts, '--security-group-id ID')}"
                ),
            )


@rule("acl-closed", "The network ACL stops the traffic")
def acl_closed(facts: Facts) -> Found:
    ports = sorted({443, *map(_port, _hosts(facts))})
    for subnet in _standing(facts):
        if subnet.acl_rules is None or (not _open(subnet) and _endpoints(facts, subnet)):
            continue  # what goes to endpoints stays inside the VPC
        stopped = [
            f"out to port {port}" for port in ports if not _passes(subnet.acl_rules, True, port)
        ]
        stopped += [
            f"answers in to port {port}"
            for port in EPHEMERAL
            if not _passes(subnet.acl_rules, False, port)
        ]
        if stopped:
            yield (
                f"{subnet.acl} of {subnet.id} denies {', '.join(stopped)}.",
                (
                    "VPC console, Network ACLs: allow TCP out to the port, and TCP in to ports "
                    "1024-65535"
                ),
            )


@rule("dns-off", "The VPC resolves no names")
def dns_off(facts: Facts) -> Found:
    if facts.dns is False:
        vpc = next((subnet.vpc for subnet in _standing(facts)), "VPC")
        yield (
            f"{vpc} has enableDnsSupport off.",
            f"aws ec2 modify-vpc-attribute --enable-dns-support --vpc-id {vpc}",
        )


@rule("no-free-addresses", "A subnet has no addresses left")
def no_free_addresses(facts: Facts) -> Found:
    for subnet in _standing(facts):
        if subnet.free == 0:
            yield (
                f"{subnet.id} has 0 free addresses.",
                deploy(facts, "--subnet-id ID") + " with larger or more subnets",
            )


def _standing(facts: Facts) -> list[Subnet]:
    return [subnet for subnet in facts.subnets or () if subnet.exists]


def _open(subnet: Subnet) -> bool:
    """Tell whether an instance there reaches the internet, as far as routes go."""
    return (
        bool(subnet.route)
        and subnet.route_works
        and (subnet.public or not subnet.route.startswith("igw-"))
    )


def _cut_off(facts: Facts) -> list[Subnet]:
    """Return the subnets without a way to the internet, none where endpoints are not known."""
    if facts.endpoints is None:
        return []
    return [subnet for subnet in _standing(facts) if not _open(subnet)]


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
        return target.startswith("pl-")  # nobody can tell what is in there
    return network.version == 4 and not any(network.subnet_of(private) for private in PRIVATE)  # type: ignore[arg-type]


def _passes(rules: tuple[AclRule, ...], egress: bool, port: int) -> bool:
    """Follow a network ACL as EC2 does: the first rule by number that fits decides."""
    for one in sorted(rules, key=lambda one: one.number):
        if (
            one.egress == egress
            and one.protocol in ("-1", "6")
            and ":" not in one.target
            and one.first <= port <= one.last
            and ipaddress.ip_address(SOMEWHERE) in ipaddress.ip_network(one.target)
        ):
            return one.allows
    return False
