"""The network around the instances as EC2 describes it: plain values, a part of the facts.

Addresses and ranges are IPv4: the names of AWS's services and of registries resolve to it.
"""

from __future__ import annotations

from dataclasses import dataclass

ALL_ADDRESSES = "0.0.0.0/0"


@dataclass(frozen=True, kw_only=True)
class Route:
    """A route; its destination is a CIDR or a prefix list, its target an id or "local"."""

    destination: str
    target: str
    works: bool = True


@dataclass(frozen=True, kw_only=True)
class AclRule:
    """An entry of a network ACL; -1 in `protocol` means all, and 0 to 65535 all ports."""

    number: int
    egress: bool
    allows: bool
    protocol: str = "-1"
    first: int = 0
    last: int = 65535
    target: str = ALL_ADDRESSES


@dataclass(frozen=True, kw_only=True)
class Subnet:
    """A subnet with its route table and network ACL; `public`: instances get public addresses.

    `shared`: it belongs to another account, whose endpoints and gateways cannot be seen. `zone`: its
    Availability Zone.
    """

    id: str
    exists: bool = True
    vpc: str = ""
    cidr: str = ""
    zone: str = ""
    public: bool = True
    ipv6_only: bool = False
    shared: bool = False
    free: int = 250
    table: str = ""
    routes: tuple[Route, ...] | None = None
    acl: str = ""
    acl_rules: tuple[AclRule, ...] | None = None

    @property
    def default_route(self) -> Route | None:
        return next((one for one in self.routes or () if one.destination == ALL_ADDRESSES), None)

    @property
    def row(self) -> tuple[str, str]:
        """What was looked at, and its state."""
        if not self.exists:
            state = "missing"
        elif self.default_route:
            state = self.default_route.target
        else:
            state = "unknown routes" if self.routes is None else "no default route"
        return f"Subnet {self.id}", state


@dataclass(frozen=True, kw_only=True)
class GroupRule:
    """A rule of a security group; its target is a CIDR, a prefix list or a group."""

    group: str
    protocol: str = "-1"
    first: int = 0
    last: int = 65535
    target: str = ALL_ADDRESSES


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A VPC endpoint; `service` is like ecs-agent, ecr.api or s3, `kind` Interface or Gateway.

    `subnets` and `groups` are those of an interface endpoint. `private_dns`: the service's own name
    leads to it.
    """

    service: str
    id: str = ""
    kind: str = "Interface"
    vpc: str = ""
    state: str = "available"
    private_dns: bool = True
    subnets: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class NatGateway:
    """A NAT gateway; a regional one has no subnet. `reason`: why it failed."""

    id: str
    subnet: str = ""
    state: str = "available"
    reason: str = ""
    private: bool = False


@dataclass(frozen=True, kw_only=True)
class PrefixList:
    """A prefix list of a service of AWS, such as s3."""

    id: str
    service: str
    cidrs: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Host:
    """What the name of a service or of a registry resolves to on this machine."""

    name: str
    addresses: tuple[str, ...] = ()
