"""What doctor knows of a stack: plain values that can be saved, sent to a colleague and read back.

None means not looked at. A secret's values are never here; nor are a job's command and variables;
of user data, only what it does. `rows` says of each fact in a line what was looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from batchreg import __version__
from batchreg.doctor.topology import Endpoint, GroupRule, Host, NatGateway, PrefixList, Subnet

Row = tuple[str, str]  # what was looked at, and its state


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The stack; `cause` is the first failure of its last operation.

    `refresh_minutes`, `root_volume_gib` and `kms_key` are its parameters.
    """

    name: str
    exists: bool = True
    status: str = ""
    reason: str = ""
    cause: str = ""
    refresh_minutes: int = 30
    root_volume_gib: int = 0
    kms_key: str = ""

    @property
    def row(self) -> Row:
        return f"Stack {self.name}", self.status or "missing"


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

    @property
    def row(self) -> Row:
        state = f"{self.status}, {self.state}" if self.exists else "missing"
        return f"Compute environment {self.name}", state


@dataclass(frozen=True, kw_only=True)
class Queue:
    """A job queue; `environments` are the names of its compute environments."""

    name: str
    exists: bool = True
    state: str = "ENABLED"
    status: str = "VALID"
    reason: str = ""
    environments: tuple[str, ...] = ()

    @property
    def row(self) -> Row:
        state = f"{self.status}, {self.state}" if self.exists else "missing"
        return f"Job queue {self.name}", state


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job. `asked`: it was named by --job. `reasons`: of itself, its container, its attempts.

    `own_credentials`: its definition has repositoryCredentials.
    """

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
    own_credentials: bool = False
    created: str = ""

    @property
    def label(self) -> str:
        return f"Job {self.name or self.id}"

    @property
    def stuck(self) -> bool:
        """Tell whether it waits or has failed: only then do its reasons explain anything."""
        return self.exists and self.status not in ("RUNNING", "SUCCEEDED")

    @property
    def row(self) -> Row:
        return self.label, self.status or "missing"


@dataclass(frozen=True, kw_only=True)
class LaunchTemplate:
    """A launch template in the version that the compute environment uses.

    `differs`: its user data is not what the stack's template says, None where that is not known.
    `blocks`: the command in it that waits for the ECS agent, which itself waits for the boot.
    `proxy`: it sets a proxy.
    `restorable`: the newest version that is as the stack's template says, 0 without one.
    """

    id: str
    exists: bool = True
    version: int = 0
    latest: int = 0
    mime: bool = True
    bytes: int = 0
    fetches_credentials: bool = True
    differs: bool | None = None
    blocks: str = ""
    proxy: bool = False
    metadata: str = "enabled"
    machine_image: str = ""
    restorable: int = 0

    @property
    def row(self) -> Row:
        return f"Launch template {self.id}", f"version {self.version}" if self.exists else "missing"


@dataclass(frozen=True, kw_only=True)
class Secret:
    """A secret without its values. `keys` are those that batchreg knows, `others` counts the rest.

    `owned`: the stack made it. `of_job`: it is in a job's repositoryCredentials. `registry`: the
    registry's address as the stack or the secret gives it; `host`: as the ECS agent's key for it.
    `problem`: why the instance refuses it. `key`: the customer managed key, `key_state` its state.
    """

    name: str
    arn: str = ""
    owned: bool = False
    of_job: bool = False
    registry: str = ""
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

    @property
    def row(self) -> Row:
        state = f"changed {self.changed}" if self.changed else "exists"
        return f"Secret {self.name}", state if self.exists else "missing"


@dataclass(frozen=True, kw_only=True)
class Denial:
    """What IAM refuses a role.

    `by`: "" where nothing allows it, "statement" for an explicit deny in `policy`, "boundary" for
    the role's permissions boundary, "organization" for a service control policy.
    """

    action: str
    resource: str = "*"
    by: str = ""
    policy: str = ""


@dataclass(frozen=True, kw_only=True)
class Role:
    """The instances' role. `held`: the role that is in the instance profile. `trust`: its policy."""

    name: str
    partition: str = "aws"
    profile: str = ""
    exists: bool = True
    profile_exists: bool = True
    in_profile: bool = True
    held: str = ""
    trusted: bool = True
    trust: str = ""
    denied: tuple[Denial, ...] = ()

    @property
    def row(self) -> Row:
        missing = f"{len(self.denied)} permissions missing" if self.denied else ""
        return f"Role {self.name}", missing or ("has its permissions" if self.exists else "missing")


