"""The schemas that `batchreg schema` prints, held against what commands read and print."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft7Validator

from batchreg.cli import schema
from batchreg.cli.commands import cli

# What the command line says of a file and no schema can: about a key twice, or what a host may be.
BEYOND = ("is given twice", "Docker Hub", "registry")


@functools.cache
def of_settings() -> Draft7Validator:
    return Draft7Validator(schema.settings(cli))


@functools.cache
def of_lines() -> dict[str, list[Draft7Validator]]:
    """Return, for each type of a line, a validator of every form that it may have."""
    whole = schema.lines()
    found: dict[str, list[Draft7Validator]] = {}
    for each in whole["anyOf"]:
        name = each["$ref"].rpartition("/")[2]
        kind = whole["definitions"][name]["properties"]["type"]["const"]
        form = {**each, "definitions": whole["definitions"]}
        found.setdefault(kind, []).append(Draft7Validator(form))
    return found


def check_lines(arguments: Sequence[str], stdout: str | None) -> None:
    """Hold each line of a command's output against the schema, if the command has --json.

    A file on stdout, as of `doctor --save -`, is no line.
    """
    if "--json" not in arguments or "-" in arguments or not stdout:
        return
    for line in stdout.splitlines():
        fields = json.loads(line)
        forms = of_lines()[fields["type"]]
        problems = [[error.message for error in form.iter_errors(fields)] for form in forms]
        assert [] in problems, f"{line} is not in the schema: {min(problems, key=len)}"


def check_settings(path: Path, stderr: str | None) -> None:
    """Let the schema refuse a batchreg.yaml that a command has refused."""
    complaint = next(
        (line for line in (stderr or "").splitlines() if f"{path.name}, line " in line), ""
    )
    if not complaint or not path.exists() or any(words in complaint for words in BEYOND):
        return
    try:
        settings: Any = yaml.safe_load(path.read_text())
    except yaml.YAMLError:
        return  # no schema comes so far
    assert not of_settings().is_valid(settings), f"the schema accepts what is refused: {complaint}"
