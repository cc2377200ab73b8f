"""The broken hops of all paths, put together: one hop may stop many subnets and destinations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from batchreg.doctor.facts import Facts, Row
from batchreg.doctor.filters import State
from batchreg.doctor.hops import Hop, Kind
from batchreg.doctor.path import Path, paths
from batchreg.doctor.topology import Endpoint, Subnet


@dataclass(frozen=True)
class Break:
    """A hop at which packets end, and the paths on which they come to it."""

    hop: Hop
    paths: tuple[Path, ...]

    @property
    def subnets(self) -> str:
        return listed(path.subnet.id for path in self.paths)

    @property
    def destinations(self) -> str:
        return listed(path.destination.name for path in self.paths)


@dataclass(frozen=True)
class CutOff:
    """A subnet from which no route leads to some destinations, and why not.

    `has_endpoints`: it reaches other services by VPC endpoints.
    """

    subnet: Subnet
    why: str
    services: tuple[str, ...]
    registries: tuple[str, ...]
    has_endpoints: bool


def listed(names: Iterable[str]) -> str:
    """Return "ecs, logs and ghcr.io"; each name once."""
    *some, last = dict.fromkeys(names)
    return f"{', '.join(some)} and {last}" if some else last


def breaks(facts: Facts, *kinds: Kind, by: Callable[[Hop], object]) -> Iterator[Break]:
    """Yield the broken hops of these kinds; those that are the same `by` something are one."""
    found: dict[object, list[tuple[Hop, Path]]] = {}
    for path in paths(facts):
        for hop in path.broken:
            if hop.kind in kinds:
                found.setdefault(by(hop), []).append((hop, path))
    for same in found.values():
        yield Break(same[0][0], tuple(path for _, path in same))


def without_route(facts: Facts) -> Iterator[tuple[Hop, Path]]:
    """Yield the paths on which a route table has no way on, with that hop."""
    for path in paths(facts):
        for hop in path.broken:
            if hop.kind is Kind.ACL_IN:
                break  # the packet does not get to the next route table
            if hop.kind is Kind.ROUTE:
                yield hop, path


def cut_off(facts: Facts) -> Iterator[CutOff]:
    """Yield the subnets without a route to some destinations that have no endpoint either."""
    found: dict[tuple[str, str], list[Path]] = {}
    for hop, path in without_route(facts):
        if not unusable_endpoint(facts, path):
            found.setdefault((path.subnet.id, hop.why), []).append(path)
    for (subnet, why), some in found.items():
        yield CutOff(
            subnet=some[0].subnet,
            why=why,
            services=tuple(path.destination.name for path in some if path.destination.service),
            registries=tuple(
                path.destination.name for path in some if not path.destination.service
            ),
            has_endpoints=any(
                path.endpoint or unusable_endpoint(facts, path)
                for path in paths(facts)
                if path.subnet.id == subnet
            ),
        )


def unusable_endpoint(facts: Facts, path: Path) -> Endpoint | None:
    """Return the interface endpoint that is meant for a path which does not lead through it."""
    meant = (path.destination.service, path.subnet.vpc, "Interface")
    return next(
        (
            one
            for one in facts.endpoints or ()
            if path.destination.service
            and not path.endpoint
            and (one.service, one.vpc, one.kind) == meant
        ),
        None,
    )


def unknown_paths(facts: Facts) -> Iterator[Row]:
    """Yield which paths are not known, and why."""
    found: dict[tuple[str, str], list[str]] = {}
    for path in paths(facts):
        if path.state is State.UNKNOWN:
            found.setdefault((path.subnet.id, path.unknown), []).append(path.destination.name)
    for (subnet, why), names in found.items():
        yield f"Path from {subnet} to {listed(names)}", why
