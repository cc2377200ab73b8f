"""A template as text, in YAML or JSON, and back: what a deployed template says about itself."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from batchreg.errors import BatchregError
from batchreg.render import userdata
from batchreg.render.settings import Cached, Settings, slots_of

if TYPE_CHECKING:
    from troposphere import Template


@dataclass(frozen=True)
class Deployed:
    """What a template was rendered from, and by which version of batchreg.

    `user_data` is the text for `Fn::Sub` that `userdata.build` returned then. `attached`: of a
    companion stack, what it records of the environment; it has no user data of its own.
    """

    version: str
    settings: Settings
    user_data: str
    attached: Mapping[str, Any] | None = None

    def user_data_with(self, values: Mapping[str, str]) -> str | None:
        """Return the user data that CloudFormation makes with {name: value}, None if one lacks.

        None for a companion stack: most of its user data are somebody else's.
        """
        if self.attached:
            return None
        try:
            return userdata.resolve(self.user_data, values)
        except KeyError:
            return None


def read_template(body: str) -> Deployed | None:
    """Return what the rendered template `body` was rendered from, None for any other template."""
    try:
        parsed = yaml.load(body, _Loader)
        metadata = parsed["Metadata"]["batchreg"]
        if attached := metadata.get("Attached"):
            settings = Settings(
                secret_arns=tuple(metadata["SecretArns"]),
                slots=slots_of(parsed["Parameters"]) or (1,),
                cached=_cached(metadata),
            )
            return Deployed(metadata["Version"], settings, "", attached)
        data = parsed["Resources"]["LaunchTemplate"]["Properties"]["LaunchTemplateData"]
        user_data = data["UserData"]["Fn::Base64"]
        # JSON has the long form of Sub, and YAML the short one, which the loader strips of its tag.
        text = user_data if isinstance(user_data, str) else user_data["Fn::Sub"]
        return Deployed(
            metadata["Version"],
            Settings(
                secret_arns=tuple(metadata["SecretArns"]),
                image_type=metadata["ImageType"],
                user_parts=userdata.user_parts(text),
                fargate="FargateJobQueue" in parsed["Resources"],
                slots=slots_of(parsed["Parameters"]) or (1,),
                generation=_generation(parsed["Resources"]),
                on_failure=userdata.on_failure(text),
                cached=_cached(metadata),
            ),
            text,
        )
    except (yaml.YAMLError, KeyError, TypeError, StopIteration, BatchregError):
        return None


def parse(body: str) -> dict[str, Any]:
    """Return a template, YAML or JSON, with the long names of its intrinsic functions."""
    parsed: dict[str, Any] = yaml.load(body, _LongLoader)
    return parsed


def _cached(metadata: Mapping[str, Any]) -> Cached:
    """Return Settings.cached of what a template's metadata say."""
    return tuple((int(slot), key) for slot, key in metadata.get("Cached", {}).items())


def _generation(resources: Mapping[str, Any]) -> int:
    """Return the number in the logical id of the compute environment; the first has none."""
    names = (re.fullmatch(r"ComputeEnvironment(\d*)", name) for name in resources)
    return next(int(match[1] or 1) for match in names if match)


# libyaml's, which is many times as fast, where PyYAML was built with it.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SafeDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Loader(_SafeLoader):  # type: ignore[misc]  # which base it has is known at run time
    """Reads the short form of an intrinsic function as its argument."""


class _LongLoader(_SafeLoader):  # type: ignore[misc]  # which base it has is known at run time
    """Reads the short form of an intrinsic function as its long one."""


def _long(loader: Any, tag: str, node: Any) -> dict[str, Any]:
    if isinstance(node, yaml.SequenceNode):
        argument: Any = loader.construct_sequence(node, deep=True)
    elif isinstance(node, yaml.MappingNode):
        argument = loader.construct_mapping(node, deep=True)
    else:
        argument = loader.construct_scalar(node)
        if tag == "GetAtt":
            argument = argument.split(".", 1)
    return {tag if tag in ("Ref", "Condition") else f"Fn::{tag}": argument}


_LongLoader.add_multi_constructor("!", _long)
_Loader.add_multi_constructor("!", lambda loader, tag, node: getattr(node, "value", None))


def to_json(template: Template) -> str:
    """Return the template as JSON text."""
    return json.dumps(_in_reading_order(template), indent=2) + "\n"


def to_yaml(template: Template) -> str:
    """Return the template as YAML text, intrinsics in their short form."""
    return dump(_in_reading_order(template))


def dump(body: dict[str, Any]) -> str:
    """Return a template, or a piece of one, as YAML text.

    libyaml writes it: five times as fast as troposphere's own to_yaml.
    """
    return str(yaml.dump(_shortened(body), Dumper=_Dumper, sort_keys=False, width=100_000))


class Tagged(tuple[str, Any]):
    """An intrinsic function's short form: its tag and its argument."""


def _in_reading_order(template: Template) -> dict[str, Any]:
    body = template.to_dict()
    body["Resources"] = {
        name: {"Type": resource["Type"], **resource} for name, resource in body["Resources"].items()
    }
    sections = (
        "AWSTemplateFormatVersion",
        "Description",
        "Metadata",
        "Parameters",
        "Mappings",
        "Conditions",
        "Resources",
        "Outputs",
    )
    return {section: body[section] for section in sections if section in body}


def _shortened(value: Any) -> Any:
    if isinstance(value, list):
        return [_shortened(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((key, argument),) = value.items()
        if key == "Fn::GetAtt":
            return Tagged(("!GetAtt", ".".join(argument)))
        # A short form right inside a scalar one, as in !Base64 !Sub, is not valid YAML.
        inner = _shortened(argument)
        if key == "Ref" or (key.startswith("Fn::") and not isinstance(inner, Tagged)):
            return Tagged(("!" + key.removeprefix("Fn::"), inner))
        return {key: inner}
    return {key: _shortened(item) for key, item in value.items()}


def _text(dumper: Any, text: str) -> Any:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _tagged(dumper: Any, tagged: Tagged) -> Any:
    tag, argument = tagged
    if isinstance(argument, list):
        return dumper.represent_sequence(tag, argument)
    return dumper.represent_scalar(tag, argument, style="|" if "\n" in argument else None)


class _Dumper(_SafeDumper):  # type: ignore[misc]  # which base it has is known at run time
    """Writes text of several lines as it is, and everything as often as it occurs."""

    def ignore_aliases(self, data: object) -> bool:
        return True


_Dumper.add_representer(str, _text)
_Dumper.add_representer(Tagged, _tagged)
