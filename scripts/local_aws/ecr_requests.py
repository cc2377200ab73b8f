"""What requests to ECR may hold, and its errors.

Only the embedded AWS's own process imports this.
"""

from __future__ import annotations

import functools
import json
import re
from typing import Any

from botocore.loaders import Loader
from botocore.model import ServiceModel


class EcrError(ValueError):
    """A request that ECR answers with an error; ValueError, which CloudFormation reports as well."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@functools.cache
def shape_of(action: str) -> Any:
    model = ServiceModel(Loader().load_service_model("ecr", "service-2"), "ecr")
    return model.operation_model(action).input_shape


def check(shape: Any, value: Any, where: str = "") -> None:
    """Refuse what AWS's own model of the request does not allow."""
    if shape.type_name == "structure":
        for name in shape.required_members:
            if name not in value:
                raise _violation("null", _join(where, name), "Member must not be null")
        for name, item in value.items():
            if name in shape.members:
                check(shape.members[name], item, _join(where, name))
    elif shape.type_name == "list":
        for item in value:
            check(shape.member, item, f"{where}.member")
    elif shape.type_name == "string":
        limits = shape.metadata
        if len(value) < limits.get("min", 0):
            least = limits["min"]
            raise _violation(
                value, where, f"Member must have length greater than or equal to {least}"
            )
        if len(value) > limits.get("max", len(value)):
            most = limits["max"]
            raise _violation(value, where, f"Member must have length less than or equal to {most}")
        if not re.fullmatch(limits.get("pattern", ".*"), value, re.DOTALL):
            pattern = limits["pattern"]
            raise _violation(
                value, where, f"Member must satisfy regular expression pattern: {pattern}"
            )
        if value not in (shape.enum or [value]):
            allowed = ", ".join(shape.enum)
            raise _violation(value, where, f"Member must satisfy enum value set: [{allowed}]")


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _violation(value: str, where: str, why: str) -> EcrError:
    return EcrError(
        "ValidationException",
        f"1 validation error detected: Value '{value}' at '{where}' failed to satisfy "
        f"constraint: {why}",
    )


def check_json(name: str, text: str) -> None:
    try:
        json.loads(text)
    except ValueError:
        raise EcrError(
            "InvalidParameterException",
            f"Invalid parameter at '{name}' failed to satisfy constraint: 'must be valid JSON'",
        ) from None
