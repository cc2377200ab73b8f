"""What doctor knows of a stack: plain values that can be saved, sent to a colleague and read back.

None means not looked at. A secret's values are never here; nor are a job's command and variables;
of user data, only what it does. `rows` says of each fact in a line what was looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

from batchreg import __version__
from batchreg.doctor.machines import InstanceType, MachineImage
from batchreg.doctor.topology import Endpoint, GroupRule, Host, NatGateway, PrefixList, Subnet

Row = tuple[str, str]  # what was looked at, and its state


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The stack; `cause` is the first failure of its last operation.

    `kind`: "batchreg" for one that deploy made, "companion" for one of attach, "foreign" for any
    other. `environments`: the compute environments in its outputs. `refresh_minutes`,
    `root_volume_gib` and `kms_key` are its parameters.
    """

    name: str
    kind: str = "batchreg"
    environments: tuple[str, ...] = ()
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
    """A compute environment. `type`: EC2, SPOT, FARGATE and so on, or UNMANAGED.

    `created_by`: what seems to have created it. `updatable`: AWS Batch can update it in place.
    `strategy`: how it chooses instance types. `desired_vcpus`: of the instances that AWS Batch wants
    at the moment. `cluster`: the name of its ECS cluster. `offered`: the instance types that it can
    choose from, None where they were not looked at. `custom_image`: it names a machine image.
    """

    name: str
    exists: bool = True
    type: str = "EC2"
    orchestration: str = "ECS"
    created_by: str = ""
    updatable: bool = True
    state: str = "ENABLED"
    status: str = "VALID"
    reason: str = ""
    max_vcpus: int = 0
    desired_vcpus: int = 0
    strategy: str = ""
    instance_types: tuple[str, ...] = ()
    offered: tuple[InstanceType, ...] | None = None
    image_type: str = ""
    custom_image: bool = False
    service_role: str = ""
    cluster: str = ""
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
    """A job queue; `environments` are the names of its compute environments.

    `running`: how many of its jobs run, None where that was not looked at.
    """

    name: str
    exists: bool = True
    state: str = "ENABLED"
    status: str = "VALID"
    reason: str = ""
    environments: tuple[str, ...] = ()
    running: int | None = None

    @property
    def row(self) -> Row:
        state = f"{self.status}, {self.state}" if self.exists else "missing"
        state += f", {self.running} jobs run" if self.running else ""
        return f"Job queue {self.name}", state


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job. `asked`: it was named by --job. `reasons`: of itself, its container, its attempts.

    `execution_role` and `role` are ARNs. `own_credentials`: its definition has repositoryCredentials.
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
    execution_role: str = ""
    role: str = ""
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
        code = f", exit code {self.exit_code}" if self.exit_code else ""
        return self.label, f"{self.status or 'missing'}{code}"


@dataclass(frozen=True, kw_only=True)
class LaunchTemplate:
    """A launch template in the version that the compute environment uses.

    `differs`: its user data is not what the stack's template says, None where that is not known.
    `blocks`: the command in it that waits for the ECS agent, which itself waits for the boot.
    `proxy`: it sets a proxy. `cluster`: the ECS cluster that it tells the agent to join, `stops`: a
    command in it that stops the agent, `installs_agent`: it names the agent's package.
    `restorable`: the newest version that is as the stack's template says, 0 without one.
    `newest_differs`: the newest version has other content than the one in use; `newest_fetches`: it
    fetches credentials. `secret_ids`: of the secrets that it fetches. `sets_credentials`: its user
    data sets registry credentials without our program.
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
    cluster: str = ""
    stops: str = ""
    installs_agent: bool = False
    metadata: str = "enabled"
    machine_image: str = ""
    restorable: int = 0
    newest_differs: bool = True
    newest_fetches: bool = True
    secret_ids: tuple[str, ...] = ()
    sets_credentials: bool = False

    @property
    def row(self) -> Row:
        return f"Launch template {self.id}", f"version {self.version}" if self.exists else "missing"


@dataclass(frozen=True, kw_only=True)
class Secret:
    """A secret without its values. `keys` are those that batchreg knows, `others` counts the rest.

    `owned`: the stack made it. `of_job`: it is in a job's repositoryCredentials. `registry`: the
    registry's address as the stack or the secret gives it; `host`: as the ECS agent's key for it.
    `problem`: why the instance refuses it. `key`: the customer managed key, `key_state` its state.
    `seen`: AWS has answered about it; else no more is known than its name. `cached`: it is for
    ECR's pull-through cache, and no instance reads it.
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
    seen: bool = True
    cached: bool = False

    @property
    def region(self) -> str:
        return self._arn_part(3)

    @property
    def account(self) -> str:
        return self._arn_part(4)

    def _arn_part(self, number: int) -> str:
        parts = self.arn.split(":")
        return parts[number] if len(parts) > 6 else ""

    @property
    def row(self) -> Row:
        state = f"changed {self.changed}" if self.changed else "exists"
        return f"Secret {self.name}", state if self.exists else "missing"


