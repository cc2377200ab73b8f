"""What a registry's answers say: challenges, limits, platforms, tags."""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

from batchreg.registry.client import Failed
from batchreg.registry.images import Image

Headers = Mapping[str, str] | Any

ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = rf'({_TOKEN})\s*=\s*("(?:[^"\\]|\\.)*"|{_TOKEN})'


def challenges(headers: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return {scheme: parameters} of WWW-Authenticate headers, each with one challenge or more.

    The first of a scheme counts. Grammar: RFC 9110, section 11.6.1.
    """
    found: dict[str, dict[str, str]] = {}
    for header in headers:
        parameters: dict[str, str] = {}
        for match in re.finditer(rf"{_PARAMETER}|({_TOKEN})(?=\s|,|$)", header):
            name, value, scheme = match.groups()
            if scheme:
                parameters = {}
                found.setdefault(scheme.lower(), parameters)
            else:
                plain = re.sub(r"\\(.)", r"\1", value[1:-1]) if value[0] == '"' else value
                parameters.setdefault(name.lower(), plain)
    return found


def pulls_left(headers: Headers) -> dict[str, str]:
    """Return what Docker Hub says of its limit, {} where there is none.

    Only with a window, as in `100;w=21600`: other registries count requests under these names.
    """
    limit, left = (
        re.fullmatch(r"\s*(\d{1,9})\s*;\s*w=(\d{1,9})\s*", headers[name] or "")
        for name in ("ratelimit-limit", "ratelimit-remaining")
    )
    if not limit or not left:
        return {}
    return {"left": left[1], "text": f"{left[1]} of {limit[1]}"}


def retry_after(headers: Headers) -> int | None:
    """Return for how many seconds a Retry-After header asks, in either of its forms."""
    value = (headers["Retry-After"] or "").strip()
    if re.fullmatch(r"\d{1,9}", value):
        return int(value)
    try:
        return max(1, round(parsedate_to_datetime(value).timestamp() - time.time()))
    except (ValueError, OverflowError):
        return None


def duration(seconds: int) -> str:
    """Say it in the unit that people would choose."""
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def platforms(manifest: Mapping[str, Any], config: Callable[[str], dict[str, Any]]) -> list[str]:
    """Return the architectures that a manifest or an index has images for, [] where it tells none.

    `config` fetches an image's configuration by its digest. Raises Failed for what is no image.
    """
    entries = manifest.get("manifests")
    if isinstance(entries, list):
        found = [entry.get("platform") for entry in entries if isinstance(entry, dict)]
        return sorted({_platform(each) for each in found if isinstance(each, dict)} - {""})
    described = manifest.get("config")
    if isinstance(described, dict):
        digest = str(described.get("digest"))
        kind = str(described.get("mediaType"))
        if not re.fullmatch(r"application/vnd\.(docker\.container|oci)\.image\S*json", kind):
            raise Failed(
                "not-an-image",
                "It is no container image but something else that "
                "registries keep, such as a chart: push an image.",
            )
        if re.fullmatch(r"[a-z0-9]+:[0-9a-f]{32,128}", digest):
            name = _platform(config(digest))
            return [name] if name else []
    if manifest.get("schemaVersion") == 1:
        raise Failed(
            "not-an-image",
            "It is in the image format of 2015, which Docker no longer pulls: build it anew.",
        )
    raise Failed(
        "not-a-registry",
        "What the registry gives for it is no manifest: check the registry's host.",
    )


def _platform(described: Mapping[str, Any]) -> str:
    """Name a platform by its architecture; attestations have `unknown` there."""
    system, machine, variant = (
        str(described.get(name) or "") for name in ("os", "architecture", "variant")
    )
    if not re.fullmatch("[a-z0-9_]{1,20}", machine) or machine == "unknown":
        return ""
    if machine == "arm" and re.fullmatch("v[0-9]", variant):
        machine = f"arm/{variant}"
    return machine if system in ("linux", "") or not system.isalnum() else f"{system}/{machine}"


def wrong_architecture(there: Sequence[str], missing: Sequence[str]) -> Failed:
    have, lack = ", ".join(there), ", ".join(missing)
    builds = ",".join(f"linux/{name}" for name in missing)
    return Failed(
        "wrong-architecture",
        f"It is built for {have} and not for {lack}, which the "
        f"instances need: docker buildx build --platform {builds}, or choose other "
        "instance types.",
        architectures=have,
    )


def tags(answer: Mapping[str, Any]) -> list[str]:
    listed = answer.get("tags")
    return (
        [
            tag
            for tag in listed
            if isinstance(tag, str) and re.fullmatch(r"\w[\w.-]{0,127}", tag, re.ASCII)
        ]
        if isinstance(listed, list)
        else []
    )


def missing_tag(image: Image, where: str, repository: str, there: Sequence[str]) -> Failed:
    """Say that the tag is not there, and which ones are near it."""
    if image.digest:
        return Failed(
            "no-tag",
            f"{where} has no {image.digest[:19]}... in {repository}: it may "
            "have been deleted there; push it again, or name a tag.",
        )
    tag = image.tag or "latest"
    near = difflib.get_close_matches(tag, there, n=3, cutoff=0.5) or (
        sorted(there) if len(there) <= 5 else []
    )
    has = f"; it has {', '.join(near)}" if near else ""
    fact = f"{where} has no tag {tag} in {repository}{has}"
    if not image.tag:
        fact = f"The image is given without a tag, and {fact}"
    step = "take one of these, or push it" if near else "push it first"
    return Failed("no-tag", f"{fact}: {step}.", **({"near": ", ".join(near)} if near else {}))
