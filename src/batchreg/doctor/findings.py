"""From facts to findings: why the image does not come, the most likely cause first."""

from __future__ import annotations

from dataclasses import dataclass

from batchreg.doctor.facts import Facts
from batchreg.doctor.rules import ANY, Rule, hints, image, job, network, stack
from batchreg.doctor.rules import credentials as login

RULES: list[Rule] = [
    *stack.RULES,
    *login.RULES,
    *network.RULES,
    *image.RULES,
    *job.RULES,
    *hints.RULES,
]

MOST = 4  # pieces of evidence that are shown


@dataclass(frozen=True)
class Finding:
    """A cause with what shows it, and what to do: commands or console paths, one a line."""

    cause: str
    text: str
    evidence: tuple[str, ...]
    fix: tuple[str, ...]


def diagnose(facts: Facts) -> list[Finding]:
    """Return what is wrong, the most likely first; nothing where all is well."""
    found: dict[str, tuple[str, list[str], list[str]]] = {}
    for rule in RULES:
        if rule.unless & found.keys() or (found and ANY in rule.unless):
            continue
        for evidence, fix in rule.look(facts):
            _, seen, fixes = found.setdefault(rule.cause, (rule.text, [], []))
            seen.append(" ".join(evidence.split()))
            fixes.append(fix)
    return [
        Finding(cause, text, _some(seen), tuple(dict.fromkeys(fixes))[:MOST])
        for cause, (text, seen, fixes) in found.items()
    ]


def _some(evidence: list[str]) -> tuple[str, ...]:
    different = list(dict.fromkeys(evidence))
    more = len(different) - MOST
    return tuple(different if more <= 0 else [*different[:MOST], f"and {more} more"])


def looked_at(facts: Facts) -> list[tuple[str, str]]:
    """Return (what, how it is) for all that was looked at."""
    rows = []
    if facts.stack:
        rows.append((f"Stack {facts.stack.name}", facts.stack.status or "missing"))
    for kind, parts in (("Compute environment", facts.environments), ("Job queue", facts.queues)):
        rows += [
            (f"{kind} {part.name}", f"{part.status}, {part.state}" if part.exists else "missing")
            for part in parts or ()
        ]
    if facts.jobs is not None:
        rows += [(job.label, job.status or "missing") for job in facts.jobs] or [
            ("Jobs", "none waits, and none failed within the last hour")
        ]
    if facts.launch_template:
        template = facts.launch_template
        rows.append((f"Launch template {template.id}", f"version {template.version}"))
    for secret in facts.secrets or ():
        rows.append(
            (
                f"Secret {secret.name}",
                f"changed {secret.changed}"
                if secret.changed
                else "there"
                if secret.exists
                else "missing",
            )
        )
    if facts.role:
        rows.append(
            (
                f"Role {facts.role.name}",
                f"{len(facts.role.denied)} permissions missing"
                if facts.role.denied
                else "has its permissions",
            )
        )
    if facts.service_linked_role is not None:
        rows.append(("AWSServiceRoleForBatch", "there" if facts.service_linked_role else "missing"))
    for subnet in facts.subnets or ():
        rows.append((f"Subnet {subnet.id}", subnet.route or "no default route"))
    if facts.egress is not None:
        rows.append(("Security groups", f"{len(facts.egress)} outgoing rules"))
    if facts.endpoints is not None:
        rows.append(("VPC endpoints", ", ".join(one.service for one in facts.endpoints) or "none"))
    if facts.instances is not None:
        agents = sum(instance.agent is True for instance in facts.instances)
        rows.append(("Instances", f"{len(facts.instances)}, {agents} with a connected agent"))
    if facts.launch_failures is not None:
        rows.append(("Auto Scaling", f"{len(facts.launch_failures)} failures"))
    if facts.quota:
        rows.append((facts.quota.name, f"{facts.quota.value:g} vCPUs"))
    if facts.image:
        rows.append((f"Image {facts.image.image}", facts.image.cause))
    return rows
