"""What doctor knows of a stack: plain values that can be saved, sent to a colleague and read back.

None means not looked at. Of a secret there is what can be said without its values; of a job, not
its command and variables; of user data, only what it does.
"""

from __future__ import annotations

from dataclasses import dataclass

from batchreg import __version__


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The stack; `cause` is the first failure of its last operation."""

    name: str
    exists: bool = True
    status: str = ""
    reason: str = ""
    cause: str = ""
    refresh_minutes: int = 30


@dataclass(frozen=True, kw_only=True)
class Environment:
    """A compute environment."""

    name: str
    exists: bool = True
    type: str = "EC2"
    state: str = "ENABLED"
    status: str = "VALID"
    reason: str = ""
    max_vcpus: int = 0
    instance_types: tuple[str, ...] = ()
    image_type: str = ""
    service_role: str = ""
    cluster_exists: bool = True

    @property
    def fargate(self) -> bool:
        return self.type.startswith("FARGATE")


@dataclass(frozen=True, kw_only=True)
class Queue:
    """A job queue; `environments` are the names of its compute environments."""

    name: str
    exists: bool = True
    state: str = "ENABLED"
    status: str = "VALID"
    reason: str = ""
    environments: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job. `asked` tells whether it was named by --job. `reasons`: of itself and its attempts."""

    id: str
    name: str = ""
    exists: bool = True
    asked: bool = False
    queue: str = ""
    status: str = ""
    reasons: tuple[str, ...] = ()
    exit_code: int | None = None
    image: str = ""
    vcpus: float = 0
    memory: int = 0
    gpus: int = 0
    fargate: bool = False
    own_login: bool = False
    created: str = ""

    @property
    def label(self) -> str:
        return f"Job {self.name or self.id}"


@dataclass(frozen=True, kw_only=True)
class LaunchTemplate:
    """A launch template in the version that the compute environment uses.

    `differs`: its user data is not what batchreg would write, None where that is not known.
    `blocks`: the command in it that waits for the ECS agent, which itself waits for the boot.
    """

    id: str
    exists: bool = True
    version: int = 0
    latest: int = 0
    mime: bool = True
    bytes: int = 0
    has_login: bool = True
    differs: bool | None = None
    blocks: str = ""
    metadata: str = "enabled"
    machine_image: str = ""


@dataclass(frozen=True, kw_only=True)
class Secret:
    """A secret without its values. `keys` are those that batchreg knows, `others` counts the rest.

    `problem`: why the instance refuses it. `host`: the registry, as the ECS agent's key for it.
    `key`: the customer managed key, `key_state` that key's state.
    """

    name: str
    exists: bool = True
    deleted: str = ""
    changed: str = ""
    has_value: bool = True
    is_json: bool = True
    keys: tuple[str, ...] = ()
    others: int = 0
    host: str = ""
    problem: str = ""
    key: str = ""
    key_state: str = ""


@dataclass(frozen=True, kw_only=True)
class Role:
    """The instances' role. `denied`: (action, resource) of what IAM refuses it."""

    name: str
    profile: str = ""
    exists: bool = True
    profile_exists: bool = True
    in_profile: bool = True
    trusted: bool = True
    denied: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class AclRule:
    """An entry of a network ACL; -1 in `protocol` means all, and 0 to 65535 all ports."""

    number: int
    egress: bool
    allows: bool
    protocol: str = "-1"
    first: int = 0
    last: int = 65535
    target: str = "0.0.0.0/0"


@dataclass(frozen=True, kw_only=True)
class Subnet:
    """A subnet; `route` is where its default route leads, empty where it has none."""

    id: str
    exists: bool = True
    vpc: str = ""
    route: str = ""
    route_works: bool = True
    public: bool = True
    free: int = 250
    acl: str = ""
    acl_rules: tuple[AclRule, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Egress:
    """An outgoing rule of a security group; its target is a CIDR, a prefix list or a group."""

    group: str
    protocol: str = "-1"
    first: int = 0
    last: int = 65535
    target: str = "0.0.0.0/0"


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A VPC endpoint; `service` is like ecs-agent or s3."""

    service: str
    vpc: str = ""
    state: str = "available"
    private_dns: bool = True


@dataclass(frozen=True, kw_only=True)
class Instance:
    """An EC2 instance. `agent`: whether its ECS agent is connected, None where it never joined.

    `console`: lines of `registry_login` in the console's output, None where not looked at.
    """

    id: str
    state: str = "running"
    reason: str = ""
    launched: str = ""
    agent: bool | None = True
    console: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Quota:
    """How many vCPUs of a kind the account may run."""

    code: str
    name: str
    value: float


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the registry said about an image, asked from this machine."""

    image: str
    ok: bool
    cause: str
    text: str = ""
    registry: str = ""


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Something that could not be looked at, and the permission that it takes."""

    what: str
    permission: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All of it, as of `time`."""

    version: str = __version__
    time: str = ""
    region: str = ""
    stack: Stack | None = None
    environments: tuple[Environment, ...] | None = None
    queues: tuple[Queue, ...] | None = None
    jobs: tuple[Job, ...] | None = None
    launch_template: LaunchTemplate | None = None
    secrets: tuple[Secret, ...] | None = None
    role: Role | None = None
    service_linked_role: bool | None = None
    subnets: tuple[Subnet, ...] | None = None
    endpoints: tuple[Endpoint, ...] | None = None
    dns: bool | None = None
    groups_missing: tuple[str, ...] | None = None
    egress: tuple[Egress, ...] | None = None
    instances: tuple[Instance, ...] | None = None
    launch_failures: tuple[str, ...] | None = None
    quota: Quota | None = None
    image: Verdict | None = None
    not_looked_at: tuple[Gap, ...] = ()
