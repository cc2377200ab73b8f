"""Policies of IAM and of resources: whom they name, and what ECR's say about a pull.

Source: docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements.html
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import unquote

from batchreg.doctor import facts
from batchreg.render.upstreams import FIRST_PULL

TOKEN = "ecr:GetAuthorizationToken"  # the name of an action
READING = ("ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")

Statement = Mapping[str, Any]


def document(policy: Any) -> dict[str, Any]:
    """Return a policy; boto3 decodes it, AWS sends it quoted."""
    parsed: dict[str, Any] = json.loads(unquote(policy)) if isinstance(policy, str) else policy
    return parsed


def statements(policy: Any) -> list[Statement]:
    """Return the statements of a policy, of which there may be one without a list, or none."""
    found = document(policy or "{}").get("Statement", [])
    return [found] if isinstance(found, dict) else found


def listed(value: Any) -> list[str]:
    """Return what a policy may write as one text or as a list of texts."""
    return [value] if isinstance(value, str) else list(value)


def names(statement: Statement, *principals: str) -> bool:
    """Tell whether a statement is about one of these principals, or about everyone."""
    named = statement.get("Principal") or {}
    named = named.get("AWS", []) if isinstance(named, dict) else named
    return bool({*principals, "*"} & {*listed(named)})


def covers(statement: Statement, action: str) -> bool:
    """Tell whether a statement is about an action; IAM compares them without regard to case."""
    patterns = listed(statement.get("Action", []))
    return any(fnmatchcase(action.lower(), one.lower()) for one in patterns)


def _is_about(statement: Statement, resource: str) -> bool:
    """Tell whether a statement is about a resource; one of a repository need not name it."""
    return any(fnmatchcase(resource, one) for one in listed(statement.get("Resource", "*")))


@dataclass(frozen=True)
class OfEcr:
    """The policies of ECR's registry and of repositories by ARN; empty where there is none.

    None where it could not be looked at. A repository that does not exist has no policy.
    """

    registry: str | None = ""
    repositories: Mapping[str, str | None] = field(default_factory=dict)

    def grant(self, role: str, refused: facts.Denial) -> bool:
        """Tell whether they grant what no policy of the role does, or may do so.

        The registry's grants the two permissions of a first pull, a repository's the others.
        Source: docs.aws.amazon.com/AmazonECR/latest/userguide/pull-through-cache-iam.html
        """
        if refused.action == TOKEN:
            return False
        known = [] if refused.action in READING else [self.registry]
        known += [] if refused.action == "ecr:CreateRepository" else self.repositories.values()
        if None in known:
            return True  # nobody knows
        return any(
            one.get("Effect") == "Allow"
            and (names(one, role, _root(role), _account(role)) or "NotPrincipal" in one)
            and (covers(one, refused.action) or "NotAction" in one)
            for policy in known
            for one in statements(policy)
        )

    def denials(self, role: str) -> Iterator[facts.Denial]:
        """Yield what the repositories' policies certainly deny the role."""
        for repository, policy in self.repositories.items():
            denying = [
                one
                for one in statements(policy)
                if one.get("Effect") == "Deny"
                and not one.get("Condition")
                and names(one, role, _root(role), _account(role))
                and _is_about(one, repository)
            ]
            for action in (*READING, FIRST_PULL[0]):
                if any(covers(one, action) for one in denying):
                    yield facts.Denial(action=action, resource=repository, by="resource")


def _account(role: str) -> str:
    return role.split(":")[4] if role.startswith("arn:") else ""


def _root(role: str) -> str:
    return ":".join([*role.split(":")[:5], "root"]) if role.startswith("arn:") else ""
