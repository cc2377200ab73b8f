"""Properties of CloudFormation's resources as the requests that make them."""

from __future__ import annotations

import re
from typing import Any


def convert(shape: Any, value: Any, where: str) -> Any:
    """Follow botocore's model: its names, its lists and numbers, and nothing it does not know."""
    kind = shape.type_name
    if kind == "structure":
        names = {name.lower(): name for name in shape.members}
        for key in value:
            if key.lower() not in names:
                raise _misfit(where, f"extraneous key [{key}] is not permitted")
        named = {names[key.lower()]: item for key, item in value.items()}
        for name in shape.required_members:
            if name not in named:
                raise _misfit(where, f"required key [{name[0].upper()}{name[1:]}] not found")
        return {
            name: convert(shape.members[name], item, f"{where}/{name}")
            for name, item in named.items()
        }
    if kind == "list":
        items = [item.strip() for item in value.split(",")] if isinstance(value, str) else value
        return [convert(shape.member, item, f"{where}/{n}") for n, item in enumerate(items)]
    if kind == "map":
        return {key: convert(shape.value, item, f"{where}/{key}") for key, item in value.items()}
    text = as_text(value)
    if kind == "boolean" and text in ("true", "false"):
        return text == "true"
    if kind in ("integer", "long") and re.fullmatch(r"-?\d+", text):
        return int(text)
    if kind == "string" and isinstance(value, (str, int, float)):
        if text in (shape.enum or [text]):
            return text
        raise _misfit(where, f"{text} is not a valid enum value")
    raise _misfit(where, f"expected type: {kind.title()}, found: {type(value).__name__}")


def _misfit(where: str, why: str) -> ValueError:
    return ValueError(f"Model validation failed ({where}: {why})")


def as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
