"""The lines that --json prints, by their `type`: each with the fields that it has, and no others.

Every command's lines are declared here. The tests validate each line that any of them makes a
command print against the schema of these declarations (`schema.output`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, NotRequired, get_type_hints

from batchreg.attach.listing import Listed
from batchreg.attach.status import QueueStatus
from batchreg.attach.survey import Standing
from batchreg.doctor.facts import Gap
from batchreg.doctor.findings import Finding
from batchreg.jobs import listing
from batchreg.registry.check import Verdict
from batchreg.stack import changesets, preview
from batchreg.stack.status import Status

Texts = Mapping[str, str]


class Line(NamedTuple):
    """A line: when it is printed, and {field: its type}.

    A mapping of fields instead of a type is an object, and a list of a type an array of it.
    """

    meaning: str
    fields: Mapping[str, Any]


STATES = {"what": str, "is": str}
STACK = {"stack": str, "status": str | None}

LINES: Mapping[str, Line] = {
    "note": Line("A remark for people.", {"text": str}),
    "problem": Line(
        "A problem that the checks before a change found; a certain one ends the command.",
        {"fact": str, "step": str, "certain": bool},
    ),
    "settings": Line(
        "The settings that an update would change, before and after.",
        {"settings": [preview.Change]},
    ),
    "changes": Line(
        "The resources that a change set would change; replacement is null where only AWS knows.",
        {"changes": [{**get_type_hints(changesets.Change), "replacement": bool | None}]},
    ),
    "resources": Line(
        "The resources that would be deleted.",
        {"resources": [{"resource": str, "resource_type": str}]},
    ),
    "event": Line(
        "A change of a resource's state, or of the stack's own.",
        {"time": str, "resource": str, "resource_type": str, "status": str, "reason": str},
    ),
    "verdict": Line(
        "Whether credentials pull an image; cached is its name in ECR.",
        {**get_type_hints(Verdict), "text": str, "cached": NotRequired[str]},
    ),
    "image": Line(
        "The name by which jobs pull an image; the reason says why it is not cached.",
        {"image": str, "name": str, "cached": bool, "reason": str},
    ),
    "code": Line("What attach --emit prints.", {"text": str}),
    "state": Line(
        "A job's state; children counts those of an array job per state.",
        {"status": str, "reason": str, "children": Mapping[str, int]},
    ),
    "log": Line("A line of a job's log.", {"time": str, "text": str}),
}

# The last line, by what prints it.
RESULTS: Mapping[str, Line] = {
    "failure": Line(
        "A command has failed: error is the line on stderr.",
        {
            "error": str,
            "stack": NotRequired[str],
            "name": NotRequired[str],
            "queue": NotRequired[str | None],
            "compute_environment": NotRequired[str | None],
            "ok": NotRequired[bool],
        },
    ),
    "deploy": Line(
        "Of deploy and attach; status is null if nothing was done.", {**STACK, "outputs": Texts}
    ),
    "destroy": Line("Of destroy; status is null once the stack is gone.", STACK),
    "detach": Line("Of detach.", {"name": str}),
    "list": Line("Of list.", {"stacks": [Listed], "queues": [Listed]}),
    "status": Line("Of status.", {**get_type_hints(Status), "attached": Standing | None}),
    "queue": Line("Of status about a queue or an environment.", get_type_hints(QueueStatus)),
    "doctor": Line(
        "Of doctor; there are no findings where nothing is wrong.",
        {"findings": [Finding], "looked_at": [STATES], "unknown": [STATES], "not_looked_at": [Gap]},
    ),
    "check": Line("Of check.", {"ok": bool}),
    "rotate": Line(
        "Of rotate; instances are those that were asked to refresh, each with its answer.",
        {"stack": str, "registry": str, "changed": bool, "instances": Texts},
    ),
    "image": Line("Of image; cached counts the images that ECR pulls.", {"cached": int}),
    "jobs": Line(
        "Of jobs; total counts those beyond --limit as well.",
        {"jobs": [{**get_type_hints(listing.Listed), "created": str}], "total": int},
    ),
    "logs": Line("Of logs.", {"job": str, "status": str}),
    "submitted": Line("Of submit --detach.", {"job": str, "definition": str, "status": str}),
    "finished": Line(
        "Of submit and logs --follow.", {"job": str, "status": str, "exit_code": int, "reason": str}
    ),
}
