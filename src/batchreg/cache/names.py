"""What images are called when ECR's pull-through cache pulls them.

The path of an image follows the prefix of its registry's rule, and Docker Hub's official images need
`library/`. ECR accepts the characters that Docker accepts in a path, and repository names of up to
256 characters, more than the whole name may have in AWS Batch.
Source: docs.aws.amazon.com/AmazonECR/latest/userguide/pull-through-cache-working-pulling.html, and
`repositoryName` in the API reference of CreateRepository.
"""

from __future__ import annotations

from dataclasses import dataclass

from batchreg.registry.images import MOST_CHARACTERS, Image, parse
from batchreg.registry.names import host_of
from batchreg.registry_login import HUB


@dataclass(frozen=True)
class Cached:
    """A registry that ECR pulls from.

    `key`: the ECS agent's key for it. `prefix`: what its repositories in ECR start with, such as
    `genomics/ghcr`.
    """

    key: str
    prefix: str

    @property
    def host(self) -> str:
        """The host as images name it."""
        return "docker.io" if self.key == HUB else self.key


@dataclass(frozen=True)
class Cache:
    """The registries that ECR pulls from for a stack. `host`: of ECR, in the stack's region."""

    host: str
    registries: tuple[Cached, ...] = ()

    def registry_of(self, image: Image) -> Cached | None:
        """Return the cached registry that an image is in; None if its registry is not cached."""
        key = HUB if image.on_hub else image.registry
        return next((one for one in self.registries if one.key == key), None)


def cached_name(image: str, cache: Cache) -> str | None:
    """Return the name by which ECR pulls an image; None if it does not: `reason` says why.

    Raises BatchregError for what is not the name of an image.
    """
    name = _cached_name(parse(image), cache)
    return name if name and len(name) <= MOST_CHARACTERS else None


def reason(image: str, cache: Cache) -> str:
    """Return, in a sentence, why an image has no cached name."""
    parsed = parse(image)
    if parsed.registry == cache.host:
        return "It is in ECR already."
    if name := _cached_name(parsed, cache):
        return f"With ECR's address it has {len(name)} characters; AWS Batch accepts {MOST_CHARACTERS}."
    hosts = ", ".join(host_of(one.key) for one in cache.registries)
    return f"The cache is for {hosts}, not for {parsed.registry}."


def upstream_name(image: str, cache: Cache) -> str | None:
    """Return what the registry itself calls an image with a cached name; None for other images."""
    parsed = parse(image)
    if parsed.registry != cache.host:
        return None
    for one in cache.registries:
        if parsed.path.startswith(f"{one.prefix}/"):
            return f"{one.host}/{image.removeprefix(f'{cache.host}/{one.prefix}/')}"
    return None


def _cached_name(image: Image, cache: Cache) -> str | None:
    """Return the name by which ECR would pull an image, however long; None if it does not."""
    registry = cache.registry_of(image)
    if not registry:
        return None
    official = "library/" if image.on_hub and "/" not in image.path else ""
    rest = image.name.removeprefix(f"{image.registry}/")
    return f"{cache.host}/{registry.prefix}/{official}{rest}"
