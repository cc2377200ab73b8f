"""The launch template, in the version that the compute environment uses, and its user data."""

from __future__ import annotations

import base64
import binascii
import email
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchreg.doctor import facts
from batchreg.doctor.collect.calls import Absent, Caller

Raw = dict[str, Any]

# Commands that wait until the agent or the engine has started; cloud-init has to end before that.
BLOCKS = re.compile(
    r"(?:systemctl|service)\b[^\n;&|#]*\b(?:re)?start\b[^\n;&|#]*\b(?:ecs|docker)\b"
    r"|systemctl\b[^\n;&|#]*--now\b[^\n;&|#]*\b(?:ecs|docker)\b"
)
# A proxy other than the one that parks an agent, in a profile, a unit or ecs.config.
PROXY = re.compile(
    r"^(?!\s*#).*?(?:\bhttps?_proxy\b[\"']?\s*[=:]\s*[\"']?(?!127\.0\.0\.1:9\b)[a-z0-9$\[]|\bproxy\s*=)",
    re.MULTILINE | re.IGNORECASE,
)
# The program with a secret: on its command line, or a line of its file of arguments.
FETCHES = re.compile(
    r"registry_login\.py\b[^\n;&|]*\s(?:-s|--secret-id[= ])\s*[^\s-]|^(?:-s|--secret-id=)[^\s-]",
    re.MULTILINE,
)

# The ECS cluster that the agent is told to join; AWS Batch tells it by itself.
CLUSTER = re.compile(r"^(?!\s*#).*?\bECS_CLUSTER\s*=\s*[\"']?([A-Za-z0-9_-]+)", re.MULTILINE)
# The last such command counts: people stop the agent to configure it, and start it again.
AGENT = re.compile(
    r"^(?!\s*#)[^\n]*?(?P<command>systemctl\b[^\n;&|#]*\b(?P<verb>start|restart|enable|stop|disable|"
    r"mask)\b[^\n;&|#]*\becs\b)",
    re.MULTILINE,
)
STOPS = ("stop", "disable", "mask")
INSTALLS = re.compile(r"\b(amazon-)?ecs-(init|agent)\b")

SECRET_IDS = re.compile(
    r"^(?:-s|--secret-id=)(?P<line>[^\s$]+)|registry_login\.py\b[^\n;&|]*", re.MULTILINE
)
SECRET_ID = re.compile(r"\s(?:-s|--secret-id[= ])\s*([^\s$'\"-][^\s'\"]*)")
SETS = re.compile(r"\bECS_ENGINE_AUTH_DATA\b")  # credentials without the program


@dataclass(frozen=True)
class Written:
    """What the stack's template says about its launch template."""

    user_data: str
    root_volume_gib: int = 0


def launch_template(
    caller: Caller, used: Mapping[str, str], written: Written | None
) -> facts.LaunchTemplate:
    """Look at the version that the compute environment uses, and for one that is as written."""
    by = "launchTemplateId" if used.get("launchTemplateId") else "launchTemplateName"
    wanted = used.get("version") or "$Default"
    try:
        versions: list[Raw] = caller.ask(
            "launch template",
            "ec2",
            "describe_launch_template_versions",
            items="LaunchTemplateVersions",
            **{by[0].upper() + by[1:]: used[by]},
        )
    except Absent:
        versions = []
    numbers = [version["VersionNumber"] for version in versions]
    restorable = _restorable(versions, written)
    mine = [
        version
        for version in versions
        if wanted == str(version["VersionNumber"])
        or (wanted == "$Latest" and version["VersionNumber"] == max(numbers))
        or (wanted == "$Default" and version.get("DefaultVersion"))
    ]
    if not mine:
        number = int(wanted) if wanted.isdecimal() else 0
        return facts.LaunchTemplate(
            id=used[by], exists=False, version=number, restorable=restorable
        )
    data = mine[0]["LaunchTemplateData"]
    newest = next(one for one in versions if one["VersionNumber"] == max(numbers))
    encoded = newest["LaunchTemplateData"].get("UserData", "")
    return facts.LaunchTemplate(
        id=used[by],
        version=mine[0]["VersionNumber"],
        latest=max(numbers),
        metadata=_metadata(data),
        machine_image=data.get("ImageId", ""),
        restorable=restorable,
        newest_differs=newest["LaunchTemplateData"] != data,
        newest_fetches=user_data(encoded, None)["fetches_credentials"],
        **user_data(data.get("UserData", ""), written.user_data if written else None),
    )


def _restorable(versions: Sequence[Raw], written: Written | None) -> int:
    """Return the newest version that does what the stack's template says, 0 without one."""
    return max(
        (
            version["VersionNumber"]
            for version in versions
            if written and _as_written(version["LaunchTemplateData"], written)
        ),
        default=0,
    )


def _as_written(data: Raw, written: Written) -> bool:
    sizes = [
        mapping.get("Ebs", {}).get("VolumeSize") for mapping in data.get("BlockDeviceMappings", [])
    ]
    return (
        _decoded(data.get("UserData", "")).decode(errors="replace") == written.user_data
        and (not written.root_volume_gib or written.root_volume_gib in map(_number, sizes))
        and _metadata(data) == "enabled"
        and not data.get("ImageId")
    )


def _metadata(data: Raw) -> str:
    return data.get("MetadataOptions", {}).get("HttpEndpoint") or "enabled"


def _number(size: Any) -> int:
    return int(size or 0)


def _decoded(encoded: str) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return b""


def user_data(encoded: str, written: str | None) -> Raw:
    """Say what user data does, and nothing of its text but a command that blocks the boot."""
    raw = _decoded(encoded)
    archive = email.message_from_bytes(raw)
    text = raw.decode(errors="replace")
    leaves = [leaf.get_payload(decode=True) for leaf in archive.walk() if not leaf.is_multipart()]
    scripts = "\n".join(leaf.decode(errors="replace") for leaf in leaves if isinstance(leaf, bytes))
    clusters = CLUSTER.findall(scripts)
    agent = [(found["verb"], found["command"]) for found in AGENT.finditer(scripts)][-1:]
    commands = [found[0] for found in BLOCKS.finditer(scripts) if "--no-block" not in found[0]]
    return {
        "mime": not raw or (archive.is_multipart() and not archive.defects),
        "bytes": len(raw),
        "fetches_credentials": bool(FETCHES.search(scripts)),
        "differs": None if written is None else text != written,
        "blocks": commands[0][:80] if commands else "",
        "proxy": bool(PROXY.search(scripts)),
        "cluster": clusters[-1] if clusters else "",
        "stops": next((text[:80] for verb, text in agent if verb in STOPS), ""),
        "installs_agent": INSTALLS.search(scripts) is not None,
        "secret_ids": _secret_ids(scripts),
        "sets_credentials": SETS.search(scripts) is not None and not FETCHES.search(scripts),
    }


def _secret_ids(scripts: str) -> tuple[str, ...]:
    """Return the names or ARNs of the secrets that the program is given."""
    found = [
        name
        for line in SECRET_IDS.finditer(scripts)
        for name in ([line["line"]] if line["line"] else SECRET_ID.findall(line[0]))
    ]
    return tuple(dict.fromkeys(found))
