"""Manifests, indexes and configurations, read as the Docker Engine reads them.

Sources: github.com/moby/moby, distribution/pull_v2.go and distribution/registry.go; platforms:
github.com/containerd/containerd, platforms. What the engine refuses is refused here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchreg.registry import problems

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEXES, MANIFESTS = (OCI_INDEX, DOCKER_INDEX), (OCI_MANIFEST, DOCKER_MANIFEST)
ACCEPT = ", ".join(INDEXES + MANIFESTS)

# The types of an image's configuration; those without a vendor come from old registries.
CONFIGURATIONS = (
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
    "application/octet-stream",
    "application/json",
    "text/html",
    "",
)
DIGEST = re.compile("sha256:[0-9a-f]{64}")

# Other names of an architecture, and the variants that mean nothing special.
ALIASES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386"}
PLAIN = {("amd64", "v1"), ("arm64", "v8"), ("arm64", "8")}


@dataclass(frozen=True)
class Entry:
    """An image of an index: for which platform, as in "amd64" or "arm/v7", and its digest."""

    platform: str
    digest: str


@dataclass(frozen=True)
class Manifest:
    """An image's manifest or, with `entries`, an index of manifests.

    `configuration`: digest of an image's configuration. `layers`: how many it has.
    """

    entries: tuple[Entry, ...] | None = None
    configuration: str = ""
    layers: int = 0


def parse(kind: str, body: bytes) -> Manifest:
    """Return what a manifest of the media type `kind` says; Problem if the engine refuses it."""
    fields = _object(body)
    if fields is None:
        raise problems.no_manifest()
    if fields.get("schemaVersion") == 1:
        raise problems.outdated_format()
    if kind not in INDEXES + MANIFESTS:
        raise problems.mislabeled()
    declared = fields.get("mediaType") or ("" if kind in (OCI_INDEX, OCI_MANIFEST) else None)
    if declared not in ("", kind):
        raise problems.mislabeled()
    if kind in INDEXES:
        if fields.get("config") is not None or fields.get("layers") is not None:
            raise problems.mislabeled()
        return Manifest(entries=tuple(map(_entry, _list(fields.get("manifests")))))
    if fields.get("manifests") is not None:
        raise problems.mislabeled()
    configuration = fields.get("config")
    if not isinstance(configuration, dict):
        raise problems.no_manifest()
    if (configuration.get("mediaType") or "") not in CONFIGURATIONS:
        raise problems.not_an_image()
    return Manifest(configuration=_digest(configuration), layers=len(_list(fields.get("layers"))))


def available(entries: Collection[Entry]) -> list[str]:
    """Return the platforms that an index has images for, without attestations."""
    return sorted({entry.platform for entry in entries} - {""})


def chosen(entries: Sequence[Entry], architectures: Collection[str]) -> list[Entry]:
    """Return what instances of these architectures pull: the first image that is for each."""
    first = {entry.platform: entry for entry in reversed(entries)}
    return [first[name] for name in architectures if name in first]


def runs(platform: str, architecture: str) -> bool:
    """Tell whether an image that is in no index can run there; one that names no platform can.

    The engine pulls such an image for whatever platform it is.
    """
    if (platform, architecture) in (("", architecture), ("386", "amd64")):
        return True
    return platform == architecture or platform.startswith(f"{architecture}/")


def platform_of(configuration: bytes, layers: int) -> str | None:
    """Return the platform that an image's configuration names, empty if it names none.

    Returns None for a configuration that does not fit an image with so many layers.
    """
    fields = _object(configuration)
    root = fields.get("rootfs") if fields else None
    listed = root.get("diff_ids") if isinstance(root, dict) else None
    if fields is None or not isinstance(listed, list) or len(listed) != layers:
        return None
    return platform(fields)


def platform(described: Mapping[str, Any]) -> str:
    """Name a platform as in "amd64", "arm/v7" or "windows/amd64"; empty if it is unknown."""
    system, machine, variant = (
        str(described.get(name) or "").lower() for name in ("os", "architecture", "variant")
    )
    machine = ALIASES.get(machine, machine)
    if (machine, variant) in PLAIN:
        variant = ""
    # Only what can be a platform is shown: other words of a registry might be a password.
    if (
        not re.fullmatch("[a-z0-9]{1,20}", machine)
        or not re.fullmatch("(v?[0-9]{1,2})?", variant)
        or not re.fullmatch("[a-z]{0,20}", system)
        or "unknown" in (machine, system)  # an attestation
    ):
        return ""
    name = f"{machine}/{variant}" if variant else machine
    return name if system in ("linux", "") else f"{system}/{name}"


def digest_of(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _list(value: object) -> list[dict[str, Any]]:
    """Return a list of objects; Problem for anything else but nothing."""
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise problems.no_manifest()
    return value


def _entry(fields: Mapping[str, Any]) -> Entry:
    described = fields.get("platform")
    name = platform(described) if isinstance(described, dict) and described else ""
    return Entry(name, _digest(fields))


def _digest(fields: Mapping[str, Any]) -> str:
    digest = fields.get("digest")
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise problems.no_manifest()
    return digest
