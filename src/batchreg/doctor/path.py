"""The path of packets: which hops they take from a subnet to a destination and back.

    instance → security groups → network ACL → route → host
      the route leads to an internet gateway, which needs a public address;
      to a NAT gateway, which has a subnet, a route and a network ACL of its own;
      to a gateway endpoint; or inside the VPC, to an interface endpoint or a registry
    host → network ACL → instance, for the responses: security groups keep track of connections

One model serves all destinations. A hop that the facts do not show is UNKNOWN, never BROKEN; so is
a path that depends on which of its addresses a destination has.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache

from batchreg.doctor import destinations
from batchreg.doctor.destinations import Destination
from batchreg.doctor.facts import Facts
from batchreg.doctor.filters import PRIVATE, Block, State, block, blocks, pieces
from batchreg.doctor.hops import BROKEN, PASSES, UNKNOWN, Hop, Kind, Network, Target, not_known
from batchreg.doctor.topology import Endpoint, Subnet


@dataclass(frozen=True)
class Path:
    """The hops from a subnet to a destination, with the endpoint through which they lead."""

    subnet: Subnet
    destination: Destination
    state: State
    hops: tuple[Hop, ...]
    endpoint: Endpoint | None = None

    @property
    def broken(self) -> tuple[Hop, ...]:
        """The broken hops, the first first; empty where the packet arrives or nobody knows."""
        if self.state is not BROKEN:
            return ()
        return tuple(hop for hop in self.hops if hop.state is BROKEN)

    @property
    def unknown(self) -> str:
        """What cannot be known, empty for a path that is known."""
        if self.state is not UNKNOWN:
            return ""
        return next(hop.why for hop in self.hops if hop.state is UNKNOWN)


class _These:
    """Facts as a key: the same object, which is quicker to tell than equal facts."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts

    def __hash__(self) -> int:
        return id(self.facts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _These) and self.facts is other.facts


def paths(facts: Facts) -> tuple[Path, ...]:
    """Return the path from each subnet to each destination that the instances need."""
    return _paths(_These(facts))


@lru_cache(maxsize=8)
def _paths(these: _These) -> tuple[Path, ...]:
    facts = these.facts
    judge = _Judge(facts)
    needed = destinations.needed(facts)
    return tuple(
        judge.path(subnet, destination)
        for subnet in facts.subnets or ()
        if subnet.exists
        for destination in needed
    )


@dataclass(frozen=True)
class _Result:
    """What a packet meets; `hops` end where nobody knows how it goes on."""

    hops: tuple[Hop, ...]

    @property
    def state(self) -> State:
        states = {hop.state for hop in self.hops}
        # A hop that denies is certain even where another is not known.
        return BROKEN if BROKEN in states else UNKNOWN if UNKNOWN in states else PASSES

    @property
    def certain(self) -> set[tuple[Kind, str, bool]]:
        return {hop.key for hop in self.hops if hop.state is BROKEN}


