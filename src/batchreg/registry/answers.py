"""What a registry's responses mean: challenges, tokens, limits, tags."""

from __future__ import annotations

import difflib
import json
import re
import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

from batchreg.registry import problems
from batchreg.registry.images import Image
from batchreg.registry.problems import Problem

Headers = Mapping[str, str] | Any

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'[ \t]*({_TOKEN})=("(?:[^"\\]|\\.)*"|{_TOKEN})[ \t]*')


def challenges(headers: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return {scheme: parameters} of WWW-Authenticate headers, as the Docker Engine reads them.

    RFC 9110 (section 11.6.1) allows several challenges in one header, and blanks around `=`; Docker
    reads the first challenge, up to where its own grammar ends (distribution, authchallenge.go).
    """
    found: dict[str, dict[str, str]] = {}
    for header in headers:
        scheme = re.match(_TOKEN, header)
        if not scheme:
            continue
        parameters: dict[str, str] = {}
        rest = "," + header[scheme.end() :].lstrip(" \t")
        while rest.startswith(",") and (match := _PARAMETER.match(rest, 1)):
            name, value = match.groups()
            plain = re.sub(r"\\(.)", r"\1", value[1:-1]) if value[0] == '"' else value
            if not plain:
                break
            parameters[name.lower()] = plain
            rest = rest[match.end() :]
        found[scheme[0].lower()] = parameters
    return found


def token(body: bytes) -> str:
    """Return the token in a token server's answer; ValueError for what the engine cannot read.

    The engine decodes into typed fields, whose names may be in capitals, and ignores what follows
    the object (distribution, auth/session.go: getTokenResponse).
    """
    text = body.decode(errors="replace").lstrip(" \t\r\n")
    decoded, _ = json.JSONDecoder().raw_decode(text)
    if not isinstance(decoded, dict):
        raise ValueError
    fields = {name.lower(): value for name, value in decoded.items() if value is not None}
    strings = [fields.get(name, "") for name in ("access_token", "token", "refresh_token")]
    seconds, issued = fields.get("expires_in", 0), fields.get("issued_at", _EPOCH)
    if (
        not all(isinstance(one, str) for one in (*strings, issued))
        or type(seconds) is not int
        or abs(seconds) >= 1 << 63
        or not _RFC_3339.fullmatch(issued)
    ):
        raise ValueError
    found = str(strings[0] or strings[1])
    if not re.fullmatch("[!-~]+", found):
        raise ValueError
    return found


_EPOCH = "1970-01-01T00:00:00Z"
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d([.,]\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)


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
