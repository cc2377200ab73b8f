"""Image names, read as Docker and the ECS agent read them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from batchreg.errors import BatchregError

# github.com/distribution/reference: a host has a dot or a port, or is localhost; a path is lower
# case; a tag or a digest may follow.
_PATH = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
_NAME = r"[A-Za-z0-9]+(-+[A-Za-z0-9]+)*"
_IMAGE = re.compile(
    rf"((?P<host>localhost(:[0-9]+)?|{_NAME}(\.{_NAME})+(:[0-9]+)?|{_NAME}:[0-9]+)/)?"
    rf"(?P<path>{_PATH}(/{_PATH})*)"
    r"(:(?P<tag>\w[\w.-]{0,127}))?(@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)
MOST_CHARACTERS = 255  # of ContainerProperties.image, in the API reference of AWS Batch
_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")


@dataclass(frozen=True)
class Image:
    """An image's parts. `registry` is a host, `docker.io` for Docker Hub.

    `tag` and `digest` are empty if the name has none.
    """

    name: str
    registry: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def on_hub(self) -> bool:
        return self.registry in _HUB


# Graviton families have a g after the number of their generation, as c7gn has; the first was a1.
_GRAVITON = re.compile(r"a1\b|[a-z]+-?[0-9]+g|default_arm64")


def architectures(instance_types: Sequence[str]) -> tuple[str, ...]:
    """Return the architectures that an image needs to run on EC2 instance types or families."""
    arm = {bool(_GRAVITON.match(name.strip())) for name in instance_types if name.strip()}
    return tuple("arm64" if one else "amd64" for one in sorted(arm or {False}))


def parse(name: str) -> Image:
    """Return the parts of an image's name; BatchregError if it is not one."""
    found = _IMAGE.fullmatch(name)
    if not found:
        after = name.partition("@")[2]
        if after and not after.lower().startswith("sha256:"):
            raise BatchregError(  # not quoted: a password may be before the @
                "The image's name has an @ without a digest after it.",
                "Write it like ghcr.io/lab/align:3, without a user name and a password.",
            )
        hint = ", without a scheme" if "://" in name else ""
        hint = hint or (", in lower case" if name.lower() != name else "")
        raise BatchregError(
            f"{name!r} is not the name of an image.", f"Write it like ghcr.io/lab/align:3{hint}."
        )
    if len(name) > MOST_CHARACTERS:
        raise BatchregError(
            f"The image's name has {len(name)} characters; AWS Batch accepts {MOST_CHARACTERS}.",
            "Give it a shorter name.",
        )
    return Image(
        name, found["host"] or "docker.io", found["path"], found["tag"] or "", found["digest"] or ""
    )
