"""Which stack of batchreg's a compute environment belongs to, if any does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from batchreg.attach.environment import companion_name
from batchreg.render.text import Deployed
from batchreg.stack import states
from batchreg.stack.states import Stack

STACK_TAG = "aws:cloudformation:stack-name"


def tagged(raws: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the stacks that environments name in their tags, as CloudFormation leaves them."""
    for raw in raws:
        if name := raw.get("tags", {}).get(STACK_TAG):
            yield name


def belongs(stack: Stack, raws: Iterable[Mapping[str, Any]]) -> bool:
    """Tell whether a stack's outputs name one of the environments."""
    known = {raw["computeEnvironmentArn"] for raw in raws}
    return bool(known & {*stack.arns("ComputeEnvironmentArn")})


def find(
    clients: Callable[[str], Any], raws: Iterable[Mapping[str, Any]], more: Iterable[str] = ()
) -> tuple[Stack, Deployed] | None:
    """Return the stack of batchreg's that has one of the environments, and its settings.

    `raws`: of DescribeComputeEnvironments. `more`: names of stacks that may be it.
    """
    raws = list(raws)
    client = clients("cloudformation")
    companions = (companion_name(raw["computeEnvironmentName"]) for raw in raws)
    names = dict.fromkeys([*companions, *tagged(raws), *more])
    with ThreadPoolExecutor() as pool:
        for stack in pool.map(lambda name: states.find(client, name), names):
            if stack and belongs(stack, raws) and (deployed := states.deployed(client, stack)):
                return stack, deployed
    return None
