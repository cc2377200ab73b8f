"""The ways of packets, from each subnet to each destination, as they are drawn."""

from __future__ import annotations

from collections.abc import Iterator

from batchreg.doctor.facts import Facts
from batchreg.doctor.filters import DEFAULT_RULE, State
from batchreg.doctor.hops import Hop, Kind
from batchreg.doctor.page.traces import Figure, Mark, Node, Trace, until_broken
from batchreg.doctor.path import Path, paths
from batchreg.doctor.rules.breaks import listed
from batchreg.doctor.rules.joining import none_joins
from batchreg.doctor.topology import Subnet

SERVICES = {
    "ecs": "ECS",
    "ecs-agent": "ECS agent",
    "ecs-telemetry": "ECS telemetry",
    "secretsmanager": "Secrets Manager",
    "logs": "CloudWatch Logs",
    "ecr.api": "ECR API",
    "ecr.dkr": "ECR images",
    "s3": "S3, ECR's layers",
}

INSTANCE, GROUPS, ACL, ROUTE, GATEWAY, HOST = range(6)
PACKETS = ("Instances", "Security groups", "Network ACL", "Route", "Gateway", "Host")
STAGE_OF = {Kind.EGRESS: GROUPS, Kind.ACL_OUT: ACL, Kind.ACL_BACK: ACL, Kind.ROUTE: ROUTE}
GATEWAYS = {"nat": "NAT gateway", "igw": "Internet gateway", "vpce": "VPC endpoint"}


def figures(facts: Facts) -> tuple[Figure, ...]:
    """Return a figure for each group of subnets whose packets meet the same, the broken first."""
    found: dict[tuple[str, tuple[str, ...], tuple[Trace, ...]], list[Subnet]] = {}
    views = list(facts.views())
    for view in views:
        name = view.environment if len(views) > 1 else ""
        for subnet in view.subnets or ():
            traces = tuple(_packets_from(view, subnet))
            found.setdefault((name, _shared(view, subnet), traces), []).append(subnet)
    drawn = [
        Figure(
            f"{f'{name}: ' if name else ''}{listed(one.id for one in some)}",
            details,
            PACKETS,
            traces,
        )
        for (name, details, traces), some in found.items()
    ]
    return tuple(sorted(drawn, key=lambda figure: not figure.broken))


def _shared(facts: Facts, subnet: Subnet) -> tuple[str, ...]:
    groups = (*(facts.groups or ()), *(facts.groups_missing or ()))
    return tuple(filter(None, (subnet.vpc, ", ".join(groups), subnet.acl, subnet.table)))


def _packets_from(facts: Facts, subnet: Subnet) -> Iterator[Trace]:
    start = "does not exist" if not subnet.exists else "has no free addresses"
    nowhere = not subnet.exists or subnet.free == 0
    ways = [one for one in paths(facts) if one.subnet.id == subnet.id] if subnet.exists else []
    missing = ", ".join(facts.groups_missing or ())
    no_names = ""
    if facts.dns is False and facts.resolvers == ():
        no_names = "DNS is off"
    elif facts.name_servers is False and none_joins(facts):
        no_names = "the VPC names no DNS server"
    for path in ways:
        nodes = _nodes(facts, path)
        if no_names:
            nodes[HOST] = Node(
                PACKETS[HOST], Mark.BROKEN, subnet.vpc, f"its name is not resolved: {no_names}"
            )
        if missing:
            nodes[GROUPS] = Node(PACKETS[GROUPS], Mark.BROKEN, missing, f"{missing} does not exist")
        if nowhere:
            nodes[INSTANCE] = Node(PACKETS[INSTANCE], Mark.BROKEN, subnet.id, start)
        shown = until_broken(nodes) if nowhere or missing else tuple(nodes)
        yield Trace(_name(path), shown)
    if not ways and nowhere:
        beyond = (Node(stage, Mark.BEYOND) for stage in PACKETS[1:])
        yield Trace("Everything", (Node(PACKETS[INSTANCE], Mark.BROKEN, subnet.id, start), *beyond))