@dataclass(frozen=True, kw_only=True)
class Instance:
    """An EC2 instance. `agent`: whether its ECS agent is connected, None where it never joined.

    `console`: batchreg's lines in the console's output, None where not looked at.
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

    @property
    def row(self) -> Row:
        return self.name, f"{self.value:g} vCPUs"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the registry said about an image, asked from this machine: a fact and a next step."""

    image: str
    ok: bool
    cause: str
    fact: str = ""
    step: str = ""
    registry: str = ""

    @property
    def row(self) -> Row:
        return f"Image {self.image}", self.cause


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Something that could not be looked at, and the permission that is needed for it."""

    what: str
    permission: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All of it, as of `time`. `stack_name`, `region` and `profile`: what doctor was asked about.

    `subnets` are those of the compute environment, `passed_subnets` those in which packets meet a
    NAT gateway, an endpoint or a registry. `groups` are the instances' security groups, `egress`
    their outbound rules; `ingress` are the inbound rules of the endpoints' groups. `resolvers` are
    the VPC's own name servers, empty with those of Amazon alone.
    """

    version: str = __version__
    time: str = ""
    stack_name: str = ""
    region: str = ""
    profile: str = ""
    stack: Stack | None = None
    environments: tuple[Environment, ...] | None = None
    queues: tuple[Queue, ...] | None = None
    jobs: tuple[Job, ...] | None = None
    launch_template: LaunchTemplate | None = None
    secrets: tuple[Secret, ...] | None = None
    role: Role | None = None
    service_linked_role: bool | None = None
    subnets: tuple[Subnet, ...] | None = None
    passed_subnets: tuple[Subnet, ...] | None = None
    internet_gateways: tuple[str, ...] | None = None
    nat_gateways: tuple[NatGateway, ...] | None = None
    endpoints: tuple[Endpoint, ...] | None = None
    prefix_lists: tuple[PrefixList, ...] | None = None
    hosts: tuple[Host, ...] | None = None
    dns: bool | None = None
    dns_hostnames: bool | None = None
    resolvers: tuple[str, ...] | None = None
    groups: tuple[str, ...] | None = None
    groups_missing: tuple[str, ...] | None = None
    egress: tuple[GroupRule, ...] | None = None
    ingress: tuple[GroupRule, ...] | None = None
    instances: tuple[Instance, ...] | None = None
    launch_failures: tuple[str, ...] | None = None
    quota: Quota | None = None
    image: Verdict | None = None
    not_looked_at: tuple[Gap, ...] = ()

    def rows(self) -> Iterator[Row]:
        """Yield a row for all that was looked at."""
        if self.stack:
            yield self.stack.row
        yield from (one.row for one in self.environments or ())
        yield from (one.row for one in self.queues or ())
        yield from (one.row for one in self.jobs or ())
        if self.jobs == ():
            yield "Jobs", "none waits, and none failed within the last hour"
        if self.launch_template:
            yield self.launch_template.row
        yield from (one.row for one in self.secrets or ())
        if self.role:
            yield self.role.row
        if self.service_linked_role is not None:
            yield "AWSServiceRoleForBatch", "exists" if self.service_linked_role else "missing"
        yield from (one.row for one in self.subnets or ())
        if self.egress is not None:
            yield "Security groups", f"{len(self.egress)} outbound rules"
        if self.endpoints is not None:
            yield "VPC endpoints", ", ".join(one.service for one in self.endpoints) or "none"
        if self.instances is not None:
            running = sum(one.state == "running" for one in self.instances)
            agents = sum(one.agent is True for one in self.instances if one.state == "running")
            yield "Instances", f"{running} running, {agents} agents connected"
        if self.launch_failures is not None:
            yield "Auto Scaling", f"{len(self.launch_failures)} failed launches"
        if self.quota:
            yield self.quota.row
        if self.image:
            yield self.image.row
