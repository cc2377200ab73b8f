"""What AWS says when a policy refuses a call, wherever its message turns up."""

from __future__ import annotations

import re
from dataclasses import dataclass

# docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html
EXPLICIT = re.compile(
    r"(?:user: (?P<who>\S+) is )?not authorized to perform:? (?P<action>[\w-]+:\w+)"
    r"(?: on resource: (?P<resource>\S+))?.{0,200}?with an explicit deny in an? "
    r"(?P<policy>[\w -]+?(?: policy|boundary))",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Refusal:
    """A call that a policy explicitly denies. `policy`: its kind, such as "service control policy"."""

    who: str
    action: str
    resource: str
    policy: str


def explicit(text: str) -> Refusal | None:
    """Return the explicit deny that a message of AWS's reports, None for any other text."""
    found = EXPLICIT.search(text)
    if not found:
        return None
    who, resource = (found["who"] or "").split("/"), (found["resource"] or "").strip("\"'.,")
    return Refusal(
        # A session of a role: arn:aws:sts::111122223333:assumed-role/ROLE/SESSION.
        who=who[1] if len(who) > 1 else "",
        action=found["action"],
        resource=resource,
        policy=found["policy"].lower(),
    )
