"""What --json prints, held against the schema that `batchreg schema output` prints."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence

from jsonschema import Draft7Validator

from batchreg.cli import schema


@functools.cache
def validators() -> dict[str, list[Draft7Validator]]:
    """Return, for each type of a line, a validator of every form that it may have."""
    whole = schema.lines()
    found: dict[str, list[Draft7Validator]] = {}
    for each in whole["anyOf"]:
        name = each["$ref"].rpartition("/")[2]
        kind = whole["definitions"][name]["properties"]["type"]["const"]
        form = {**each, "definitions": whole["definitions"]}
        found.setdefault(kind, []).append(Draft7Validator(form))
    return found


def check(arguments: Sequence[str], stdout: str | None) -> None:
    """Hold each line of a command's output against the schema, if the command has --json.

    A file on stdout, as of `doctor --save -`, is no line.
    """
    if "--json" not in arguments or "-" in arguments or not stdout:
        return
    for line in stdout.splitlines():
        fields = json.loads(line)
        forms = validators()[fields["type"]]
        problems = [[error.message for error in form.iter_errors(fields)] for form in forms]
        assert [] in problems, f"{line} is not in the schema: {min(problems, key=len)}"