class _Judge:
    """Sends packets to all addresses that matter, and says what comes of them."""

    def __init__(self, facts: Facts) -> None:
        self.facts, self.network = facts, Network(facts)
        self.found: dict[object, _Result] = {}  # many destinations share what decides

    def path(self, subnet: Subnet, destination: Destination) -> Path:
        if self.facts.launch_template and self.facts.launch_template.proxy:
            return self._unknown(subnet, destination, "the user data set a proxy")
        if subnet.ipv6_only:
            return self._unknown(subnet, destination, "the subnet has IPv6 alone")
        if destination.service and self.facts.endpoints is None:
            return self._unknown(subnet, destination, "the VPC endpoints were not looked at")
        endpoint = self.endpoint(subnet, destination.service)
        result = self.through(subnet, destination, endpoint)
        if endpoint and (doubt := self._doubt()):
            around = self.through(subnet, destination, None)
            if around.state is not result.state:
                result = _not_known(doubt)
        return Path(subnet, destination, result.state, result.hops, endpoint)

    def _doubt(self) -> str:
        """Say why the name of a service may not lead to its endpoint, empty where it does."""
        if self.facts.resolvers is None or self.facts.dns_hostnames is None:
            return "the VPC's DNS was not looked at"
        # The VPC's own name servers may know nothing of the endpoint.
        return f"{self.facts.resolvers[0]} resolves the names" if self.facts.resolvers else ""

    def _unknown(self, subnet: Subnet, destination: Destination, why: str) -> Path:
        return Path(subnet, destination, UNKNOWN, _not_known(why).hops)

    def endpoint(self, subnet: Subnet, service: str) -> Endpoint | None:
        """Return the interface endpoint to which a service's own name leads."""
        for one in self.facts.endpoints or ():
            if (
                service
                and (one.service, one.vpc, one.kind) == (service, subnet.vpc, "Interface")
                and one.state == "available"
                and one.private_dns
                and self.facts.dns_hostnames is not False
            ):
                return one
        return None

    def through(
        self, subnet: Subnet, destination: Destination, endpoint: Endpoint | None
    ) -> _Result:
        """Follow the packets to all alternatives; one that arrives is enough."""
        alternatives = self._alternatives(destination, endpoint)
        if endpoint and not alternatives:
            return _not_known(f"the subnets of {endpoint.id} were not looked at")
        results = [
            self.somewhere(subnet, where, destination.port, endpoint, far)
            for where, far in alternatives
        ]
        best = next(
            (one for state in (PASSES, UNKNOWN) for one in results if one.state is state), None
        )
        result = best or results[0]
        if endpoint or result.state is not BROKEN:
            return result
        if destination.hidden or (destination.service and self._leads_elsewhere(subnet)):
            inside = self.somewhere(subnet, PRIVATE, destination.port, None, None)
            if inside.state is not BROKEN:
                return _not_known("its name may lead to a private address")
        return result

    def _alternatives(
        self, destination: Destination, endpoint: Endpoint | None
    ) -> list[tuple[tuple[Block, ...], Subnet | None]]:
        if not endpoint:
            return [(where, None) for where in destination.alternatives]
        known = [
            self.network.subnets[name] for name in endpoint.subnets if name in self.network.subnets
        ]
        return [(blocks((far.cidr,)), far) for far in known if block(far.cidr)]

    def _leads_elsewhere(self, subnet: Subnet) -> bool:
        """Tell whether a name may be private: in a VPC beyond a route, or by what is not shown."""
        return subnet.shared or any(
            _leads_out_of_sight(route.target) for route in subnet.routes or ()
        )

    @cached_property
    def cuts(self) -> tuple[Block, ...]:
        """The addresses that any rule or route distinguishes."""
        facts = self.facts
        rules = [
            rule for subnet in self.network.subnets.values() for rule in subnet.acl_rules or ()
        ]
        routes = [
            route for subnet in self.network.subnets.values() for route in subnet.routes or ()
        ]
        named = {
            *(rule.target for rule in rules),
            *(rule.target for rule in facts.egress or ()),
            *(route.destination for route in routes),
            *(subnet.cidr for subnet in self.network.subnets.values()),
        }
        return (*blocks(named), *(one for some in self.network.lists.values() for one in some))

    def somewhere(
        self,
        subnet: Subnet,
        where: tuple[Block, ...],
        port: int,
        endpoint: Endpoint | None,
        far: Subnet | None,
    ) -> _Result:
        """Follow a packet to an address in `where`: UNKNOWN where it depends on the address."""
        key = (subnet.id, where, port, endpoint, far)
        if key not in self.found:
            results = [
                (
                    last - first,
                    _Result(tuple(self.network.hops(subnet, Target(first, port, endpoint, far)))),
                )
                for first, last in pieces(where, self.cuts)
            ]
            self.found[key] = _merged(results)
        return self.found[key]


def _leads_out_of_sight(target: str) -> bool:
    return target.partition("-")[0] not in ("local", "igw", "nat", "eigw", "vpce")


def _not_known(why: str) -> _Result:
    return _Result((not_known(why),))


def _merged(results: Iterable[tuple[int, _Result]]) -> _Result:
    """Return the result for an address that is one of several, with the size of each."""
    ordered = [one for _, one in sorted(results, key=lambda one: -one[0])]
    states = {one.state for one in ordered}
    if len(states) > 1:
        return _not_known("it depends on the address")
    first = ordered[0]
    if states != {BROKEN}:
        return first
    # What is broken besides the first hop counts only where it is broken for every address.
    always = set.intersection(*(one.certain for one in ordered))
    head = next(hop for hop in first.hops if hop.state is BROKEN)
    return _Result(
        tuple(
            hop for hop in first.hops if hop.state is not BROKEN or hop is head or hop.key in always
        )
    )
