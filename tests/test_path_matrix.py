"""Doctor's path and an independent simulator's packets agree in hundreds of networks."""

from __future__ import annotations

import collections

import pytest
from packets import UNKNOWN, outcome
from worlds import MATRIX, Choice, build, goals, label, seen

from batchreg.doctor.filters import State
from batchreg.doctor.findings import diagnose
from batchreg.doctor.path import Path, paths
from batchreg.doctor.rules.breaks import unknown_paths

# Which findings name a hop at which packets end.
CAUSES = {
    "security group": {"egress-closed"},
    "network ACL, outbound": {"acl-closed"},
    "route": {"no-route", "endpoints-missing", "endpoint-unusable", "no-route-to-registry"},
    "internet gateway": {"internet-gateway-detached"},
    "public address": {"no-public-address"},
    "network ACL of the next subnet, inbound": {"acl-closed"},
    "NAT gateway": {"nat-gateway-without-internet"},
    "security group of the endpoint": {"endpoint-closed"},
    "network ACL of the next subnet, beyond": {"acl-closed"},
    "network ACL, responses": {"acl-closed"},
}


def disagreement(choice: Choice) -> str:
    """Return where doctor and the simulator differ, empty where they agree."""
    world = build(choice)
    facts = seen(choice, world)
    by_name = {path.destination.name: path for path in paths(facts)}
    wanted = {goal.name: outcome(world, "subnet-a", goal) for goal in goals(choice)}
    if by_name.keys() != wanted.keys():
        return f"{[*by_name]} instead of {[*wanted]}"
    for name, stops in wanted.items():
        path = by_name[name]
        if not fits(path, stops):
            ends = [(hop.kind.value, hop.at) for hop in path.broken]
            return f"{name}: {path.state.value} {ends} {path.unknown}, not {stops}"
    causes = [finding.cause for finding in diagnose(facts)]
    broken = [stops for stops in wanted.values() if stops and UNKNOWN not in stops]
    if not broken and causes:
        return f"found {causes}, but nothing is broken"
    for stops in broken:
        if not any(CAUSES[kind] & {*causes} for kind, _ in stops):
            return f"found {causes}, not {stops}"
    firsts = {cause for stops in broken for kind, _ in stops for cause in CAUSES[kind]}
    if causes and causes[0] not in firsts:
        return f"found {causes[0]} first, not one of {firsts}"
    if any(UNKNOWN in stops for stops in wanted.values()) != bool(list(unknown_paths(facts))):
        return "what is not known is not told"
    return ""


def fits(path: Path, stops: set[tuple[str, str]]) -> bool:
    if UNKNOWN in stops:
        return path.state is State.UNKNOWN
    if not stops:
        return path.state is State.PASSES
    first = path.broken[0] if path.broken else None
    return first is not None and (first.kind.value, first.at) in stops


@pytest.mark.parametrize("part", range(20))
def test_doctor_and_the_packets_agree(part: int) -> None:
    """It reports nothing exactly when the packet arrives, and else where the packet ends."""
    for choice in MATRIX[part::20]:
        assert not disagreement(choice), label(choice)


def test_matrix_is_what_it_says() -> None:
    """Enough networks, of all kinds, in which packets arrive, end at each hop, or nobody knows."""
    assert len(MATRIX) >= 500
    ends: collections.Counter[str] = collections.Counter()
    for choice in MATRIX:
        world = build(choice)
        for goal in goals(choice):
            stops = outcome(world, "subnet-a", goal)
            ends.update({kind for kind, _ in stops} or {"arrives"})
    assert ends.keys() == {"arrives", "unknown", *CAUSES}
    assert min(ends.values()) >= 5, ends