@dataclass(frozen=True, kw_only=True)
class CacheRule:
    """A rule of ECR's pull-through cache, for one registry of the stack.

    `prefix`: of the cached images' repositories. `registry` as `deploy --registry` takes it, `host`
    as the ECS agent's key for it. `url`: of the registry, as the rule of the stack has it.
    `expected`: the ARN of the stack's secret; `secret`: of the one that the rule has, empty where it
    was not looked at. `valid`: ECR pulls with it, None where ECR was not asked; `failure`: why not.
    """

    prefix: str
    registry: str
    host: str
    url: str = ""
    exists: bool = True
    expected: str = ""
    secret: str = ""
    valid: bool | None = None
    failure: str = ""

    @property
    def row(self) -> Row:
        state = "" if self.valid is None else ", valid" if self.valid else ", not valid"
        where = f"pulled through ECR as {self.prefix}/{state}" if self.exists else "rule missing"
        return f"Registry {self.registry}", where


@dataclass(frozen=True, kw_only=True)
class Denial:
    """What IAM refuses a role.

    `by`: "" where nothing allows it, "statement" for an explicit deny in `policy`, "boundary" for
    the role's permissions boundary, "organization" for a service control policy, "resource" for an
    explicit deny in the policy of the resource or of ECR's registry.
    """

    action: str
    resource: str = "*"
    by: str = ""
    policy: str = ""


@dataclass(frozen=True, kw_only=True)
class Role:
    """The instances' role, or one that a service takes. `trust`: its policy, where a service is missing.

    `held`: the role that is in the instance profile. `seen`: IAM has answered about it. `simulated`:
    IAM has told which permissions it has.
    """

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
    seen: bool = True
    simulated: bool = True

    @property
    def row(self) -> Row:
        state = "exists"
        if not self.exists:
            state = "missing"
        elif self.denied:
            state = f"{len(self.denied)} permissions missing"
        elif self.simulated:
            state = "has its permissions"
        return f"Role {self.name}", state


