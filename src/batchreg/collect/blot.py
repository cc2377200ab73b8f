"""Keeps what is secret out of what is shown, wherever it may have come from."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

LEAST = 4  # characters; a shorter password would blot out half of the text


def words(logins: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield the passwords of (user name, password) in the forms in which they may turn up."""
    for username, password in logins:
        if len(password) >= LEAST:
            yield base64.b64encode(f"{username}:{password}".encode()).decode()
            yield password


def without(value: Any, secret: tuple[str, ...]) -> Any:
    """Return `value` with `secret` blotted out of every text in it, however deep."""
    if isinstance(value, str):
        for word in secret:
            value = value.replace(word, "********")
        return value
    if isinstance(value, tuple):
        return tuple(without(item, secret) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: without(getattr(value, field.name), secret)
                                 for field in fields(value)})
    return value
