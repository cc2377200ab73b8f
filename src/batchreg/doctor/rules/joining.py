"""Whether instances have joined their ECS cluster, and how long that may take."""

from __future__ import annotations

import re
from datetime import datetime

from batchreg.doctor.facts import Facts, Instance
from batchreg.doctor.rules import main
from batchreg.render.userdata import PATIENCE_SECONDS

# A machine boots, its user data runs, and the program may try for all of its patience.
BOOT_SECONDS = 120
JOIN_SECONDS = PATIENCE_SECONDS + BOOT_SECONDS

NONE_JOINED = r"INVALIDATED|none of the instances joined"  # as AWS Batch says it


def running(facts: Facts) -> list[Instance]:
    return [instance for instance in facts.instances or () if instance.state == "running"]


def late(facts: Facts) -> list[Instance]:
    """Return the instances that have had the time to join the cluster, and have not."""
    return [
        instance
        for instance in running(facts)
        if instance.agent is None
        and instance.agent_seen
        and age(instance.launched, facts) > JOIN_SECONDS
    ]


def none_joins(facts: Facts) -> bool:
    """Tell whether instances start and none joins: what may keep an agent from it then has."""
    if any(instance.agent and instance.agent_seen for instance in facts.instances or ()):
        return False
    environment = main(facts)
    invalidated = environment and environment.status == "INVALID" and environment.reason
    return bool(late(facts) or (invalidated and re.search(NONE_JOINED, invalidated, re.IGNORECASE)))


def age(since: str, facts: Facts) -> float:
    """Return how many seconds before the facts' time something was, 0 if that is unknown."""
    try:
        return (datetime.fromisoformat(facts.time) - datetime.fromisoformat(since)).total_seconds()
    except (ValueError, TypeError):
        return 0
