"""What a registry's responses mean: challenges, limits, platforms, tags."""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

from batchreg.registry import problems
from batchreg.registry.images import Image
from batchreg.registry.problems import Problem

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


def pulls_left(headers: Headers) -> str:
    """Return what Docker Hub says of its limit, such as "87 of 200"; empty if it says nothing.

    Only with a window, as in `100;w=21600`: other registries count requests under these names.
    """
    limit, left = (
        re.fullmatch(r"\s*(\d{1,9})\s*;\s*w=(\d{1,9})\s*", headers[name] or "")
        for name in ("ratelimit-limit", "ratelimit-remaining")
    )
    return f"{int(left[1])} of {int(limit[1])}" if limit and left else ""


def retry_after(headers: Headers) -> int | None:
    """Return how many seconds a Retry-After header asks to wait, in either of its forms."""
    value = (headers["Retry-After"] or "").strip()
    if re.fullmatch(r"\d{1,9}", value):
        return int(value)
    try:
        return max(1, round(parsedate_to_datetime(value).timestamp() - time.time()))
    except (ValueError, OverflowError):
        return None


def platforms(manifest: Mapping[str, Any], config: Callable[[str], dict[str, Any]]) -> list[str]:
    """Return the architectures that a manifest or an index has images for, [] if it names none.

    `config` fetches an image's configuration by its digest. Raises Problem for anything else.
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
            raise problems.not_an_image()
        if re.fullmatch(r"[a-z0-9]+:[0-9a-f]{32,128}", digest):
            name = _platform(config(digest))
            return [name] if name else []
    if manifest.get("schemaVersion") == 1:
        raise problems.outdated_format()
    raise problems.no_manifest()


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


def tags(fields: Mapping[str, Any]) -> list[str]:
    """Return the names in a list of tags, without those that cannot be one."""
    listed = fields.get("tags")
    return [
        tag
        for tag in (listed if isinstance(listed, list) else [])
        if isinstance(tag, str) and re.fullmatch(r"\w[\w.-]{0,127}", tag, re.ASCII)
    ]


def missing_tag(image: Image, where: str, repository: str, there: Sequence[str]) -> Problem:
    """Say that the tag is missing, and which of those that are `there` are near it."""
    if image.digest:
        return problems.no_digest(where, repository, image.digest)
    near = difflib.get_close_matches(image.tag or "latest", there, n=3, cutoff=0.5)
    near = near or (sorted(there) if len(there) <= 5 else [])
    return problems.no_tag(where, repository, image.tag, near)
