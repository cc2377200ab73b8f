"""The stages of collecting: what each has found, for the next to start from."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

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
    """What to look at: a stack, possibly a job, possibly an image; `profile` as the user gave it."""

    stack: str
    region: str
    profile: str = ""
    job: str | None = None
    image: str | None = None


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where looking begins: the stack, its template (to come), and the job that was asked about."""

    stack: stacks.Stack | None = None
    exists: bool | None = None  # None: not allowed to look
    template: Future[str | None] = field(default=DONE, repr=False)
    job: Raw = field(default_factory=dict, repr=False)

    @property
    def deployed(self) -> Deployed | None:
        """What the stack's template was rendered from, None if it is not batchreg's."""
        from batchreg.render.text import read_template

        return read_template(self.template.result() or "")

    @property
    def registries(self) -> tuple[StackRegistry, ...]:
        """The stack's registries; its template is read only where the secrets are not its own."""
        if not self.stack:
            return ()
        own = registries.of(self.stack, None)
        deployed = None if own else self.deployed
        return registries.of(self.stack, deployed.settings) if deployed else own

    @property
    def outputs(self) -> Mapping[str, str]:
        return self.stack.outputs if self.stack else {}

    @property
    def parameters(self) -> Mapping[str, str]:
        return self.stack.parameters if self.stack else {}


@dataclass(frozen=True, kw_only=True)
class Computing:
    """What runs the jobs: compute environments as AWS Batch describes them, by name.

    `raws` is None where it could not be looked at; `main` are the resources of the one on EC2.
    """

    names: tuple[str, ...]
    raws: Mapping[str, Raw] | None
    main: Mapping[str, Any]
    profile: str


def is_fargate(raw: Raw) -> bool:
    return str(raw.get("computeResources", {}).get("type", "")).startswith("FARGATE")


def on_ec2(raws: Mapping[str, Raw]) -> Raw:
    """Return the resources of the compute environment on EC2, empty where there is none."""
    found: list[Raw] = [
        raw.get("computeResources", {}) for raw in raws.values() if not is_fargate(raw)
    ]
    return found[0] if found else {}
