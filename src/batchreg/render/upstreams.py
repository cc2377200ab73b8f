"""The registries that ECR's pull-through cache can pull from.

Source: docs.aws.amazon.com/AmazonECR/latest/userguide/pull-through-cache.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from batchreg.render.constraints import DOCKER_HUB


@dataclass(frozen=True)
class Upstream:
    """A registry that ECR can pull from.

    `name`: ECR's word for it (UpstreamRegistry). `url`: its UpstreamRegistryUrl, a host. `short`:
    what follows the stack's prefix in the names of its cached images. `credentials`: whether ECR
    pulls with credentials; if not, it can pull public images only.
    """

    name: str
    url: str
    short: str
    credentials: bool = True


_BY_KEY = {
    DOCKER_HUB: Upstream("docker-hub", "registry-1.docker.io", "hub"),
    "ghcr.io": Upstream("github-container-registry", "ghcr.io", "ghcr"),
    "registry.gitlab.com": Upstream("gitlab-container-registry", "registry.gitlab.com", "gitlab"),
    "cgr.dev": Upstream("chainguard", "cgr.dev", "cgr"),
    "quay.io": Upstream("quay", "quay.io", "quay", credentials=False),
}
_AZURE = re.compile(r"([a-zA-Z0-9]{5,50})\.azurecr\.io")


def supported() -> str:
    """Return the registries that ECR can pull private images from, for a sentence."""
    return "Docker Hub, ghcr.io, registry.gitlab.com, cgr.dev and <name>.azurecr.io"


def upstream_of(key: str) -> Upstream | None:
    """Return what ECR knows the registry with this key as; None if ECR cannot pull from it."""
    if found := _BY_KEY.get(key):
        return found
    if _AZURE.fullmatch(key):
        return Upstream("azure-container-registry", key, "azure")
    return None


# China: aws.amazon.com/about-aws/whats-new/2023/11/
# amazon-ecr-pull-through-cache-additional-upstream-registries names it as an exception, and nothing
# later takes it back. It names GovCloud too, for whose Regions the user guide now describes rules
# (docs.aws.amazon.com/govcloud-us/latest/UserGuide/govcloud-ecr.html) and whose secrets the API
# accepts. The isolated Regions have no way to the internet, and so to no upstream.
_WITHOUT_RULES = {"cn-": "in China", "us-iso": "isolated", "eu-iso": "isolated"}


def unsupported(upstream: Upstream, region: str) -> str | None:
    """Return, in a sentence, why ECR cannot pull from an upstream in a region; None if it can."""
    for start, kind in _WITHOUT_RULES.items():
        if region.startswith(start):
            return (
                f"Amazon ECR cannot pull from {upstream.url} in {region}: Regions that are {kind} "
                "have no pull-through cache."
            )
    return None