def _nodes(facts: Facts, path: Path) -> list[Node | None]:
    """Put the hops of a path into its stages: of a stage's hops the first that is broken, if any."""
    nodes: list[Node | None] = [Node(PACKETS[INSTANCE], Mark.PASSES), *[None] * 5]
    reached, ended = INSTANCE, Mark.PASSES
    for hop in path.hops:
        if hop.kind is Kind.UNSEEN:
            stage = min(reached + 1, GATEWAY)
            if not _is_marked(nodes[stage], Mark.BROKEN):
                nodes[stage] = Node(PACKETS[stage], Mark.UNKNOWN, why=hop.why)
            ended = Mark.UNKNOWN if ended is Mark.PASSES else ended
            continue
        stage = STAGE_OF.get(hop.kind, GATEWAY)
        reached = max(reached, stage)
        old, mark = nodes[stage], _mark(path, hop)
        if _is_marked(old, Mark.BROKEN) or (
            _is_marked(old, Mark.UNKNOWN) and mark is not Mark.BROKEN
        ):
            continue
        if mark is Mark.PASSES and ended is Mark.BROKEN:
            mark = old.mark if old else Mark.BEYOND
        node = _node(path, hop, mark)
        if (
            old is None
            or mark is not Mark.PASSES
            or (node.kind in GATEWAYS.values() and old.kind not in GATEWAYS.values())
        ):
            nodes[stage] = node
        if mark is Mark.BROKEN or ended is Mark.PASSES:
            ended = mark
    if nodes[GATEWAY] is None and ended is Mark.PASSES and path.destination.service:
        nodes[GATEWAY] = _endpoint(facts, path)
    rest = Mark.BEYOND if ended is Mark.BROKEN else ended
    last = max(number for number, node in enumerate(nodes) if node)
    for number in range(last + 1, HOST) if rest is not Mark.PASSES else ():
        nodes[number] = Node(PACKETS[number], rest)
    nodes[HOST] = Node(PACKETS[HOST], rest)
    return nodes


def _is_marked(node: Node | None, mark: Mark) -> bool:
    return node is not None and node.mark is mark


def _mark(path: Path, hop: Hop) -> Mark:
    if hop.state is State.BROKEN:
        return Mark.BROKEN if path.state is State.BROKEN else Mark.UNKNOWN
    return Mark.UNKNOWN if hop.state is State.UNKNOWN else Mark.PASSES


def _node(path: Path, hop: Hop, mark: Mark) -> Node:
    stage = PACKETS[STAGE_OF.get(hop.kind, GATEWAY)]
    at = path.subnet.table or hop.at if hop.kind is Kind.ROUTE else hop.at
    kind = _kind(hop) if stage == PACKETS[GATEWAY] else ""
    if mark is Mark.BROKEN:
        return Node(stage, mark, at, _broken(hop), kind)
    if path.endpoint and stage == PACKETS[GATEWAY] and mark is Mark.PASSES:
        return Node(stage, mark, path.endpoint.id, kind=GATEWAYS["vpce"])
    return Node(stage, mark, at, hop.why if mark is Mark.UNKNOWN else "", kind)


def _kind(hop: Hop) -> str:
    if hop.kind in (Kind.ACL_IN, Kind.ACL_FAR):
        return "Network ACL"
    return GATEWAYS.get(hop.at.partition("-")[0], "")


def _endpoint(facts: Facts, path: Path) -> Node | None:
    """Return the endpoint of a path that has no other hop than its route."""
    for one in facts.endpoints or ():
        if one.service == path.destination.service and one.vpc == path.subnet.vpc:
            return Node(PACKETS[GATEWAY], Mark.PASSES, one.id, kind=GATEWAYS["vpce"])
    return None


def _broken(hop: Hop) -> str:
    """Say in a few words what is broken at a hop; the finding says more."""
    port, responses = hop.ports[0], "responses, " if hop.responses else ""
    ports = f"port {port}" if hop.ports[1] == port else f"ports {port}-{hop.ports[1]}"
    match hop.kind:
        case Kind.EGRESS:
            return f"no outbound rule allows TCP {ports}"
        case Kind.GROUP_IN:
            return f"no inbound rule of {hop.peers or 'a security group'} allows TCP port 443"
        case Kind.GATEWAY:
            return "is not attached to the VPC"
        case Kind.ACL_OUT | Kind.ACL_IN | Kind.ACL_FAR | Kind.ACL_BACK:
            rule = "no rule allows" if hop.rule == DEFAULT_RULE else f"rule {hop.rule} denies"
            way = "outbound" if hop.egress else "inbound"
            return f"{rule} {responses}{way} TCP {ports} at {hop.subnet}"
        case _:
            return hop.why


def _name(path: Path) -> str:
    return SERVICES.get(path.destination.service, path.destination.name)
