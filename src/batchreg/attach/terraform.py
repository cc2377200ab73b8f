"""A launch template as Terraform's AWS provider takes it, from CloudFormation's properties."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# Where Terraform's name is not CloudFormation's in snake_case. All names were compared with those of
# the AWS provider 6.25.
NAMES = {
    "Groups": "security_groups",
    "LicenseSpecifications": "license_specification",
    "PrivateIpAddresses": "ipv4_addresses",
    "SecondaryPrivateIpAddressCount": "ipv4_address_count",
    "SecurityGroupIds": "vpc_security_group_ids",
    "SecurityGroups": "security_group_names",
}
# Lists of objects, of which Terraform takes one value each.
VALUES = {
    "Ipv4Prefixes": "Ipv4Prefix",
    "Ipv6Addresses": "Ipv6Address",
    "Ipv6Prefixes": "Ipv6Prefix",
    "PrivateIpAddresses": "PrivateIpAddress",
}
# Lists of objects that are a map in Terraform.
TAGS = "Tags"
# What the provider lacks.
MISSING = {
    "BaselinePerformanceFactors",
    "EbsCardIndex",
    "EnaQueueCount",
    "NestedVirtualization",
    "NetworkPerformanceOptions",
}


class Expression(str):
    """Terraform code, as opposed to text."""


def snake_case(name: str) -> str:
    """Return CloudFormation's name as Terraform writes it."""
    if name in NAMES:
        return NAMES[name]
    name = name.replace("VCpu", "Vcpu").replace("GiB", "Gib").replace("MiB", "Mib")
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def body(fields: Mapping[str, Any], indent: str = "  ") -> Iterator[str]:
    """Yield the lines of a block: arguments, and blocks in it."""
    for key, value in fields.items():
        name = snake_case(key)
        if key in MISSING:
            yield f"{indent}# The AWS provider cannot set {name}: {json.dumps(value)}\n"
        elif key == TAGS:
            pairs = {tag["Key"]: tag["Value"] for tag in value}
            yield f"{indent}{name} = {{\n"
            yield from (f"{indent}  {text(k)} = {text(v)}\n" for k, v in pairs.items())
            yield f"{indent}}}\n"
        elif key in VALUES:
            yield f"{indent}{name} = {expression([item[VALUES[key]] for item in value])}\n"
        elif isinstance(value, Mapping):
            yield from _block(name, value, indent)
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for item in value:
                yield from _block(name, item, indent)
        else:
            yield f"{indent}{name} = {expression(value)}\n"


def expression(value: Any) -> str:
    """Write a value."""
    if isinstance(value, Expression):
        return value
    if isinstance(value, str):
        return text(value)
    if isinstance(value, Sequence):
        return f"[{', '.join(map(expression, value))}]"
    return json.dumps(value)


def text(value: str) -> str:
    """Write a string in which nothing is a template."""
    quoted = json.dumps(value, ensure_ascii=False)
    return quoted.replace("${", "$${").replace("%{", "%%{")


def _block(name: str, fields: Mapping[str, Any], indent: str) -> Iterator[str]:
    yield f"{indent}{name} {{\n"
    yield from body(fields, indent + "  ")
    yield f"{indent}}}\n"
