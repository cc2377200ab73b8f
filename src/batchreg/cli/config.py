"""batchreg.yaml: what somebody has decided once."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import yaml

from batchreg.errors import BatchregError
from batchreg.registry.logins import RegistrySpec
from batchreg.render.settings import CONFIG_KEYS


def read(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what the configuration file at `path` says, {key: string or list}, and {key: where}.

    A relative `user_data` path starts at the file's own folder. Raises BatchregError, with the
    line where there is one.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=loader)
    except OSError as error:
        raise BatchregError(f"Cannot read {path}: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise BatchregError(f"{path} is not UTF-8 text: save it as such.") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        raise BatchregError(f"{where}: {error.problem or 'not YAML'}: mend the line.") from None
    except yaml.YAMLError:  # a control character, say
        raise BatchregError(f"{path} is not YAML: mend or move it.") from None
    if node is None:
        return {}, {}
    if not isinstance(node, yaml.MappingNode):
        raise BatchregError(f"{path} is not a mapping: write `key: value` lines.")
    config: dict[str, Any] = {}
    places: dict[str, str] = {}
    for key_node, value_node in node.value:
        where = f"{path}, line {key_node.start_mark.line + 1}"
        key = key_node.value
        if key == "password":
            raise BatchregError(
                f"{where}: a password does not belong in a file: "
                "use --password-stdin or BATCHREG_PASSWORD."
            )
        if key not in CONFIG_KEYS:
            raise BatchregError(f"{where}: unknown key {key!r}{_nearest(key)}.")
        if key in config:
            raise BatchregError(f"{where}: {key} stands there twice: keep one.")
        config[key], places[key] = _value(where, key, value_node), where
    if "user_data" in config:
        config["user_data"] = str(path.parent / config["user_data"])
    return config, places


def _value(where: str, key: str, node: Any) -> Any:
    if key == "registries":
        return [
            _registry(where, item)
            for item in (node.value if isinstance(node, yaml.SequenceNode) else [node])
        ]
    several = CONFIG_KEYS[key] and isinstance(node, yaml.SequenceNode)
    nodes = node.value if several else [node]
    if not all(isinstance(item, yaml.ScalarNode) and item.value for item in nodes):
        wanted = "a list of strings" if CONFIG_KEYS[key] else "one string"
        raise BatchregError(f"{where}: {key} takes {wanted}.")
    values = [str(item.value) for item in nodes]
    return values if CONFIG_KEYS[key] else values[0]


def _registry(where: str, node: Any) -> str:
    """Return an entry of `registries` as --registry takes it, checked."""
    where = where.rsplit(" ", 1)[0] + f" {node.start_mark.line + 1}"
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    fields = {str(key.value): value.value for key, value in pairs}
    if isinstance(node, yaml.ScalarNode):
        text = str(node.value)
    elif (
        "url" not in fields
        or fields.keys() - {"url", "username", "password"}
        or not all(isinstance(value, str) and "," not in value for value in fields.values())
    ):
        raise BatchregError(
            f"{where}: a registry is a mapping of url, username and password "
            "(prompt, docker-config or env:NAME)."
        )
    else:
        text = ",".join([fields.pop("url"), *(f"{key}={value}" for key, value in fields.items())])
    try:
        RegistrySpec.parse(text).key  # noqa: B018  a wrong one raises
    except BatchregError as problem:
        raise BatchregError(f"{where}: {problem}") from None
    return text


def _nearest(key: object) -> str:
    near = difflib.get_close_matches(str(key), CONFIG_KEYS, n=1)
    keys = ", ".join(sorted(CONFIG_KEYS))
    return f": do you mean {near[0]}?" if near else f": the keys are {keys}"
