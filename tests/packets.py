"""A simulator of packets in a VPC, written from AWS's documentation; it knows nothing of batchreg.

It sends packets with one address and one port each through what EC2's Describe calls return:
security groups (stateful, any rule that fits admits), network ACLs (stateless, the first rule by
number that fits decides), route tables (the longest prefix), gateways and endpoints. Sources:
docs.aws.amazon.com/vpc/latest/userguide/ security-group-rules.html, nacl-rules.html,
custom-network-acl.html (ephemeral ports), VPC_Route_Tables.html, vpc-nat-gateway.html,
nat-gateway-troubleshooting.html, VPC_Internet_Gateway.html, vpc-dns.html; and
docs.aws.amazon.com/vpc/latest/privatelink/ interface-endpoints.html, gateway-endpoints.html.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, ip_network
from typing import Any

Raw = dict[str, Any]
Stop = tuple[str, str]  # what a packet does not get past: the kind of hop, and its id

UNKNOWN: Stop = ("unknown", "")
LINUX = range(32768, 61000)
NAT = range(1024, 65536)
PRIVATE = [
    IPv4Network(one) for one in ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16")
]
PRIVATE_SAMPLES = ("10.0.5.5", "10.0.8.9", "10.77.0.1", "172.20.1.5", "192.168.3.3", "100.64.9.9")


@dataclass
class World:
    """What is in a VPC, as EC2 describes it, and what names lead to."""

    subnets: list[str]  # those of the instances
    groups: list[str]  # those of the instances
    described: dict[str, list[Raw]]
    attributes: dict[str, bool]  # enableDnsSupport, enableDnsHostnames
    names: dict[str, list[str]]  # public DNS; what is missing does not resolve from outside
    rng: random.Random = field(default_factory=lambda: random.Random(7))

    def one(self, kind: str, key: str, value: str) -> Raw:
        return next(one for one in self.described[kind] if one[key] == value)


@dataclass(frozen=True)
class Goal:
    """Where packets are to go. `service`: AWS's, as in names of endpoints. `public`: for certain."""

    name: str
    port: int = 443
    service: str = ""
    public: bool = True


def outcome(world: World, subnet: str, goal: Goal) -> set[Stop]:
    """Return what stops the packets: nothing, UNKNOWN, or where they end, by their address."""
    if world.one("Subnets", "SubnetId", subnet).get("Ipv6Native"):
        return {UNKNOWN}
    endpoint = _endpoint(world, goal.service)
    direct = _direct(world, subnet, goal)
    if endpoint is None:
        return direct
    inside = _any(
        _everywhere(world, subnet, goal.port, _enis(world, name), endpoint)
        for name in endpoint["SubnetIds"]
    )
    if _custom_resolver(world) and _verdict(inside) != _verdict(direct):
        return {UNKNOWN}
    return inside


def _verdict(stops: set[Stop]) -> str:
    return "arrives" if not stops else "unknown" if UNKNOWN in stops else "broken"


def _any(results: Iterable[set[Stop]]) -> set[Stop]:
    """Of several addresses of one name, clients try all: one that answers is enough."""
    everything = list(results)
    for wanted in ("arrives", "unknown"):
        for one in everything:
            if _verdict(one) == wanted:
                return one
    return set().union(*everything)


def _everywhere(
    world: World, subnet: str, port: int, addresses: Iterable[str], endpoint: Raw | None = None
) -> set[Stop]:
    """Send a packet to each address where the host may be; unknown if they end differently."""
    ends = [send(world, subnet, IPv4Address(one), port, endpoint) for one in addresses]
    verdicts = {_verdict({one} if one else set()) for one in ends}
    if len(verdicts) > 1:
        return {UNKNOWN}
    return {one for one in ends if one}


