"""The choices that shape a template, and where they come from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchreg.errors import BatchregError

CONFIG_FILE = "batchreg.yaml"

# AWS Batch refuses new compute environments on its Amazon Linux 2 images since 2026-06-30.
IMAGE_TYPES = ("ECS_AL2023", "ECS_AL2023_NVIDIA")

# arn:partition:secretsmanager:region:account:secret:name-suffix. IAM policies need it whole.
SECRET_ARN = re.compile(
    r"arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:[A-Za-z0-9/_+=.@!-]+-[A-Za-z0-9]{6}"
)

# What batchreg.yaml may hold: a key for each option that is worth keeping, and its kind.
CONFIG_KEYS = {"secret_arn": list, "image_type": str, "user_data": str}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every choice that shapes the template. The same settings give the same bytes.

    `secret_arns`: existing secrets that hold the logins; without one, the stack makes its own.
    `image_type`: one of IMAGE_TYPES. `user_parts`: MIME parts for the end of the user data.
    Raises BatchregError for a choice that cannot work.
    """

    secret_arns: tuple[str, ...] = ()
    image_type: str = IMAGE_TYPES[0]
    user_parts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for arn in self.secret_arns:
            if not SECRET_ARN.fullmatch(arn):
                raise BatchregError(
                    f"{arn!r} is not the ARN of a secret: copy the whole of it, with the six "
                    "characters at its end, from `aws secretsmanager list-secrets`."
                )
        if len(set(self.secret_arns)) < len(self.secret_arns):
            raise BatchregError("A secret's ARN is given twice: leave one out.")
        if self.image_type not in IMAGE_TYPES:
            raise BatchregError(
                f"{self.image_type!r} is not an image type that batchreg supports: "
                f"use {' or '.join(IMAGE_TYPES)}."
            )


def read_config(path: Path) -> dict[str, Any]:
    """Return what the configuration file at `path` says, checked: {key: string or list}.

    A relative `user_data` path starts at the file's own folder. Raises BatchregError, with the
    line where there is one.
    """
    import yaml

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
        return {}
    if not isinstance(node, yaml.MappingNode):
        raise BatchregError(f"{path} is not a mapping: write `key: value` lines.")
    config: dict[str, Any] = {}
    for key_node, value_node in node.value:
        where = f"{path}, line {key_node.start_mark.line + 1}"
        key = key_node.value
        if key not in CONFIG_KEYS:
            raise BatchregError(f"{where}: unknown key {key!r}{_nearest(key)}.")
        if key in config:
            raise BatchregError(f"{where}: {key} stands there twice: keep one.")
        config[key] = _value(where, key, value_node)
    if "user_data" in config:
        config["user_data"] = str(path.parent / config["user_data"])
    return config


def _value(where: str, key: str, node: Any) -> Any:
    import yaml

    several = CONFIG_KEYS[key] is list and isinstance(node, yaml.SequenceNode)
    nodes = node.value if several else [node]
    if not all(isinstance(item, yaml.ScalarNode) and item.value for item in nodes):
        wanted = "a list of strings" if CONFIG_KEYS[key] is list else "one string"
        raise BatchregError(f"{where}: {key} takes {wanted}.")
    values = [str(item.value) for item in nodes]
    return values if CONFIG_KEYS[key] is list else values[0]


def _nearest(key: object) -> str:
    import difflib

    near = difflib.get_close_matches(str(key), CONFIG_KEYS, n=1)
    return f": do you mean {near[0]}?" if near else f": the keys are {', '.join(CONFIG_KEYS)}"
