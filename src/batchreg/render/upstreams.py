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