def _direct(world: World, subnet: str, goal: Goal) -> set[Stop]:
    """Send packets to a name's addresses outside of any interface endpoint."""
    host, _, tail = goal.name.rpartition(":")
    literal = host if tail.isdigit() and host else goal.name
    lists = [
        one
        for one in world.described["PrefixLists"]
        if goal.service and one["PrefixListName"].endswith(f".{goal.service}")
    ]
    if literal.replace(".", "").isdigit():
        return _everywhere(world, subnet, goal.port, [literal])
    if lists:
        stops = _everywhere(world, subnet, goal.port, _inside(world, lists[0]["Cidrs"]))
    elif found := world.names.get(goal.name):
        stops = _any(_everywhere(world, subnet, goal.port, [one]) for one in found)
        if any(_is_private(IPv4Address(one)) for one in found):
            return stops
    else:
        stops = _everywhere(world, subnet, goal.port, _internet(world))
    if _verdict(stops) != "broken":
        return stops
    elsewhere = any(
        not str(_target(route)).startswith(("local", "igw-", "nat-", "vpce-", "eigw-"))
        for route in _table(world, subnet)["Routes"]
    )
    if (goal.service and elsewhere) or not goal.public:
        # In the VPC the name may lead to a private address: a hosted zone that nobody sees here.
        private = [send(world, subnet, IPv4Address(one), goal.port) for one in _private(world)]
        if any(one is None or one == UNKNOWN for one in private):
            return {UNKNOWN}
    return stops


def send(
    world: World, subnet: str, to: IPv4Address, port: int, endpoint: Raw | None = None
) -> Stop | None:
    """Send one request and wait for its response; return what stops them, None if nothing does."""
    here = world.one("Subnets", "SubnetId", subnet)
    stays = to in IPv4Network(here["CidrBlock"])
    unknown = False
    out = _group_allows(world, world.groups, "IpPermissionsEgress", to, port, endpoint)
    if out is False:
        return "security group", ", ".join(world.groups)
    unknown |= out is None
    if not stays and not _acl(world, subnet, True, to, [port]):
        return "network ACL, outbound", _acl_id(world, subnet)
    for stop in _there_and_back(world, here, to, port, endpoint, stays):
        if stop == UNKNOWN:
            unknown = True
        elif stop:
            return stop
    if not stays and not _acl(world, subnet, False, to, _ports(world, subnet, LINUX)):
        return "network ACL, responses", _acl_id(world, subnet)
    return UNKNOWN if unknown else None


def _there_and_back(
    world: World, here: Raw, to: IPv4Address, port: int, endpoint: Raw | None, stays: bool
) -> Iterator[Stop]:
    """Yield what stops the packet between its subnet and the host, in the order of its way."""
    subnet = here["SubnetId"]
    route = _lookup(world, subnet, to)
    if route == UNKNOWN:
        yield UNKNOWN
        return
    if route is None:
        yield "route", subnet
        return
    assert isinstance(route, dict)
    target = _target(route)
    if target == "local":
        there = None if stays else _subnet_of(world, to)
        yield from _next_subnet(world, here, there, port)
        if endpoint:
            admitted = _admits(world, endpoint, here)
            if admitted is not True:
                name = endpoint["VpcEndpointId"]
                yield UNKNOWN if admitted is None else ("security group of the endpoint", name)
        yield from _back_from(world, here, there)
    elif target.startswith("igw-"):
        if _is_private(to):
            yield "route", subnet
        elif not _attached(world, target) or route.get("State") == "blackhole":
            yield "internet gateway", target
        elif not here["MapPublicIpOnLaunch"]:
            yield "public address", subnet
    elif target.startswith("nat-"):
        yield from _through_nat(world, here, target, to, port)
    elif not _gateway_endpoint(world, target):
        yield UNKNOWN


