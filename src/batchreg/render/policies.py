"""Documents of IAM policies, for the templates of stacks and of companion stacks."""

from __future__ import annotations

from typing import Any


def document(*statements: dict[str, Any]) -> dict[str, Any]:
    """Return a policy document with these statements."""
    return {"Version": "2012-10-17", "Statement": list(statements)}


def allow(action: str | list[str], **rest: Any) -> dict[str, Any]:
    """Return a statement that allows an action, or several; `rest`: Resource, Principal and so on."""
    return {"Effect": "Allow", "Action": action, **rest}
