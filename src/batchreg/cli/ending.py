"""What the user needs after `deploy` and `attach`: the queue, a job, the console, an engine."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator

from batchreg.cache import stack as cache_of
from batchreg.cli.console import AnyScreen
from batchreg.registry_login import HUB
from batchreg.stack import registries
from batchreg.stack.states import Stack

# By partition; AWS has others, whose consoles are not public.
CONSOLES = {
    "aws": "console.aws.amazon.com",
    "aws-cn": "console.amazonaws.cn",
    "aws-us-gov": "console.amazonaws-us-gov.com",
}


def show(stack: Stack, screen: AnyScreen, images: tuple[str, ...] = ()) -> None:
    """Print the ending on stderr; `images`: those that the user has named."""
    for line in lines(stack, screen, images):
        screen.tell(line)


def queue_line(stack: Stack | None) -> str:
    """Return what goes to stdout, for scripts: the queue's name, or nothing for a person.

    On a terminal the ending shows it already.
    """
    queue = stack.outputs.get("JobQueueArn") if stack else None
    if not queue or (sys.stdout.isatty() and sys.stderr.isatty()):
        return ""
    return f"{_name(queue)}\n"


def lines(stack: Stack, screen: AnyScreen, images: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield a line for each thing that the user needs next."""
    queue = stack.outputs.get("JobQueueArn")
    if not queue:
        return
    here = ("--stack-name", stack.name)
    image = images[0] if images else _example(stack)
    yield _row("Job queue", _name(queue))
    yield _row("Submit a job", f"{screen.command('submit', *here)} {shlex.quote(image)}")
    if cache := cache_of.of(stack):
        one = cache.registries[0]
        name = f"{cache.host}/{one.prefix}/OWNER/IMAGE"
        yield _row("Image in ECR", f"{name}, of {one.host}/OWNER/IMAGE")
    yield _row("Engine", screen.command("engine", "nextflow", *here))
    if link := console_link(queue):
        yield _row("Console", link)


def console_link(queue: str) -> str:
    """Return the address of a queue's page in the AWS console, by its ARN; empty if not known."""
    _, partition, _, region, *_ = queue.split(":")
    if partition not in CONSOLES:
        return ""
    return (
        f"https://{region}.{CONSOLES[partition]}/batch/home?region={region}#queues/detail/{queue}"
    )


def _example(stack: Stack) -> str:
    """Return the form of an image's name in the stack's first registry."""
    key = next((one.key for one in registries.of(stack, None) if one.key), None)
    return f"{'docker.io' if key == HUB else key}/OWNER/IMAGE" if key else "IMAGE"


def _name(arn: str) -> str:
    return arn.rpartition("/")[2]


def _row(what: str, text: str) -> str:
    return f"{what:<12}  {text}"
