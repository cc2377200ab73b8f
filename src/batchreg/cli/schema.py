"""`schema`: JSON Schemas of batchreg.yaml and of the lines of --json, from their declarations.

They are made when they are asked for, so that they cannot differ from the code.
"""

from __future__ import annotations

import json
import types
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, NotRequired, Union, get_args, get_origin, get_type_hints

import click

from batchreg.cli.grammar import Checked, Commands, Declaration
from batchreg.cli.output import write

Schema = dict[str, Any]

DRAFT = "http://json-schema.org/draft-07/schema#"  # the one that editors know best
SCALARS = {str: "string", bool: "boolean", int: "integer", float: "number", types.NoneType: "null"}
TITLE = "Settings of batchreg (batchreg.yaml)"
TEXT: Schema = {"type": ["string", "number", "boolean"], "minLength": 1}
# An editor may read YAML 1.2, where `yes` is a string.
SWITCH: Schema = {"enum": [True, False, "yes", "no", "on", "off"]}
SOURCE = "prompt|docker-config|env:[A-Za-z_][A-Za-z0-9_]*"  # as RegistrySpec.parse reads it
REGISTRY: Schema = {
    "anyOf": [
        {"type": "string", "pattern": f"^[^,]+(,(username=[^,]*|password=({SOURCE})))*$"},
        {
            "type": "object",
            "properties": {
                "url": {**TEXT, "description": "Host, or docker-hub, ghcr, gitlab, quay."},
                "username": {"type": TEXT["type"], "pattern": "^[^,]*$"},
                "password": {
                    "type": "string",
                    "pattern": f"^({SOURCE})$",
                    "description": "Where the password comes from: prompt, docker-config, or "
                    "env:NAME for an environment variable.",
                },
            },
            "required": ["url"],
            "additionalProperties": False,
        },
    ]
}


def run(what: str, commands: Commands, output: str | None) -> None:
    """Print the schema of "settings" or of "output"."""
    found = settings(commands) if what == "settings" else lines()
    write(json.dumps(found, indent=2) + "\n", output)


def settings(commands: Commands) -> Schema:
    """Return the schema of batchreg.yaml: the keys that the options of all commands declare."""
    properties: Schema = {}
    for each in commands.declarations():
        if each.key and each.key not in properties:
            properties[each.key] = {"description": each.help, **_setting(each)}
    return {
        "$schema": DRAFT,
        "title": TITLE,
        "type": ["object", "null"],
        "properties": properties,
        "additionalProperties": False,
    }


def _setting(option: Declaration) -> Schema:
    kind = option.attributes.get("type")
    item = TEXT
    if option.key == "registries":
        item = REGISTRY
    elif option.is_switch:
        item = SWITCH
    elif isinstance(kind, Checked):
        item = kind.schema
    elif isinstance(kind, click.Choice):
        item = {"enum": list(kind.choices)}
    return {"anyOf": [{"type": "array", "items": item}, item]} if option.multiple else item


def lines() -> Schema:
    """Return the schema of a line that --json prints; its `type` tells which one it is."""
    from batchreg.cli.json_lines import LINES, RESULTS

    parts: Schema = {}
    shown = [(name, name, line) for name, line in LINES.items()]
    shown += [(f"result-{name}", "result", line) for name, line in RESULTS.items()]
    for name, kind, line in shown:
        found = _of({"type": kind, **line.fields}, parts)
        parts[name] = {"description": line.meaning, **found}
    return {
        "$schema": DRAFT,
        "title": "A line of batchreg --json",
        "anyOf": [{"$ref": f"#/definitions/{name}"} for name, _, _ in shown],
        "definitions": parts,
    }


def _is_optional(field: Any) -> bool:
    origin: Any = get_origin(field)
    return origin is NotRequired


def _of(kind: Any, parts: Schema) -> Schema:
    """Return the schema of a type, or of what json_lines.Line takes for one.

    `parts` gets the definitions of the dataclasses in it. A text is itself and no other.
    """
    if isinstance(kind, str):
        return {"const": kind}
    if isinstance(kind, Mapping):
        optional = {name for name, field in kind.items() if _is_optional(field)}
        return {
            "type": "object",
            "properties": {name: _of(field, parts) for name, field in kind.items()},
            "required": [name for name in kind if name not in optional],
            "additionalProperties": False,
        }
    if isinstance(kind, list):
        return {"type": "array", "items": _of(kind[0], parts)}
    if kind in SCALARS:
        return {"type": SCALARS[kind]}
    if isinstance(kind, type) and is_dataclass(kind):
        name = f"{kind.__module__.removeprefix('batchreg.')}.{kind.__qualname__}"
        if name not in parts:
            parts[name] = _of(get_type_hints(kind), parts)
        return {"$ref": f"#/definitions/{name}"}
    origin: Any = get_origin(kind)
    arguments = get_args(kind)
    if _is_optional(kind):
        return _of(arguments[0], parts)
    if origin in (Union, types.UnionType):
        return {"anyOf": [_of(each, parts) for each in arguments]}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _of(arguments[1], parts)}
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return {"type": "array", "items": _of(arguments[0], parts)}
    raise TypeError(f"no schema for {kind}")
