"""`engine`: the settings of a workflow engine for a stack."""

from __future__ import annotations

from typing import Any

from batchreg.cache import stack as cache_of
from batchreg.cli import target
from batchreg.cli.console import TextScreen
from batchreg.cli.jobs import queue_of
from batchreg.cli.output import write
from batchreg.jobs import engines
from batchreg.jobs.engines import Place
from batchreg.stack import registries


def run(
    *, engine: str, bucket: str | None, stack_name: str, output: str | None, **where: Any
) -> None:
    """Print the settings, and on stderr what they cannot say; `where` is for `target.session`."""
    found = target.find(stack_name, **where)
    present = found.existing()
    known = registries.find(found.client, present)
    cache = cache_of.of(present)
    place = Place(
        stack=present.name,
        region=present.id.split(":")[3],
        queue=queue_of(present),
        job_role=present.outputs.get("JobRoleArn", ""),
        bucket=bucket or engines.BUCKET,
        cached={one.host: f"{cache.host}/{one.prefix}" for one in cache.registries}
        if cache
        else {},
        others=tuple(one.host for one in known if not one.prefix),
    )
    settings, notes = engines.configuration(engines.ENGINES[engine], place)
    write(settings, output)
    for note in notes:
        TextScreen().note(note)