def _through_nat(world: World, here: Raw, name: str, to: IPv4Address, port: int) -> Iterator[Stop]:
    known = [one for one in world.described["NatGateways"] if one["NatGatewayId"] == name]
    if not known or known[0]["State"] == "pending":
        yield UNKNOWN
        return
    (nat,) = known
    if nat["State"] != "available":
        yield "NAT gateway", name
        return
    if "SubnetId" not in nat:
        yield UNKNOWN
        return
    there = world.one("Subnets", "SubnetId", nat["SubnetId"])
    yield from _next_subnet(world, here, there, port)
    route = _lookup(world, there["SubnetId"], to)
    if route is None or (isinstance(route, dict) and _target(route) == name):
        yield (
            ("route", here["SubnetId"]) if _is_private(to) and not route else ("NAT gateway", name)
        )
    elif not isinstance(route, dict):
        yield UNKNOWN
    elif _target(route).startswith("igw-"):
        if _is_private(to):
            yield "route", here["SubnetId"]
        elif nat["ConnectivityType"] == "private":
            yield "NAT gateway", name
        elif not _attached(world, _target(route)) or route.get("State") == "blackhole":
            yield "internet gateway", _target(route)
    elif _target(route) != "local" and not _gateway_endpoint(world, _target(route)):
        yield UNKNOWN
        yield from _back_from(world, here, there)
        return
    if to not in IPv4Network(there["CidrBlock"]):
        far = there["SubnetId"]
        if not _acl(world, far, True, to, [port]):
            yield "network ACL of the next subnet, beyond", _acl_id(world, far)
        if not _acl(world, far, False, to, _ports(world, far, NAT)):
            yield "network ACL of the next subnet, beyond", _acl_id(world, far)
    yield from _back_from(world, here, there)


def _next_subnet(world: World, here: Raw, there: Raw | None, port: int) -> Iterator[Stop]:
    """Yield what the network ACL says where the packet enters another subnet."""
    if there and there is not here:
        name = there["SubnetId"]
        passed = {_acl(world, name, False, one, [port]) for one in _samples(world, here)}
        if passed != {True}:
            mixed = len(passed) > 1
            yield (
                UNKNOWN
                if mixed
                else ("network ACL of the next subnet, inbound", _acl_id(world, name))
            )


def _back_from(world: World, here: Raw, there: Raw | None) -> Iterator[Stop]:
    """Yield what the network ACL says where the response leaves another subnet."""
    if there and there is not here:
        name = there["SubnetId"]
        ports = _ports(world, name, LINUX)
        passed = {_acl(world, name, True, one, ports) for one in _samples(world, here)}
        if passed != {True}:
            mixed = len(passed) > 1
            yield (
                UNKNOWN
                if mixed
                else ("network ACL of the next subnet, beyond", _acl_id(world, name))
            )


def _endpoint(world: World, service: str) -> Raw | None:
    """Return the interface endpoint that answers to a service's own name in the VPC."""
    if not service or not world.attributes["enableDnsHostnames"]:
        return None
    for one in world.described["VpcEndpoints"]:
        if (
            one["ServiceName"] == f"com.amazonaws.eu-central-1.{service}"
            and one["VpcEndpointType"] == "Interface"
            and one["VpcId"] == world.described["Vpcs"][0]["VpcId"]
            and one["State"] == "available"
            and one["PrivateDnsEnabled"]
            and not one.get("DnsOptions", {}).get("PrivateDnsOnlyForInboundResolverEndpoint")
        ):
            return one
    return None


def _custom_resolver(world: World) -> bool:
    used = {one["DhcpOptionsId"] for one in world.described["Vpcs"]}
    return any(
        value["Value"] != "AmazonProvidedDNS"
        for one in world.described["DhcpOptions"]
        if one["DhcpOptionsId"] in used
        for setting in one["DhcpConfigurations"]
        if setting["Key"] == "domain-name-servers"
        for value in setting["Values"]
    )


def _table(world: World, subnet: str) -> Raw:
    for one in world.described["RouteTables"]:
        if any(link.get("SubnetId") == subnet for link in one["Associations"]):
            return one
    return next(
        one
        for one in world.described["RouteTables"]
        if any(link.get("Main") for link in one["Associations"])
    )


