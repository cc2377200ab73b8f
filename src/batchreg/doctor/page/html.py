"""Findings and facts as one HTML page, which needs no other file, no network and no JavaScript.

The markup is also well-formed XML. The policy in its head keeps a browser from running or loading
anything, whatever a job's name or an error message contains.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from batchreg.doctor.facts import Facts, Row
from batchreg.doctor.findings import Finding
from batchreg.doctor.page import credentials, drawing, packets
from batchreg.doctor.page.drawing import text
from batchreg.doctor.page.style import STYLE
from batchreg.doctor.page.traces import Figure, Mark
from batchreg.doctor.rules.breaks import listed, unknown_paths

POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(facts: Facts, findings: Sequence[Finding]) -> str:
    """Return the page's text; `facts` are without secrets, and so is the page."""
    verdict = findings[0].text if findings else "Nothing is wrong with what was looked at"
    body = "\n".join(
        (
            *_header(facts, findings, verdict),
            *_findings(findings),
            *_packets(facts),
            *_credentials(facts, findings),
            *_examined(facts),
        )
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        '<meta name="color-scheme" content="light dark"/>\n'
        f"<title>{text(verdict)} - batchreg doctor</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _header(facts: Facts, findings: Sequence[Finding], verdict: str) -> Iterator[str]:
    yield f'<header class="{"bad" if findings else "good"}">'
    yield '<p class="program">batchreg doctor</p>'
    yield f'<h1><span class="badge">{"✗" if findings else "✓"}</span>{text(verdict)}</h1>'
    more = [f"{len(findings) - 1} more below"] if len(findings) > 1 else []
    if facts.not_looked_at:
        more.append(f"{_count(len(facts.not_looked_at), 'thing')} could not be looked at")
    if more:
        yield f'<p class="more">{text("; ".join(more))}.</p>'
    yield '<dl class="about">'
    for name, value in _about(facts):
        yield f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>"
    yield "</dl></header>"


def _about(facts: Facts) -> Iterator[Row]:
    """Yield what was examined: in a line each, what it is and its name."""
    jobs = [one.name or one.id for one in facts.jobs or () if one.asked]
    named = (
        ("Stack", [facts.stack.name] if facts.stack else []),
        ("Job queue", [one.name for one in facts.queues or ()]),
        ("Compute environment", [one.name for one in facts.environments or ()]),
        ("Job", jobs),
        ("Account", [facts.account] if facts.account else []),
        ("Region", [facts.region] if facts.region else []),
    )
    yield from ((what, listed(names)) for what, names in named if names)
    if facts.time:
        yield "Time", _time(facts.time)


def _time(stamp: str) -> str:
    try:
        return f"{datetime.fromisoformat(stamp):%Y-%m-%d %H:%M %Z}".strip()
    except ValueError:
        return stamp


def _findings(findings: Sequence[Finding]) -> Iterator[str]:
    if not findings:
        return
    yield "<section><h2>Findings</h2>"
    if len(findings) > 1:
        yield '<p class="note">The most likely cause comes first.</p>'
    yield '<ol class="findings">'
    for number, finding in enumerate(findings):
        kind = "later" if number else "first"
        yield f'<li class="{kind}"><h3>{text(finding.text)}</h3>'
        yield f'<p class="cause"><code>{text(finding.cause)}</code></p>'
        yield from (f'<p class="evidence">{text(line)}</p>' for line in finding.evidence)
        for line in finding.fix:
            yield '<p class="label">Fix</p>'
            yield f'<pre class="fix"><code>{_words(line)}</code></pre>'
        for line in finding.steps:
            yield f'<p class="next"><span class="label">Next</span> {text(line)}</p>'
        yield "</li>"
    yield "</ol></section>"


def _words(line: str) -> str:
    """Return a command whose words are not broken where a line ends, such as after a hyphen."""
    return " ".join(f"<span>{text(word)}</span>" for word in line.split(" "))


def _packets(facts: Facts) -> Iterator[str]:
    yield "<section><h2>The path of packets</h2>"
    figures = packets.figures(facts)
    if figures:
        yield '<p class="note">From the instances of each subnet to every host they need.</p>'
    else:
        why = (
            "The network was not looked at."
            if facts.subnets is None
            else "There is no compute environment on EC2, so there is no network to draw."
        )
        yield f'<p class="note">{why}</p>'
    for figure in figures:
        yield from _figure(figure, "packets")
    yield from _legend(figures)
    yield "</section>"


def _credentials(facts: Facts, findings: Sequence[Finding]) -> Iterator[str]:
    yield "<section><h2>The path of credentials</h2>"
    figures = credentials.figures(facts, findings)
    if not figures:
        why = (
            "The secrets were not looked at."
            if facts.secrets is None
            else "No secret with registry credentials belongs to what was looked at."
        )
        yield f'<p class="note">{why}</p>'
    for figure in figures:
        yield from _figure(figure, "credentials")
    yield from _legend(figures)
    yield "</section>"


def _figure(figure: Figure, what: str) -> Iterator[str]:
    """Yield a drawing, and below it where `what` ends, packets or credentials, and why."""
    yield f"<figure><figcaption><strong>{text(figure.title)}</strong>"
    yield "".join(f" <span>{text(one)}</span>" for one in figure.details) + "</figcaption>"
    yield from drawing.figure(figure)
    stops = [
        _stop(mark, *stop, what=what, all_names=[trace.name for trace in figure.traces])
        for mark in (Mark.BROKEN, Mark.UNKNOWN)
        for stop in figure.stops(mark)
    ]
    if stops:
        yield f'<ul class="stops">{"".join(stops)}</ul>'
    yield "</figure>"


def _stop(
    mark: Mark,
    hop: str,
    why: str,
    at: Sequence[str],
    names: Sequence[str],
    *,
    what: str,
    all_names: Sequence[str],
) -> str:
    """Return a line about one place where packets or credentials end, or may end."""
    where = f"{hop} {listed(at)}" if at and not why.startswith(at[0]) else hop
    some = f"{what} {'to' if what == 'packets' else 'for'} {listed(names)}"
    to = f"all {what}" if {*names} == {*all_names} else some
    sign, ends = ("✗", f"Stops {to}.") if mark is Mark.BROKEN else ("?", f"Not known for {to}.")
    return (
        f'<li class="{mark.name.lower()}"><span class="sign">{sign}</span><span>'
        f"<b>{text(where)}</b>: {text(why.removesuffix('.'))}. {text(ends)}</span></li>"
    )


def _legend(figures: Iterable[Figure]) -> Iterator[str]:
    used = {node.mark for one in figures for row in one.traces for node in row.nodes if node}
    shown = "".join(
        '<li><svg width="24" height="24" aria-hidden="true"><svg x="12" y="12" overflow="visible" '
        f'class="{mark.name.lower()}">{drawing.SHAPES[mark]}</svg></svg>{mark.value}</li>'
        for mark in Mark
        if mark in used
    )
    if used - {Mark.PASSES}:
        yield f'<ul class="legend">{shown}</ul>'


def _examined(facts: Facts) -> Iterator[str]:
    yield "<section><h2>What was looked at</h2>"
    yield from _table(facts.rows(), "")
    if unknown := list(unknown_paths(facts)):
        yield "<h3>Not known</h3>"
        yield from _table(unknown, "unknown")
    if facts.not_looked_at:
        yield "<h3>Not looked at</h3>"
        gaps = ((gap.permission, f"{gap.what}: {gap.reason}") for gap in facts.not_looked_at)
        yield from _table(gaps, "gaps")
    yield f"</section><footer>batchreg {text(facts.version)}</footer>"


def _table(rows: Iterable[Row], kind: str) -> Iterator[str]:
    yield f'<dl class="table {kind}">'
    for what, state in rows:
        yield f"<div><dt>{text(what)}</dt><dd>{text(state)}</dd></div>"
    yield "</dl>"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
