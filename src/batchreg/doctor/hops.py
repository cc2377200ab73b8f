"""The hops of one packet: from an instance to one address, and of the response.

Sources: docs.aws.amazon.com/vpc/latest/userguide/ VPC_Route_Tables.html (the longest prefix),
vpc-network-acls.html, vpc-nat-gateway.html, VPC_Internet_Gateway.html; and
docs.aws.amazon.com/vpc/latest/privatelink/ interface-endpoints.html, gateway-endpoints.html.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum

from batchreg.doctor.facts import Facts
from batchreg.doctor.filters import (
    TCP,
    Block,
    State,
    acl,
    block,
    blocks,
    covers,
    dotted,
    is_private,
    pieces,
)
from batchreg.doctor.topology import ALL_ADDRESSES, Endpoint, GroupRule, NatGateway, Route, Subnet

PASSES, BROKEN, UNKNOWN = State.PASSES, State.BROKEN, State.UNKNOWN

# The ports at which responses arrive. Linux takes net.ipv4.ip_local_port_range, and a NAT gateway
# 1024-65535. Source: docs.aws.amazon.com/vpc/latest/userguide/custom-network-acl.html
OF_LINUX = (32768, 60999)
OF_NAT = (1024, 65535)


class Kind(Enum):
    """What a hop is, in the order of the path."""

    UNSEEN = "not known"
    EGRESS = "security group"
    ACL_OUT = "network ACL, outbound"
    ROUTE = "route"
    GATEWAY = "internet gateway"
    ADDRESS = "public address"
    ACL_IN = "network ACL of the next subnet, inbound"
    NAT = "NAT gateway"
    GROUP_IN = "security group of the endpoint"
    ACL_FAR = "network ACL of the next subnet, beyond"
    ACL_BACK = "network ACL, responses"


@dataclass(frozen=True, kw_only=True)
class Hop:
    """One hop. `at`: the id of what it is; `why`: what is broken or unknown about it.

    Of a network ACL, `subnet` is whose it is, `rule` what denies it, `ports` and `peers` which
    traffic, and `source` the instances' subnet where that is the peer. `peers` is also the CIDR
    that a rule of a security group would have to admit.
    """

    kind: Kind
    at: str
    state: State = PASSES
    why: str = ""
    subnet: str = ""
    egress: bool = True
    rule: int = 0
    ports: Block = (0, 0)
    peers: str = ""
    responses: bool = False
    source: str = ""

    @property
    def key(self) -> tuple[Kind, str, bool]:
        return self.kind, self.at, self.egress


@dataclass(frozen=True)
class Target:
    """Where one packet goes; `far`: the endpoint's subnet, where it goes to an endpoint."""

    address: int
    port: int
    endpoint: Endpoint | None = None
    far: Subnet | None = None

    @property
    def block(self) -> Block:
        return self.address, self.address


