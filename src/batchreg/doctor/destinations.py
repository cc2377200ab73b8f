"""What the instances have to reach: services of AWS and registries, and where these may be."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from batchreg.doctor.facts import Facts
from batchreg.doctor.filters import PUBLIC, Block, block, blocks, is_private
from batchreg.errors import BatchregError
from batchreg.registry import images
from batchreg.registry.names import host_of
from batchreg.registry_login import HUB

# What every instance talks to. Sources: docs.aws.amazon.com/AmazonECS/latest/developerguide/
# vpc-endpoints.html for the ECS agent; the jobs' log driver, which is awslogs by default.
ALWAYS = ("ecs", "ecs-agent", "ecs-telemetry", "logs")
# docs.aws.amazon.com/AmazonECR/latest/userguide/vpc-endpoints.html: layers are in S3.
OF_ECR = ("ecr.api", "ecr.dkr", "s3")
# The names under which these are reached, where they are not the service's own.
NAMES = {"ecs-agent": "ecs-a-1", "ecs-telemetry": "ecs-t-1", "ecr.api": "api.ecr"}

ECR = re.compile(r"\d+\.dkr\.ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?")
# Registries that are on the internet for everyone, whoever asks for their address.
WELL_KNOWN = re.compile(
    r"([a-z0-9-]+\.)*(docker\.(io|com)|ghcr\.io|gitlab\.com|quay\.io|jfrog\.io|nvcr\.io|gcr\.io|"
    r"pkg\.dev|azurecr\.io|mcr\.microsoft\.com|ecr\.aws|"
    r"dkr\.ecr(-fips)?\.[a-z0-9-]+\.amazonaws\.com(\.cn)?)"
)


@dataclass(frozen=True)
class Destination:
    """A destination on a TCP port. `service` is empty for a registry.

    Of the `alternatives` one has to be reached; each is somewhere in its blocks. `hidden`: inside
    the VPC its name may have a private address that this machine does not know.
    """

    name: str
    port: int
    alternatives: tuple[tuple[Block, ...], ...]
    service: str = ""
    hidden: bool = False


def needed(facts: Facts) -> list[Destination]:
    """Return what the instances have to reach, the services of AWS first."""
    known = {host.name: host.addresses for host in facts.hosts or ()}
    hosts = registries(facts)
    services = [*ALWAYS[:3], *(["secretsmanager"] if _fetches(facts) else []), ALWAYS[3]]
    if facts.cache_rules or any(_in_this_region(host, facts.region) for host in hosts):
        services += OF_ECR  # which itself reaches the registries that it pulls from
    found = [_service(facts, name, known.get(name, ())) for name in services]
    found += [
        _registry(host, known.get(host, ()))
        for host in hosts
        if not _in_this_region(host, facts.region)
    ]
    return found


def registries(facts: Facts) -> list[str]:
    """Return the registries' hosts, as `needed` names them: of the secrets and of the images."""
    names = [secret.host for secret in facts.secrets or () if secret.host and not secret.cached]
    names += [facts.image.registry] if facts.image and facts.image.registry else []
    names += of_images(job.image for job in facts.jobs or () if job.stuck)
    return hosts(names)


def hosts(names: Iterable[str]) -> list[str]:
    """Return each host once, Docker Hub by its name, without those that stay on the instance."""
    found = {host_of(HUB) if name in (HUB, "docker.io") else name for name in names}
    return sorted(name for name in found if not _stays(name))


def of_images(names: Iterable[str]) -> Iterator[str]:
    """Yield the registries of images, without those whose names are not valid."""
    for name in filter(None, names):
        try:
            yield images.parse(name).registry
        except BatchregError:
            continue


def service_host(service: str, region: str, suffix: str) -> str:
    """Return the name under which a service is reached; ECR's dkr has one for each account."""
    return f"{NAMES.get(service, service)}.{region}.{suffix}"


def split_port(host: str) -> tuple[str, int]:
    """Return a registry's host and its port."""
    name, colon, port = host.rpartition(":")
    return (name, int(port)) if colon and port.isdecimal() else (host, 443)


def _service(facts: Facts, name: str, addresses: tuple[str, ...]) -> Destination:
    listed = [one for one in facts.prefix_lists or () if one.service == name]
    # A private address is that of an endpoint, in the VPC of this machine.
    public = [one for one in blocks(addresses) if not is_private(one[0])]
    if listed and listed[0].cidrs:
        alternatives: tuple[tuple[Block, ...], ...] = (blocks(listed[0].cidrs),)
    else:
        alternatives = tuple((one,) for one in public) or (PUBLIC,)
    return Destination(name, 443, alternatives, service=name)


def _registry(host: str, addresses: tuple[str, ...]) -> Destination:
    name, port = split_port(host)
    literal = block(name)
    if literal:
        return Destination(host, port, ((literal,),))
    well_known = host == host_of(HUB) or bool(WELL_KNOWN.fullmatch(name))
    found = blocks(addresses)
    alternatives = tuple((one,) for one in found) or (PUBLIC,)
    inside = any(is_private(one[0]) for one in found)
    return Destination(host, port, alternatives, hidden=not (well_known or inside))


def _in_this_region(host: str, region: str) -> bool:
    found = ECR.fullmatch(host)
    return found is not None and found["region"] == region


def _stays(host: str) -> bool:
    name = split_port(host)[0]
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _fetches(facts: Facts) -> bool:
    template = facts.launch_template
    return any(not secret.cached for secret in facts.secrets or ()) or bool(
        template and template.exists and template.fetches_credentials
    )
