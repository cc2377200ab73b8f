"""What `doctor` does between its options and the modules that look and judge."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import click

from batchreg.cli import target
from batchreg.cli.output import check_writable, say, write
from batchreg.cli.tables import columns, room_on_stdout
from batchreg.doctor import collect, savefile
from batchreg.doctor import findings as doctor
from batchreg.doctor.facts import Facts
from batchreg.doctor.findings import Finding
from batchreg.doctor.rules.breaks import unknown_paths
from batchreg.errors import BatchregError
from batchreg.registry import check as registry
from batchreg.registry.images import parse

INDENT = " " * 3


def run(
    *,
    stack_name: str,
    queue: str | None,
    compute_environment: str | None,
    job: str | None,
    image: str | None,
    save: str | None,
    html: str | None,
    source: Path | None,
    json_output: bool,
    profile: str | None,
    region: str | None,
    endpoint_url: str | None,
) -> int:
    """Look, judge, print, and draw; 0 where nothing is wrong, 1 where something is."""
    target.check_name(stack_name)
    named = target.is_named()
    if sum(map(bool, (named, queue, compute_environment))) > 1:
        raise click.UsageError("Give one of --stack-name, --queue and --compute-environment.")
    if save == html == "-":
        raise click.UsageError("Give a file to --save or to --html: both cannot write to stdout.")
    check_writable(html)
    if image:
        parse(image)  # what is wrong shows before AWS is asked
    if source:
        if queue or compute_environment or job or image or save:
            raise click.UsageError(
                "--from reads saved facts: leave out --queue, --compute-environment, --job, --image "
                "and --save."
            )
        seen = replace(_read(source), profile=profile or "")
        where = ""
    else:
        session = target.session(profile=profile, region=region, endpoint_url=endpoint_url)
        if job:
            with suppress(target.JobMissing):  # a finding of its own
                job = target.job_id(session, job, stack_name, queue)
        client = session.client("cloudformation")
        scope = collect.Scope(
            stack=stack_name,
            region=client.meta.region_name,
            profile=profile or "",
            queue=queue or "",
            environment=compute_environment or "",
            job=job,
            image=image,
            assumed=not named,
        )
        where = f" at {client.meta.endpoint_url} ({session.place})"
        seen = collect.collect(session.client, scope, check=registry.check)
        if save:
            write(savefile.dump(seen), save)
    findings = doctor.diagnose(seen)
    if not findings and not (seen.stack or seen.queues or seen.environments or seen.jobs):
        gap = min(seen.not_looked_at, key=lambda gap: gap.what != "stack", default=None)
        raise BatchregError(
            f"Nothing could be looked at: {gap.permission}: {gap.reason.rstrip('.')}."
            if gap
            else f"There was nothing to look at{where}."
        )
    if html:
        _draw(seen, findings, html)
    if "-" not in (save, html):
        say(_as_json(seen, findings) if json_output else "\n".join(_in_words(seen, findings)))
    return 1 if findings else 0


def _draw(seen: Facts, findings: list[Finding], html: str) -> None:
    """Write the page, which nobody else on this machine can read, and say where it is."""
    from batchreg.doctor.page.html import page

    write(page(seen, findings), html, private=True)
    if html != "-":
        click.echo(f"Page written to {html}", err=True)


def _read(path: Path) -> Facts:
    try:
        return savefile.load(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise BatchregError(f"Cannot read {path}: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise BatchregError(f"{path} is not UTF-8 text: save the facts again.") from None


def _as_json(seen: Facts, findings: list[Finding]) -> str:
    return json.dumps(
        {
            "type": "result",
            "findings": [asdict(finding) for finding in findings],
            "looked_at": [{"what": what, "is": state} for what, state in seen.rows()],
            "unknown": [{"what": what, "is": why} for what, why in unknown_paths(seen)],
            "not_looked_at": [asdict(gap) for gap in seen.not_looked_at],
        }
    )


def _in_words(seen: Facts, findings: list[Finding]) -> Iterator[str]:
    for number, finding in enumerate(findings, 1):
        yield click.style(f"{number}. {finding.text} ({finding.cause})", bold=True)
        yield from (f"   {line}" for line in finding.evidence)
        yield from (f"   Fix: {line}" for line in finding.fix)
        yield from (f"   Next: {line}" for line in finding.steps)
        yield ""
    rows = list(seen.rows())
    if not findings:
        yield click.style("Nothing is wrong with what was looked at:", bold=True)
        room = room_on_stdout()
        table = columns(rows, room and room - len(INDENT))
        yield from (f"{INDENT}{line}" for line in table)
    else:
        yield f"Looked at {len(rows)} things."
    if unknown := list(unknown_paths(seen)):
        yield "Not known:"
        yield from (f"   {what}: {why}" for what, why in unknown)
    if seen.not_looked_at:
        yield "Not looked at:"
        width = max(len(gap.permission) for gap in seen.not_looked_at)
        yield from (
            f"   {gap.permission:<{width}}  {gap.what}: {gap.reason}" for gap in seen.not_looked_at
        )
