"""Write docs/troubleshooting.md: every finding of doctor, with an example from tests/faults."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from batchreg.doctor import savefile
from batchreg.doctor.facts import Facts
from batchreg.doctor.findings import RULES, diagnose

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "troubleshooting.md"
FAULTS = ROOT / "tests" / "faults"

INTRO = """\
# Troubleshooting

`batchreg doctor` finds out why jobs stay RUNNABLE or images fail to pull, and lists the most likely
cause first. This page lists every finding with an example. `Fix:` is a command that you can run as
doctor prints it, with the names of your own stack; `Next:` is what a person has to do or to know.

`batchreg doctor --html FILE` also writes the result as a page for a browser. It draws the way of
packets from the instances to every host they need, and the way of credentials from the secret to the
registry, and marks where they end. The page is one file without scripts; it contains no secret, and
only you can read it until you send it to somebody.

![A NAT gateway without a route to the internet stops all packets from one of two subnets](doctor.png)

This page is generated from the faults in `tests/faults` by `scripts/write_troubleshooting.py`.
"""

HEADINGS = {
    "stack": "The stack",
    "environment": "The compute environment and the queue",
    "credentials": "The secrets",
    "role": "The instances' role",
    "launch_template": "The launch template and its user data",
    "network": "The network",
    "image": "The image and its registry",
    "capacity": "What the job asks for",
    "launches": "Instances that do not start",
    "job": "The job and its instances",
    "hints": "Symptoms, and traces of changes by hand",
}


def page() -> str:
    """Return the page's text."""
    faults = [
        json.loads(path.read_text())
        for path in sorted(FAULTS.glob("*.json"))
        if path.stem != "healthy"
    ]
    pieces, heading = [INTRO], ""
    modules = list(HEADINGS)
    ordered = sorted(RULES, key=lambda rule: modules.index(rule.look.__module__.rsplit(".", 1)[-1]))
    for cause in dict.fromkeys(rule.cause for rule in ordered):
        first = next(rule for rule in RULES if rule.cause == cause)
        title = HEADINGS[first.look.__module__.rsplit(".", 1)[-1]]
        if title != heading:
            heading = title
            pieces.append(f"## {heading}\n")
        pieces.append(
            "\n".join(
                section(cause, first.text, [fault for fault in faults if fault["finding"] == cause])
            )
            + "\n"
        )
    return "\n".join(pieces)


def section(cause: str, text: str, faults: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines about one cause."""
    finding = next(one for one in diagnose(changed(faults[0]["change"])) if one.cause == cause)
    yield f"### {text}\n"
    yield f"Finding: `{cause}`. Source: {sources(cause)}.\n"
    yield from (f"- {fault['broken']} ([source]({fault['source']}))" for fault in faults)
    yield "\nDoctor says, for example:\n"
    yield from (f"    {line}" for line in finding.evidence)
    yield from (f"    Fix: {line}" for line in finding.fix)
    yield from (f"    Next: {line}" for line in finding.steps)


def sources(cause: str) -> str:
    """Return where the knowledge of a cause's rules comes from."""
    return "; ".join(dict.fromkeys(_linked(rule.source) for rule in RULES if rule.cause == cause))


def _linked(source: str) -> str:
    place, comma, more = source.partition(",")
    host = place.partition("/")[0]
    return f"[{place}](https://{place}){comma}{more}" if "." in host and "/" in place else source


def changed(*changes: dict[str, Any]) -> Facts:
    """Return the catalogue's healthy facts with changes: {"secrets.0.host": value}."""
    raw = json.loads((FAULTS / "healthy.json").read_text())
    for path, value in (item for change in changes for item in change.items()):
        place: Any = raw
        *keys, last = path.split(".")
        for key in keys:
            place = place[int(key) if isinstance(place, list) else key]
        if isinstance(place, list) and int(last) == len(place):
            place.append(None)
        place[int(last) if isinstance(place, list) else last] = value
    return savefile.load(json.dumps(raw), "fault")


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