def _target(route: Raw) -> str:
    keys = ("GatewayId", "NatGatewayId", "TransitGatewayId", "VpcPeeringConnectionId")
    keys += ("NetworkInterfaceId", "CarrierGatewayId", "EgressOnlyInternetGatewayId")
    return next(str(route[key]) for key in keys if key in route)


def _lookup(world: World, subnet: str, to: IPv4Address) -> Raw | Stop | None:
    """Return the most specific route, UNKNOWN where a prefix list hides it, None without one."""
    fitting: list[tuple[int, Raw]] = []
    hidden = []
    for route in _table(world, subnet)["Routes"]:
        if "DestinationPrefixListId" in route:
            cidrs = _prefix_list(world, route["DestinationPrefixListId"])
            if cidrs is None:
                hidden.append(route)
                continue
        else:
            cidrs = [route["DestinationCidrBlock"]] if "DestinationCidrBlock" in route else []
        fitting += [(IPv4Network(one).prefixlen, route) for one in cidrs if to in IPv4Network(one)]
    best = max(fitting, key=lambda one: one[0])[1] if fitting else None
    for route in hidden:
        if best is None or _target(best) not in ("local", _target(route)):
            return UNKNOWN
    if best and best.get("State") == "blackhole" and not _target(best).startswith("igw-"):
        return None
    return best


def _prefix_list(world: World, name: str) -> list[str] | None:
    for one in world.described["PrefixLists"]:
        if one["PrefixListId"] == name:
            return list(one["Cidrs"])
    return None


def _gateway_endpoint(world: World, target: str) -> bool:
    return any(
        one["VpcEndpointId"] == target and one["VpcEndpointType"] == "Gateway"
        for one in world.described["VpcEndpoints"]
    )


def _attached(world: World, gateway: str) -> bool:
    return any(
        one["InternetGatewayId"] == gateway and one["Attachments"]
        for one in world.described["InternetGateways"]
    )


def _group_allows(
    world: World,
    groups: list[str],
    permissions: str,
    peer: IPv4Address,
    port: int,
    endpoint: Raw | None,
) -> bool | None:
    """Tell whether a rule admits a peer, None where that depends on what cannot be seen."""
    unsure = False
    for name in groups:
        for rule in world.one("SecurityGroups", "GroupId", name)[permissions]:
            if rule["IpProtocol"] not in ("-1", "tcp") or not (
                rule["IpProtocol"] == "-1" or rule["FromPort"] <= port <= rule["ToPort"]
            ):
                continue
            if any(peer in IPv4Network(one["CidrIp"]) for one in rule.get("IpRanges", [])):
                return True
            for pair in rule.get("UserIdGroupPairs", []):
                if endpoint:
                    if pair["GroupId"] in {one["GroupId"] for one in endpoint["Groups"]}:
                        return True
                elif _is_private(peer):
                    unsure = True
            for listed in rule.get("PrefixListIds", []):
                cidrs = _prefix_list(world, listed["PrefixListId"])
                if cidrs is None:
                    unsure = True
                elif any(peer in IPv4Network(one) for one in cidrs):
                    return True
    return None if unsure else False


def _admits(world: World, endpoint: Raw, here: Raw) -> bool | None:
    """Tell whether an endpoint's groups admit instances: all of them, none, or None."""
    groups = [one["GroupId"] for one in endpoint["Groups"]]
    found = set()
    mine = {"Groups": [{"GroupId": one} for one in world.groups]}
    for source in _samples(world, here):
        found.add(_group_allows(world, groups, "IpPermissions", source, 443, mine))
    return found.pop() if len(found) == 1 else None


def _acl_of(world: World, subnet: str) -> Raw:
    for one in world.described["NetworkAcls"]:
        if any(link["SubnetId"] == subnet for link in one["Associations"]):
            return one
    return next(one for one in world.described["NetworkAcls"] if one["IsDefault"])


def _acl_id(world: World, subnet: str) -> str:
    return str(_acl_of(world, subnet)["NetworkAclId"])


