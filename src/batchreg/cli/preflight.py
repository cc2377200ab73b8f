"""The checks of a deploy before it changes anything: which ones, and what becomes of their answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from batchreg.cli.check import after
from batchreg.cli.console import AnyScreen
from batchreg.cli.target import Target
from batchreg.errors import BatchregError
from batchreg.registry_login import HUB, registry_key
from batchreg.render.parts import conflicts
from batchreg.render.settings import suffix
from batchreg.stack import cache_checks, preflight
from batchreg.stack.plan import Plan
from batchreg.stack.preflight import Check, Problem


def require_ready(
    target: Target,
    plan: Plan,
    user_data: Path | None,
    screen: AnyScreen,
    *,
    check: bool,
    force: bool,
) -> None:
    """Show every problem of a plan; BatchregError if one of them is certain.

    `user_data`: the file of the user's own part, if it is given now. Without `check` no registry is
    asked; with `force` the user's own part may do what it wants.
    """
    checks = list(_checks(target, plan, check))
    found = list(_own_part(user_data)) if user_data and not force else []
    if checks:
        with screen.waiting("Checking credentials, network, secrets and keys"):
            found += preflight.run(checks)
    for problem in found:
        screen.emit("problem", fact=problem.fact, step=problem.step, certain=problem.certain)
        if not problem.certain:
            screen.tell(f"Warning: {problem}")
    certain = [problem for problem in found if problem.certain]
    for problem in certain[:-1]:
        screen.problem(str(problem))
    if certain:
        last = certain[-1]
        # A step may end with a command, which a sentence after it would spoil.
        fact, step = (
            (str(last), "No changes were made.")
            if last.step.endswith(".")
            else (f"{last.fact} No changes were made.", last.step)
        )
        raise BatchregError(fact, step)


def _checks(target: Target, plan: Plan, check: bool) -> Iterator[Check]:
    """Yield the checks of what the plan sets; what the stack has already is in use."""
    present = plan.stack.parameters if plan.stack and plan.kept else {}
    given = {name: value for name, value in plan.parameters.items() if present.get(name) != value}
    network = [_listed(given.get(name, "")) for name in ("SubnetIDs", "SecurityGroupIDs")]
    if any(network):
        # Both sides: a new subnet must be in the VPC of the present groups.
        subnets, groups = (
            ids or _listed(present.get(name, ""))
            for ids, name in zip(network, ("SubnetIDs", "SecurityGroupIDs"), strict=True)
        )
        yield from preflight.network(target.session.client("ec2"), target.region, subnets, groups)
    if key := given.get("KmsKeyArn"):
        yield from preflight.key(target.session.client("kms"), target.region, key)
    if arns := plan.new_secrets:
        manager, kms = (target.session.client(name) for name in ("secretsmanager", "kms"))
        yield from preflight.secrets(manager, kms, target.region, arns)
    if plan.settings.cached:
        prefix = given.get("CachePrefix") or present.get("CachePrefix", "")
        outputs = plan.stack.outputs if plan.stack else {}
        ecr = target.session.client("ecr")
        yield from cache_checks.checks(ecr, plan.settings, prefix, outputs)
    if check and not plan.settings.secret_arns:
        changed = {
            registry_key(given.get(f"RegistryUrl{n}") or present.get(f"RegistryUrl{n}") or HUB)
            for n in map(suffix, plan.settings.slots)
            if given.keys() & {f"RegistryUrl{n}", f"Username{n}", f"Password{n}"}
        }
        if changed:
            known = after(plan, target.session).credentials
            usable = {
                key: them
                for key, them in known.items()
                if key in changed and them.username and them.password
            }
            yield from preflight.credentials(usable)


def _own_part(path: Path) -> Iterator[Problem]:
    try:
        raw = path.read_bytes()
    except OSError:  # an empty value takes the part away; anything else has been read before
        return
    for conflict in conflicts(raw):
        yield Problem(
            f"{path}, {conflict}",
            "Instances would not join their cluster. Correct the line, or confirm it with --force.",
        )


def _listed(text: str) -> Sequence[str]:
    return [item for item in text.split(",") if item]
