"""batchreg.yaml: its keys, and what a file says about them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from batchreg.cli.grammar import Commands
from batchreg.errors import BatchregError
from batchreg.registry.logins import RegistrySpec

NULL = "tag:yaml.org,2002:null"


class Key(NamedTuple):
    """What a key sets: the parameter of a command, and whether it takes several values."""

    parameter: str
    multiple: bool


def keys(commands: Commands) -> dict[str, Key]:
    """Return the keys that the options of all commands declare; a file may serve them all."""
    return {
        each.key: Key(each.parameter, each.multiple) for each in commands.declarations() if each.key
    }


def read(path: Path, keys: Mapping[str, Key]) -> dict[str, tuple[str | list[str], str]]:
    """Return {key: (value, file and line)} of the settings file at `path`.

    A relative `user_data` path starts at the file's own folder. Raises BatchregError, with the
    line if there is one.
    """
    config: dict[str, tuple[str | list[str], str]] = {}
    for key_node, value_node in _pairs(path):
        place = f"{path}, line {key_node.start_mark.line + 1}"
        key = key_node.value
        if key == "password":
            raise BatchregError(
                f"{place}: a password does not belong in a file.",
                "Use --password-stdin or BATCHREG_PASSWORD.",
            )
        if key not in keys:
            raise BatchregError(f"{place}: unknown key {key!r}.", _nearest(key, keys))
        if key in config:
            raise BatchregError(f"{place}: {key} is given twice.", "Keep one of them.")
        if key == "registries":
            items = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
            config[key] = [_registry(path, item) for item in items], place
        else:
            config[key] = _value(place, key, value_node, keys[key].multiple), place
    if "user_data" in config:
        value, place = config["user_data"]
        config["user_data"] = str(path.parent / str(value)), place
    return config


def _pairs(path: Path) -> list[tuple[Any, Any]]:
    """Return the nodes of the file's keys and values."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=loader)
    except OSError as error:
        raise BatchregError(f"Cannot read {path}: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise BatchregError(f"{path} is not UTF-8 text.", "Save it as UTF-8.") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}, line {mark.line + 1}" if mark else str(path)
        raise BatchregError(f"{place}: {error.problem or 'not YAML'}.", "Fix the line.") from None
    except yaml.YAMLError:  # a control character, say
        raise BatchregError(f"{path} is not YAML.", "Fix or move it.") from None
    if node is None:
        return []
    if not isinstance(node, yaml.MappingNode):
        raise BatchregError(f"{path} is not a mapping.", "Write lines like `key: value`.")
    pairs: list[tuple[Any, Any]] = node.value
    return pairs


def _value(place: str, key: str, node: Any, multiple: bool) -> str | list[str]:
    nodes = node.value if multiple and isinstance(node, yaml.SequenceNode) else [node]
    if not all(_is_text(item) and item.value for item in nodes):
        raise BatchregError(
            f"{place}: {key} takes {'a list of strings' if multiple else 'one string'}."
        )
    values = [str(item.value) for item in nodes]
    return values if multiple else values[0]


def _is_text(node: Any) -> bool:
    """Tell whether a node is one value; `null` is none, and not a text that spells it."""
    return isinstance(node, yaml.ScalarNode) and node.tag != NULL


def _registry(path: Path, node: Any) -> str:
    """Return an entry of `registries` in the form that --registry takes, checked."""
    place = f"{path}, line {node.start_mark.line + 1}"
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    fields = {str(key.value): value.value if value.tag != NULL else None for key, value in pairs}
    if isinstance(node, yaml.ScalarNode):
        text = str(node.value)
    elif (
        "url" not in fields
        or fields.keys() - {"url", "username", "password"}
        or not all(isinstance(value, str) and "," not in value for value in fields.values())
    ):
        raise BatchregError(
            f"{place}: a registry is a mapping of url, username and password "
            "(prompt, docker-config or env:NAME)."
        )
    else:
        text = ",".join([str(fields.pop("url")), *(f"{key}={fields[key]}" for key in fields)])
    try:
        RegistrySpec.parse(text).key  # noqa: B018  a wrong one raises
    except BatchregError as error:
        raise BatchregError(f"{place}: {error.fact}", error.step) from None
    return text


def _nearest(key: object, keys: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(key), keys, n=1)
    return f"Did you mean {near[0]}?" if near else f"The keys are {', '.join(sorted(keys))}."