def _acl(world: World, subnet: str, egress: bool, peer: IPv4Address, ports: Iterable[int]) -> bool:
    """Tell whether a subnet's network ACL lets TCP with a peer pass, at all of the ports."""
    entries = sorted(_acl_of(world, subnet)["Entries"], key=lambda one: int(one["RuleNumber"]))
    for port in ports:
        for one in entries:
            if one["Egress"] is not egress or one["Protocol"] not in ("-1", "6"):
                continue
            if "CidrBlock" not in one or peer not in IPv4Network(one["CidrBlock"]):
                continue
            reach = one.get("PortRange")
            if reach and not reach["From"] <= port <= reach["To"]:
                continue
            if one["RuleAction"] == "deny":
                return False
            break
        else:
            return False
    return True


def _ports(world: World, subnet: str, whole: range) -> list[int]:
    """Return the ends of a range, the edges of all rules in it, and some ports by chance."""
    found = {whole[0], whole[-1], *world.rng.sample(whole, 5)}
    for one in _acl_of(world, subnet)["Entries"]:
        if "PortRange" in one:
            first, last = one["PortRange"]["From"], one["PortRange"]["To"]
            found |= {first - 1, first, last, last + 1} & {*whole}
    return sorted(found)


def _is_private(address: IPv4Address) -> bool:
    return any(address in one for one in PRIVATE)


def _subnet_of(world: World, address: IPv4Address) -> Raw | None:
    return next(
        (one for one in world.described["Subnets"] if address in IPv4Network(one["CidrBlock"])),
        None,
    )


def _samples(world: World, subnet: Raw) -> list[IPv4Address]:
    """Return addresses of a subnet: from both ends, and from the middle."""
    whole = IPv4Network(subnet["CidrBlock"])
    return [
        whole[4],
        whole[whole.num_addresses // 2 - 2],
        whole[whole.num_addresses // 2 + 2],
        whole[-2],
    ]


def _enis(world: World, subnet: str) -> list[str]:
    """Return where the network interface of an endpoint may be."""
    return [str(one) for one in _samples(world, world.one("Subnets", "SubnetId", subnet))]


def _edges(world: World) -> list[IPv4Address]:
    """Return the addresses at which rules and routes begin and end, and their neighbours."""
    texts = {
        one["CidrBlock"]
        for acl in world.described["NetworkAcls"]
        for one in acl["Entries"]
        if "CidrBlock" in one
    }
    texts |= {
        one["CidrIp"]
        for group in world.described["SecurityGroups"]
        for rule in group["IpPermissionsEgress"]
        for one in rule.get("IpRanges", [])
    }
    texts |= {
        one["DestinationCidrBlock"]
        for table in world.described["RouteTables"]
        for one in table["Routes"]
        if "DestinationCidrBlock" in one
    }
    texts |= {one for listed in world.described["PrefixLists"] for one in listed["Cidrs"]}
    found = set()
    for text in texts:
        network = ip_network(text)
        for number in (int(network[0]), int(network[-1])):
            found |= {number - 1, number, number + 1}
    return [IPv4Address(one) for one in sorted(found) if 0 <= one < 2**32]


def _internet(world: World) -> list[str]:
    """Return addresses of the internet: by chance, and at all edges."""
    found = [*_edges(world), *(IPv4Address(world.rng.randrange(2**32)) for _ in range(12))]
    return [str(one) for one in found if one.is_global and not one.is_multicast]


def _private(world: World) -> list[str]:
    found = [*_edges(world), *map(IPv4Address, PRIVATE_SAMPLES)]
    return [str(one) for one in found if _is_private(one)]


def _inside(world: World, cidrs: list[str]) -> list[str]:
    networks = [IPv4Network(one) for one in cidrs]
    ends = [address for one in networks for address in (one[0], one[-1])]
    edges = [one for one in _edges(world) if any(one in network for network in networks)]
    return [str(one) for one in (*ends, *edges)]
