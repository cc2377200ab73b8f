"""Redacts what is secret from what is shown, wherever it may have come from."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

T = TypeVar("T")

LEAST = 4  # characters; a shorter password would redact half of the text
PUBLIC = ("registry_url", "url", "registry", "username", "user", "login", "email")


def words(text: str) -> tuple[str, ...]:
    """Return what must not be shown of a secret's text, in the forms in which it may appear."""
    try:
        fields = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        fields = text.strip()
    found = set(_strings(fields))
    if isinstance(fields, dict):
        for key in ("password", "accessToken"):  # of an instance's secret, and of ECR's
            if key in fields:
                pair = f"{fields.get('username')}:{fields[key]}"
                found.add(base64.b64encode(pair.encode()).decode())
    return tuple(sorted((word for word in found if len(word) >= LEAST), key=len, reverse=True))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key not in PUBLIC:
                yield from _strings(item)


def without(value: Any, secret: tuple[str, ...]) -> Any:
    """Return `value` with `secret` redacted from every text in it, however deep."""
    if isinstance(value, str):
        for word in secret:
            value = value.replace(word, "********")
        return value
    if isinstance(value, tuple):
        return tuple(without(item, secret) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(
            value,
            **{field.name: without(getattr(value, field.name), secret) for field in fields(value)},
        )
    return value


def without_changing(value: T, secret: tuple[str, ...], judge: Callable[[T], object]) -> T:
    """Return `value` with `secret` redacted where that leaves what `judge` makes of it as it is.

    A word that changes it is one of AWS's or of a registry's own, such as "denied", which tells
    nothing of a password that happens to be the same; asterisks in its place would.
    """
    before = judge(value)
    for word in secret:
        shown: T = without(value, (word,))
        if judge(shown) == before:
            value = shown
    return value
