"""How the embedded AWS asks ministack's own services, and finds what they keep.

Only the embedded AWS's own process imports this.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Data = dict[str, Any]


def ask(function: Callable[[Data], Any], request: Data) -> Data:
    """Call one of ministack's own functions, and raise what it answers as an error."""
    status, _, body = function(request)
    answer: Data = json.loads(body)
    if status >= 400:
        raise ValueError(answer["message"])
    return answer


def name_in(reference: str) -> str:
    """Return the name in a name or an ARN."""
    return reference.rsplit("/", 1)[-1]


def find(store: Any, reference: str) -> Data:
    record: Data | None = store.get(name_in(reference))
    if record is None:
        raise ValueError(f"Object does not exist: {reference}")
    return record
