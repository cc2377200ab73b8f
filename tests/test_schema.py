"""The two JSON Schemas: of batchreg.yaml, which the command line checks too, and of --json."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
import draw_layers
import pytest
import schemas
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from batchreg.cli import json_lines, schema
from batchreg.cli.commands import cli, deploy
from batchreg.cli.grammar import Command
from batchreg.errors import BatchregError

SCHEMA = schema.settings(cli)
KEYS = SCHEMA["properties"]
INTEGERS = {key: each for key, each in KEYS.items() if each.get("type") == "integer"}
SWITCHES = {key for key, each in KEYS.items() if each.get("enum") == schema.SWITCH["enum"]}
EDGES = sorted(
    {
        limit + step
        for one in INTEGERS.values()
        for limit in (one["minimum"], one["maximum"])
        for step in (-1, 0, 1)
    }
)
CHOICES = sorted({str(one) for each in KEYS.values() for one in each.get("enum", [])})
SCALARS = st.one_of(
    st.sampled_from([*EDGES, *CHOICES, *map(str, EDGES), True, False, None, "", "null", "a b"]),
    st.sampled_from([2.5, "ghcr", "arn:aws:iam::aws:policy/x", "maybe", "On", "1,2", "x=y"]),
    st.text("abz09-_/. é{", max_size=25),
    st.integers(-10, 10**7),
)
SOURCES = st.sampled_from(["prompt", "docker-config", "env:TOKEN", "env:", "hunter2", "env:a-b", 7])
REGISTRIES = st.one_of(
    st.sampled_from(["ghcr.io", "quay,username=lab,password=env:Q", "ghcr.io,user=x", "gitlab,"]),
    SOURCES.map(lambda source: f"ghcr.io,password={source}"),
    st.fixed_dictionaries(
        {},
        optional={
            "url": st.sampled_from(["ghcr.io", "quay", ["x"]]),
            "username": SCALARS,
            "password": SOURCES,
            "token": SOURCES,
        },
    ),
)


def value_for(key: str) -> st.SearchStrategy[Any]:
    one = REGISTRIES if key == "registries" else SCALARS
    return st.one_of(one, st.lists(one, max_size=3), st.just({"a": "b"}))


SETTINGS = st.one_of(
    st.sampled_from([*KEYS, "password", "max_vcpu"]).flatmap(
        lambda key: st.fixed_dictionaries({key: value_for(key)})
    ),
    st.fixed_dictionaries({}, optional={key: value_for(key) for key in ("region", "max_vcpus")}),
)


def accepted(path: Path) -> bool:
    """Tell whether the command line accepts a settings file."""
    try:
        deploy.make_context("deploy", ["--config", str(path)])
    except (BatchregError, click.UsageError):
        return False
    return True


def plainly(key: str, value: Any) -> Any:
    """Return a value in its usual spelling: of "30" the number, and of "On" true.

    The command line reads the text of a value, however it is spelled; the schema asks for this.
    """
    states = click.types.BoolParamType.bool_states
    if key in INTEGERS and isinstance(value, str) and re.fullmatch(r" *[-+]?\d+(_\d+)* *", value):
        return int(value)
    if key in SWITCHES and str(value).strip().lower() in states and value != "":
        return states[str(value).strip().lower()]
    if KEYS.get(key, {}).get("type") == "string" and isinstance(value, int | float):
        return yaml.safe_dump(value).splitlines()[0]
    return value


@settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
@given(SETTINGS)
def test_schema_accepts_what_the_command_line_accepts(tmp_path, found):
    """The same keys, types, choices and ranges: an editor says what deploy would say."""
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump(found, allow_unicode=True))
    plain = {key: plainly(key, value) for key, value in found.items()}
    assert schemas.of_settings().is_valid(plain) == accepted(path), found


def test_every_key_is_one_of_deploy():
    """So that the test above checks all of them."""
    assert {each.key for each in deploy.declared if each.key} == KEYS.keys()


def test_key_means_the_same_to_all_commands():
    """One file serves them all, so the first declaration of a key describes it."""
    for each in cli.declarations():
        if each.key:
            described = {"description": KEYS[each.key]["description"], **schema._setting(each)}
            assert described == KEYS[each.key], each.key


@pytest.mark.parametrize("what", ["settings", "output"])
def test_printed_schema_is_one(batchreg, tmp_path, what):
    """To stdout and to a file; each key has a description, which editors show."""
    printed = batchreg("schema", *([what] if what != "settings" else []))
    assert (printed.returncode, printed.stderr) == (0, "")
    found = json.loads(printed.stdout)
    Draft7Validator.check_schema(found)
    assert batchreg("schema", what, "-o", "s.json").returncode == 0
    assert (tmp_path / "s.json").read_text() == printed.stdout
    parts = found["properties" if what == "settings" else "definitions"]
    undescribed = {name for name, part in parts.items() if not part.get("description")}
    assert not {name for name in undescribed if "." not in name}  # dataclasses have none


@pytest.mark.parametrize(
    "line",
    [
        '{"type": "note", "text": "x", "more": 1}',
        '{"type": "note"}',
        '{"type": "result", "ok": "yes"}',
        '{"type": "result", "stack": "lab", "status": null}\n{"type": "problem", "fact": ""}',
    ],
)
def test_line_that_is_not_in_the_schema_fails_its_test(line):
    """The check that all tests share can fail."""
    with pytest.raises(AssertionError, match="is not in the schema"):
        schemas.check_lines(["--json"], line)


def test_types_that_the_code_prints_are_those_that_are_declared():
    """None is missing, and none is left over."""
    printed = set()
    for path in draw_layers.SOURCE.rglob("*.py"):
        text = path.read_text()
        printed |= set(re.findall(r"\.(?:emit|product)\(\s*\"(\w+)\"", text))
        printed |= set(re.findall(r"\"type\": \"(\w+)\", (?:\*\*state|\"time\")", text))
    assert printed == {*json_lines.LINES, "result"}


def test_commands_with_json_have_a_result():
    """The names of the declarations are those of the commands, or say more."""
    spoken = {
        name
        for name, command in cli.commands.items()
        if isinstance(command, Command) and any("--json" in each.names for each in command.declared)
    }
    same = {"attach": "deploy", "submit": "finished"}
    assert {same.get(name, name) for name in spoken} <= json_lines.RESULTS.keys()