@dataclass(frozen=True, kw_only=True)
class Instance:
    """An EC2 instance. `agent`: whether its ECS agent is connected, None where it never joined.

    `agent_seen`: ECS was asked. `status`, `memory` (in MiB for all jobs together) and `awslogs` (that
    log driver) are what its agent has registered, unknown without one. `console`: batchreg's lines in
    the console's output, None where not looked at.
    """

    id: str
    type: str = ""
    state: str = "running"
    reason: str = ""
    launched: str = ""
    agent: bool | None = True
    agent_seen: bool = True
    status: str = ""
    memory: int = 0
    awslogs: bool | None = None
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
    """What the registry said about an image, asked from this machine: a fact and a next step.

    `anonymous`: it was asked without credentials.
    """

    image: str
    ok: bool
    cause: str
    fact: str = ""
    step: str = ""
    registry: str = ""
    anonymous: bool = False

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
    """All of it, as of `time`. `region` and `profile`: what doctor was asked about.

    `stack_name`: of the stack that was asked about, or that the queue belongs to; empty where no
    stack of batchreg's does. `account`: its number. `environment`: the compute environment on EC2
    that the launch template, the role, the network and the instances belong to. `others`: the same
    facts about the queue's further environments. `running_images`: images of jobs that run.
    `queue_names`: the queues of the account, where what was asked about does not exist.
    `cache_rules`: of the registries that ECR pulls from for the stack; `cache_host`: of ECR.
    `execution_roles`: of jobs on Fargate whose images ECR pulls.

    `subnets` are those of the compute environment, `passed_subnets` those in which packets meet a
    NAT gateway, an endpoint or a registry. `groups` are the instances' security groups, `egress`
    their outbound rules; `ingress` are the inbound rules of the endpoints' groups.
    `detached_gateways` are internet gateways that are not attached to the VPC; of a VPC that
    another account shares, gateways and endpoints are not described. `resolvers` are the VPC's own
    name servers, empty with those of Amazon alone; `name_servers`: they have any. `machine_image`:
    the one that a person has chosen in place of AWS Batch's.

    `service_role`: one of the user's own that AWS Batch takes. `job_roles`: the execution roles and
    the roles of the jobs that wait. `spot_role`: EC2's service-linked role for Spot exists;
    `fleet_role` is the user's own for a Spot Fleet, and `spot_failures` are what the fleet reports.
    """

    version: str = __version__
    time: str = ""
    stack_name: str = ""
    region: str = ""
    profile: str = ""
    account: str = ""
    stack: Stack | None = None
    environments: tuple[Environment, ...] | None = None
    queues: tuple[Queue, ...] | None = None
    jobs: tuple[Job, ...] | None = None
    running_images: tuple[str, ...] = ()
    queue_names: tuple[str, ...] | None = None
    environment: str = ""
    launch_template: LaunchTemplate | None = None
    secrets: tuple[Secret, ...] | None = None
    cache_host: str = ""
    cache_rules: tuple[CacheRule, ...] = ()
    execution_roles: tuple[Role, ...] = ()
    role: Role | None = None
    service_linked_role: bool | None = None
    service_role: Role | None = None
    job_roles: tuple[Role, ...] | None = None
    spot_role: bool | None = None
    fleet_role: Role | None = None
    subnets: tuple[Subnet, ...] | None = None
    passed_subnets: tuple[Subnet, ...] | None = None
    detached_gateways: tuple[str, ...] | None = None
    nat_gateways: tuple[NatGateway, ...] | None = None
    endpoints: tuple[Endpoint, ...] | None = None
    prefix_lists: tuple[PrefixList, ...] | None = None
    hosts: tuple[Host, ...] | None = None
    dns: bool | None = None
    dns_hostnames: bool | None = None
    resolvers: tuple[str, ...] | None = None
    name_servers: bool | None = None
    groups: tuple[str, ...] | None = None
    groups_missing: tuple[str, ...] | None = None
    egress: tuple[GroupRule, ...] | None = None
    ingress: tuple[GroupRule, ...] | None = None
    instances: tuple[Instance, ...] | None = None
    launch_failures: tuple[str, ...] | None = None
    spot_failures: tuple[str, ...] | None = None
    quota: Quota | None = None
    machine_image: MachineImage | None = None
    image: Verdict | None = None
    others: tuple[Facts, ...] = ()
    not_looked_at: tuple[Gap, ...] = ()

    @property
    def ours(self) -> bool:
        """Tell whether a stack that deploy made is what is looked at: deploy can change it."""
        return bool(self.stack_name) and (self.stack is None or self.stack.kind == "batchreg")

    @property
    def attached(self) -> bool:
        """Tell whether the environment that is looked at is the one of a companion stack."""
        stack = self.stack
        return bool(stack and stack.kind == "companion" and self.environment in stack.environments)

    @property
    def on_instances(self) -> tuple[Secret, ...]:
        """The secrets that the instances are given: not a job's own, nor those that ECR reads."""
        return tuple(one for one in self.secrets or () if not one.of_job and not one.cached)

    def views(self) -> Iterator[Facts]:
        """Yield the facts as seen from each compute environment on EC2."""
        yield self
        for other in self.others:
            own = {
                field.name: getattr(other, field.name)
                for field in fields(other)
                if field.name not in SHARED
            }
            yield replace(self, others=(), **own)

    def rows(self) -> Iterator[Row]:
        """Yield a row for all that was looked at."""
        return iter(dict.fromkeys(row for view in self.views() for row in view._rows()))

    def _rows(self) -> Iterator[Row]:
        if self.stack:
            yield self.stack.row
        yield from (one.row for one in self.environments or ())
        yield from (one.row for one in self.queues or ())
        yield from (one.row for one in self.jobs or ())
        if self.jobs == ():
            yield "Jobs", "none waits, and no failure within the last hour is unresolved"
        if self.launch_template and self.launch_template.id:
            yield self.launch_template.row
        yield from (one.row for one in self.secrets or () if one.seen)
        yield from (one.row for one in self.cache_rules)
        if self.role and self.role.name and self.role.seen:
            yield self.role.row
        if self.service_linked_role is not None:
            yield "AWSServiceRoleForBatch", "exists" if self.service_linked_role else "missing"
        if self.spot_role is not None:
            yield "AWSServiceRoleForEC2Spot", "exists" if self.spot_role else "missing"
        others = (self.service_role, self.fleet_role, *(self.job_roles or ()))
        yield from (one.row for one in others if one and one.seen)
        yield from (one.row for one in self.subnets or ())
        if self.egress is not None:
            yield "Security groups", f"{len(self.egress)} outbound rules"
        if self.endpoints is not None:
            yield "VPC endpoints", ", ".join(one.service for one in self.endpoints) or "none"
        if self.instances is not None:
            running = sum(one.state == "running" for one in self.instances)
            agents = sum(one.agent is True for one in self.instances if one.state == "running")
            joined = f", {_count(agents, 'agent')} connected"
            seen = all(one.agent_seen for one in self.instances)
            yield "Instances", f"{running} running{joined if seen else ''}"
        if self.launch_failures is not None:
            yield "Auto Scaling", _count(len(self.launch_failures), "failed launch", "es")
        if self.spot_failures is not None:
            yield "Spot Fleet", _count(len(self.spot_failures), "failure")
        if self.quota:
            yield self.quota.row
        if self.machine_image:
            yield self.machine_image.row
        if self.image:
            yield self.image.row


def _count(number: int, what: str, plural: str = "s") -> str:
    return f"{number} {what}{'' if number == 1 else plural}"


# What all of a queue's environments have in common; the rest of Facts is about one of them.
SHARED = frozenset(
    (
        "version",
        "time",
        "stack_name",
        "region",
        "profile",
        "account",
        "stack",
        "environments",
        "queues",
        "jobs",
        "running_images",
        "queue_names",
        "secrets",
        "cache_host",
        "cache_rules",
        "execution_roles",
        "service_linked_role",
        "job_roles",
        "image",
        "others",
        "not_looked_at",
    )
)
