"""The stages of collecting: what each has found, for the next to start from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from batchreg.cache import stack as caches
from batchreg.cache.names import Cache
from batchreg.stack import registries
from batchreg.stack import states as stacks
from batchreg.stack.registries import StackRegistry

if TYPE_CHECKING:
    from batchreg.render.text import Deployed

Raw = dict[str, Any]

DONE: Future[Any] = Future()  # of what there is nothing to ask for
DONE.set_result(None)


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What to look at: a stack, or a job queue, a compute environment or a job of any origin.

    `stack`: where nothing else is asked about, its name; else one that the queue may belong to.
    `assumed`: nobody has named the stack. `profile`: as the user gave it. `image`: possibly one.
    """

    stack: str = ""
    region: str
    profile: str = ""
    queue: str = ""
    environment: str = ""
    job: str | None = None
    image: str | None = None
    assumed: bool = False

    @property
    def by_stack(self) -> bool:
        """Tell whether looking begins at the stack."""
        return not (self.queue or self.environment or (self.job and self.assumed))


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where looking begins: the stack and its template (to come), and the job that was asked about.

    `environments` are names or ARNs, in order.
    """

    stack: stacks.Stack | None = None
    exists: bool | None = None  # None: not allowed to look
    template: Future[str | None] = field(default=DONE, repr=False)
    job: Raw = field(default_factory=dict, repr=False)
    environments: tuple[str, ...] = ()

    @cached_property
    def deployed(self) -> Deployed | None:
        """What the stack's template was rendered from, None if it is not batchreg's."""
        from batchreg.render.text import read_template

        return read_template(self.template.result() or "")

    @property
    def kind(self) -> str:
        """The kind of the stack, as in facts.Stack; by its parameters where its template is unknown."""
        if self.deployed:
            return "companion" if self.deployed.attached else "batchreg"
        unknown = self.template.result() is None and stacks.may_be_ours(self.parameters)
        return "batchreg" if unknown else "foreign"

    @property
    def registries(self) -> tuple[StackRegistry, ...]:
        """The stack's registries; its template is read only where the secrets are not its own."""
        if not self.stack:
            return ()
        own = registries.of(self.stack, None)
        deployed = None if own else self.deployed
        return registries.of(self.stack, deployed.settings) if deployed else own

    @cached_property
    def cache(self) -> Cache | None:
        """What ECR pulls for the stack, None if it has no pull-through cache."""
        return caches.of(self.stack) if self.stack else None

    @property
    def cached(self) -> tuple[StackRegistry, ...]:
        """The stack's registries that ECR pulls from."""
        return tuple(one for one in self.registries if one.prefix)

    @property
    def partition(self) -> str:
        """The partition of the stack, such as aws."""
        return self.stack.id.split(":")[1] if self.stack and ":" in self.stack.id else "aws"

    @property
    def outputs(self) -> Mapping[str, str]:
        return self.stack.outputs if self.stack else {}

    @property
    def parameters(self) -> Mapping[str, str]:
        return self.stack.parameters if self.stack else {}


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where jobs run on EC2: a compute environment's resources as AWS Batch describes them.

    `profile`: the instance profile, by name or ARN. `cluster`: the ARN of its ECS cluster.
    `service_role`: the ARN of the role that AWS Batch takes for it.
    """

    name: str = ""
    resources: Mapping[str, Any] = field(default_factory=dict)
    profile: str = ""
    cluster: str = ""
    service_role: str = ""

    @property
    def on_spot(self) -> bool:
        return self.resources.get("type") == "SPOT"

    @property
    def by_fleet(self) -> bool:
        """Tell whether a Spot Fleet starts its instances, and not an Auto Scaling group."""
        return self.on_spot and self.resources.get("allocationStrategy", "BEST_FIT") == "BEST_FIT"


@dataclass(frozen=True, kw_only=True)
class Computing:
    """What runs the jobs: compute environments as AWS Batch describes them, by name.

    `raws` is None where it could not be looked at. `places`: those on EC2, at least one.
    """

    names: tuple[str, ...] = ()
    raws: Mapping[str, Raw] | None = None
    places: tuple[Place, ...] = (Place(),)


def is_ecr(image: str) -> bool:
    """Tell whether an image is in a private repository of ECR, which takes a role's permissions."""
    return re.match(r"\d{12}\.dkr[.-]ecr[.-]", image) is not None


def places(names: Sequence[str], raws: Mapping[str, Raw], profile: str) -> tuple[Place, ...]:
    """Return the compute environments on EC2 in order; `profile`: what a stack says of it."""
    found = tuple(
        Place(
            name=name,
            resources=resources,
            profile=resources.get("instanceRole") or profile,
            cluster=raws[name].get("ecsClusterArn", ""),
            service_role=raws[name].get("serviceRole", ""),
        )
        for name in names
        if name in raws
        and (resources := raws[name].get("computeResources", {}))
        and resources.get("type") in ("EC2", "SPOT")
    )
    if found or raws:
        return found or (Place(),)
    return (Place(profile=profile),)