class Network:
    """The facts about the network by id, and the ways through it."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.subnets = {
            one.id: one for one in (*(facts.passed_subnets or ()), *(facts.subnets or ()))
        }
        self.nats = {one.id: one for one in facts.nat_gateways or ()}
        self.lists = {one.id: blocks(one.cidrs) for one in facts.prefix_lists or () if one.cidrs}

    def hops(self, subnet: Subnet, target: Target) -> Iterator[Hop]:
        """Yield the hops of a packet and of its response."""
        yield self.egress(target)
        leaves = not covers(block(subnet.cidr), target.block)
        if leaves:
            yield _acl(Kind.ACL_OUT, subnet, target.block, (target.port, target.port), egress=True)
        yield from self.routed(subnet, target, leaves=leaves)
        if leaves:
            yield _acl(Kind.ACL_BACK, subnet, target.block, OF_LINUX, egress=False)

    def egress(self, target: Target) -> Hop:
        """Follow the outbound rules of the instances' security groups."""
        groups = ", ".join(self.facts.groups or ())
        if self.facts.egress is None or self.facts.groups_missing:
            return Hop(
                kind=Kind.EGRESS,
                at=groups,
                state=UNKNOWN,
                why="the security groups were not looked at",
            )
        states = {
            self._admits(rule, target.block, target.endpoint.groups if target.endpoint else ())
            for rule in self.facts.egress
            if rule.protocol in TCP and rule.first <= target.port <= rule.last
        }
        if PASSES in states:
            return Hop(kind=Kind.EGRESS, at=groups)
        state = UNKNOWN if UNKNOWN in states else BROKEN
        return Hop(
            kind=Kind.EGRESS,
            at=groups,
            state=state,
            why="what a security group or prefix list in an outbound rule contains",
            ports=(target.port, target.port),
            peers=_peers(target),
        )

    def _admits(self, rule: GroupRule, peer: Block, groups: tuple[str, ...]) -> State:
        """Tell whether a rule's target contains a peer, which is in `groups` if it is known."""
        if rule.target.startswith("sg-"):
            if rule.target in groups:
                return PASSES
            return BROKEN if groups or not is_private(peer[0]) else UNKNOWN
        if rule.target.startswith("pl-"):
            listed = self.lists.get(rule.target)
            if listed is None:
                return UNKNOWN
            return PASSES if any(covers(one, peer) for one in listed) else BROKEN
        return PASSES if covers(block(rule.target), peer) else BROKEN

    def routed(self, subnet: Subnet, target: Target, *, leaves: bool) -> Iterator[Hop]:
        """Yield the hops from the subnet's route table to the host."""
        route = self.route(subnet, target.address)
        if isinstance(route, Hop):
            yield route
            return
        gateway = route.target
        if gateway == "local":
            yield Hop(kind=Kind.ROUTE, at=subnet.id)
            far = target.far or self._holding(target.address)
            there_and_back = _beyond(subnet, far, target.port) if leaves and far else []
            yield from there_and_back[:1]
            if target.endpoint:
                yield self.admitted(subnet, target.endpoint)
            yield from there_and_back[1:]
        elif gateway.startswith("igw-"):
            yield from (hops := list(self.internet_gateway(subnet, route, target.address)))
            if hops[-1].state is PASSES:
                yield Hop(
                    kind=Kind.ADDRESS,
                    at=subnet.id,
                    state=PASSES if subnet.public else BROKEN,
                    why=f"routes to {gateway} and assigns no public addresses",
                )
        elif gateway.startswith("nat-"):
            yield Hop(kind=Kind.ROUTE, at=subnet.id)
            yield from self.nat_gateway(subnet, gateway, target)
        elif self._is_gateway_endpoint(gateway, route.destination):
            yield Hop(kind=Kind.ROUTE, at=subnet.id)
        else:
            yield not_known(f"{subnet.id} routes it to {gateway}")

    def route(self, subnet: Subnet, address: int) -> Route | Hop:
        """Return the route that fits best, or the hop that the packet does not get past."""
        if subnet.routes is None:
            return not_known("the route tables were not looked at")
        fitting, unread = [], []
        for route in subnet.routes:
            reach = block(route.destination)
            listed = (reach,) if reach else self.lists.get(route.destination)
            if listed is None and route.destination.startswith("pl-"):
                unread.append(route)
            fitting += [
                (last - first, route) for first, last in listed or () if first <= address <= last
            ]
        best = min(fitting, key=lambda one: one[0])[1] if fitting else None
        for other in unread:
            if best is None or best.target not in ("local", other.target):
                return not_known(f"what {other.destination} contains")
        if best and (best.works or best.target.startswith("igw-")):
            return best
        if best is None or is_private(address):
            return _missing(subnet, address)
        name = "default route" if best.destination == ALL_ADDRESSES else best.destination
        why = f"the {name} is to {best.target}, which does not exist"
        return Hop(kind=Kind.ROUTE, at=subnet.id, state=BROKEN, why=why)

    def internet_gateway(self, subnet: Subnet, route: Route, address: int) -> Iterator[Hop]:
        """Yield the hops out of the VPC; a route to a gateway that is detached is a black hole."""
        if is_private(address):
            yield _missing(subnet, address)
            return
        yield Hop(kind=Kind.ROUTE, at=subnet.id)
        detached = route.target in (self.facts.detached_gateways or ())
        yield Hop(
            kind=Kind.GATEWAY,
            at=route.target,
            state=BROKEN if detached or not route.works else PASSES,
            subnet=subnet.id,
        )

    def _is_gateway_endpoint(self, target: str, destination: str) -> bool:
        kinds = {one.id: one.kind for one in self.facts.endpoints or ()}
        # Only a gateway endpoint has a prefix list as destination where the endpoint is not known.
        return target.startswith("vpce-") and (
            kinds.get(target) == "Gateway" or (target not in kinds and destination[:3] == "pl-")
        )

    def _holding(self, address: int) -> Subnet | None:
        return next(
            (one for one in self.subnets.values() if covers(block(one.cidr), (address, address))),
            None,
        )

    def admitted(self, subnet: Subnet, endpoint: Endpoint) -> Hop:
        """Follow the inbound rules of an endpoint's security groups."""
        at = endpoint.id or endpoint.service
        if self.facts.ingress is None or self.facts.groups is None:
            return not_known(f"the security groups of {at} were not looked at")
        source = blocks((subnet.cidr or ALL_ADDRESSES,))
        rules = [
            rule
            for rule in self.facts.ingress
            if rule.group in endpoint.groups
            and rule.protocol in TCP
            and rule.first <= 443 <= rule.last
        ]
        states = set()
        cuts = blocks(rule.target for rule in rules)
        for piece in pieces(source, cuts):
            here = {self._admits(rule, piece, self.facts.groups) for rule in rules}
            states.add(PASSES if PASSES in here else UNKNOWN if UNKNOWN in here else BROKEN)
        state = states.pop() if len(states) == 1 else UNKNOWN
        return Hop(
            kind=Kind.GROUP_IN,
            at=at,
            state=state,
            why=f"the security groups of {at} admit a part of {subnet.id}",
            subnet=subnet.id,
            peers=", ".join(endpoint.groups),
        )

    def nat_gateway(self, subnet: Subnet, name: str, target: Target) -> Iterator[Hop]:
        """Yield the hops through a NAT gateway: itself, and its subnet's ways out and back."""
        nat = self.nats.get(name)
        if nat is None:
            yield not_known(f"{name} was not looked at")
            return
        if nat.state != "available":
            yield _nat_state(nat)
            return
        far = self.subnets.get(nat.subnet)
        if far is None:
            yield not_known(f"the subnet of {name} is not known")
            return
        there_and_back = _beyond(subnet, far, target.port)
        yield from there_and_back[:1]
        onward = list(self._onward(subnet, nat, far, target.address))
        yield from onward
        leaves = not covers(block(far.cidr), target.block)
        if leaves and onward[-1].state is not UNKNOWN:
            yield _acl(Kind.ACL_FAR, far, target.block, (target.port, target.port), egress=True)
            yield _acl(Kind.ACL_FAR, far, target.block, OF_NAT, egress=False)
        yield from there_and_back[1:]

    def _onward(self, subnet: Subnet, nat: NatGateway, far: Subnet, address: int) -> Iterator[Hop]:
        """Follow the route of a NAT gateway's own subnet."""
        route = self.route(far, address)
        if isinstance(route, Hop):
            if route.state is UNKNOWN:
                yield route
            elif is_private(address):
                yield replace(route, at=subnet.id, subnet=far.id)
            else:
                yield _broken_nat(nat, f"is in {far.id}, where {route.why}")
        elif route.target == nat.id:
            yield _broken_nat(nat, f"is in {far.id}, whose default route leads back to {nat.id}")
        elif route.target == "local" or self._is_gateway_endpoint(route.target, route.destination):
            yield Hop(kind=Kind.NAT, at=nat.id)
        elif not route.target.startswith("igw-"):
            yield not_known(f"{nat.id} in {far.id} routes it to {route.target}")
        elif is_private(address):
            yield _missing(subnet, address)
        elif nat.private:
            yield _broken_nat(nat, "is private: it does not lead to the internet")
        else:
            yield Hop(kind=Kind.NAT, at=nat.id)
            yield from self.internet_gateway(far, route, address)


