"""Facts as a file: what `doctor --save` writes and `doctor --from` reads."""

from __future__ import annotations

import functools
import json
import types
import typing
from dataclasses import asdict, is_dataclass, replace
from typing import Any

from batchreg import __version__
from batchreg.doctor.facts import Facts
from batchreg.errors import BatchregError

FORMAT = "batchreg-facts-2"
OLDER = ("batchreg-facts-1",)  # knew of a subnet only where its default route leads


def dump(facts: Facts) -> str:
    """Return the facts as JSON text, without the profile, which is this user's own."""
    return json.dumps({"format": FORMAT, **asdict(replace(facts, profile=""))}, indent=1) + "\n"


def load(text: str, name: str) -> Facts:
    """Read what `dump` wrote; `name` is the file's, for the message of a BatchregError."""
    try:
        raw = json.loads(text)
        if (form := raw.pop("format")) in OLDER:
            raise BatchregError(
                f"{name} was written by doctor --save of an older batchreg, and batchreg "
                f"{__version__} cannot read it.",
                "Save the facts again with this version.",
            )
        if form != FORMAT:
            raise ValueError
        facts: Facts = _read(Facts, raw)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise BatchregError(
            f"{name} was not written by doctor --save of batchreg {__version__}.",
            "Save the facts again.",
        ) from None
    return facts


def _read(kind: Any, value: Any) -> Any:
    """Build a value of the type `kind` out of JSON; raises TypeError where it does not fit."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return _read(next(one for one in arguments if one is not type(None)), value)
    if origin is tuple:
        if not isinstance(value, list):
            raise TypeError
        if arguments[-1] is Ellipsis:
            return tuple(_read(arguments[0], item) for item in value)
        return tuple(_read(one, item) for one, item in zip(arguments, value, strict=True))
    if isinstance(kind, type) and is_dataclass(kind):
        known = _hints(kind)
        return kind(**{name: _read(known[name], item) for name, item in value.items()})
    if kind is float and isinstance(value, int):
        return float(value)
    if type(value) is not kind:
        raise TypeError
    return value


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)
