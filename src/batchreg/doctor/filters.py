"""IPv4 addresses as blocks of numbers, and what network ACLs and rules let through."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from batchreg.doctor.topology import AclRule

Block = tuple[int, int]  # of addresses or of ports: the first and the last

TCP = ("-1", "6", "tcp")
DEFAULT_RULE = 32767  # the last of each network ACL, which denies; the console shows it as *


class State(Enum):
    PASSES = "passes"
    BROKEN = "broken"
    UNKNOWN = "unknown"


@lru_cache(maxsize=4096)
def block(target: str) -> Block | None:
    """Return the addresses of a CIDR or an address, None for IPv6, a prefix list or a group."""
    try:
        network = ipaddress.IPv4Network(target, strict=False)
    except ValueError:
        return None
    return int(network.network_address), int(network.broadcast_address)


def blocks(targets: Iterable[str]) -> tuple[Block, ...]:
    return tuple(one for one in map(block, targets) if one)


def covers(whole: Block | None, part: Block) -> bool:
    return whole is not None and whole[0] <= part[0] and part[1] <= whole[1]


def pieces(wholes: Sequence[Block], cuts: Iterable[Block]) -> list[Block]:
    """Cut blocks so that each piece is inside or outside of each of `cuts`, as a whole."""
    starts = sorted({start for first, last in cuts for start in (first, last + 1)})
    found = []
    for first, last in wholes:
        edges = [first, *(start for start in starts if first < start <= last), last + 1]
        found += [(edge, after - 1) for edge, after in itertools.pairwise(edges)]
    return found


# Addresses that no packet in the internet has. Source: the IANA IPv4 special-purpose registry.
PRIVATE = blocks(("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16"))
NOT_PUBLIC = (*PRIVATE, *blocks(("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")))
PUBLIC = tuple(
    piece
    for piece in pieces(blocks(("0.0.0.0/0",)), NOT_PUBLIC)
    if not any(covers(one, piece) for one in NOT_PUBLIC)
)


def is_private(address: int) -> bool:
    return any(first <= address <= last for first, last in NOT_PUBLIC)


def dotted(address: int) -> str:
    return str(ipaddress.IPv4Address(address))


@dataclass(frozen=True)
class Decision:
    """What a network ACL decides. `rule` and `ports`: the first that are denied."""

    state: State
    rule: int = 0
    ports: Block = (0, 0)


@lru_cache(maxsize=4096)
def acl(
    rules: tuple[AclRule, ...], egress: bool, peers: tuple[Block, ...], ports: Block
) -> Decision:
    """Follow a network ACL for TCP with a peer somewhere in `peers`; all of `ports` have to pass.

    As EC2 does, the first rule by number that fits decides. UNKNOWN where it depends on the peer.
    """
    fitting = sorted(
        (one for one in rules if one.egress == egress and one.protocol in TCP),
        key=lambda one: one.number,
    )
    targets = [(one, target) for one in fitting if (target := block(one.target))]
    passing, denials = False, list[tuple[int, Block]]()
    for peer in pieces(peers, (target for _, target in targets)):
        here = [(one, (one.first, one.last)) for one, target in targets if covers(target, peer)]
        denied = []
        for piece in pieces((ports,), (range_ for _, range_ in here)):
            rule = next((one for one, range_ in here if covers(range_, piece)), None)
            if rule is None or not rule.allows:
                denied.append((rule.number if rule else DEFAULT_RULE, piece))
        passing = passing or not denied
        denials += denied
    if not denials:
        return Decision(State.PASSES)
    number, (first, last) = denials[0]
    for other, piece in denials[1:]:
        if other == number and piece[0] == last + 1:
            last = piece[1]
    return Decision(State.UNKNOWN if passing else State.BROKEN, number, (first, last))