def not_known(why: str) -> Hop:
    """Return what stands for the rest of a way that nobody knows."""
    return Hop(kind=Kind.UNSEEN, at="", state=UNKNOWN, why=why)


def _beyond(subnet: Subnet, far: Subnet, port: int) -> list[Hop]:
    """Return what the network ACL of another subnet says to a request, and to its response."""
    if far.id == subnet.id:
        return []
    (source,) = blocks((subnet.cidr or ALL_ADDRESSES,))
    return [
        replace(_acl(kind, far, source, ports, egress=egress), source=subnet.id)
        for kind, ports, egress in (
            (Kind.ACL_IN, (port, port), False),
            (Kind.ACL_FAR, OF_LINUX, True),
        )
    ]


def _missing(subnet: Subnet, address: int) -> Hop:
    private = is_private(address)
    route = f"a route to {dotted(address)}" if private else "the default route"
    return Hop(kind=Kind.ROUTE, at=subnet.id, state=BROKEN, why=f"{route} is missing")


def _broken_nat(nat: NatGateway, why: str) -> Hop:
    return Hop(kind=Kind.NAT, at=nat.id, state=BROKEN, why=why)


def _nat_state(nat: NatGateway) -> Hop:
    reason = f": {nat.reason}" if nat.reason else ""
    state = UNKNOWN if nat.state == "pending" else BROKEN
    why = f"is {nat.state}{reason}" if state is BROKEN else f"{nat.id} is {nat.state}"
    return Hop(kind=Kind.NAT, at=nat.id, state=state, why=why)


def _acl(kind: Kind, subnet: Subnet, peer: Block, ports: Block, *, egress: bool) -> Hop:
    if subnet.acl_rules is None:
        why = f"the network ACL of {subnet.id} was not looked at"
        return Hop(kind=kind, at=subnet.id, state=UNKNOWN, why=why)
    decided = acl(subnet.acl_rules, egress, (peer,), ports)
    return Hop(
        kind=kind,
        at=subnet.acl or subnet.id,
        state=decided.state,
        why=f"{subnet.acl or subnet.id} denies a part of the addresses",
        subnet=subnet.id,
        egress=egress,
        rule=decided.rule,
        ports=decided.ports,
        peers=_cidr(peer),
        responses=ports in (OF_LINUX, OF_NAT),
    )


def _cidr(peer: Block) -> str:
    """Return a CIDR for a rule that is to let a peer through."""
    first, last = peer
    if not is_private(first):
        return ALL_ADDRESSES
    return f"{dotted(first)}/{32 - (last - first).bit_length()}"


def _peers(target: Target) -> str:
    return target.far.cidr if target.far and target.far.cidr else _cidr(target.block)
