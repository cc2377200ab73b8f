"""What a user's own user data must not do to `/etc/ecs/ecs.config`, found line by line.

AWS Batch writes `ECS_CLUSTER` and `ECS_INSTANCE_ATTRIBUTES` there itself, by a part that runs before
the user's. A part that changes either, or that replaces the file, keeps the instance from joining
its cluster; and a compute environment of which no instance joins becomes INVALID for good.
Source: docs.aws.amazon.com/batch/latest/userguide/launch-templates.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

FILE = r"[\"']?/etc/ecs/ecs\.config[\"']?"

# What AWS Batch's own part looks like in the launch template `Batch-lt-...` that it makes.
# A second environment with it would join the first one's cluster.
COPIED = re.compile(
    r"com\.amazonaws\.batch\b|ECS_CLUSTER\s*=\s*[\"']?((arn:\S+/)?AWSBatch-|\S+_Batch_)"
)
SETS = re.compile(r"\b(?P<word>ECS_CLUSTER|ECS_INSTANCE_ATTRIBUTES)\s*=")
READS = re.compile(r"^\s*(e|f)?grep\b")
REPLACES = re.compile(
    rf"(?<![>\d&])>\|?\s*{FILE}"  # not >>, and not 2>
    rf"|\btee\s+(?!(-\w*a\w*|--append)\s){FILE}"
    rf"|\b(cp|mv|install|ln)\s.*\s{FILE}\s*($|[;&|#])"
    rf"|\b(rm|truncate|shred)\s.*{FILE}"
)


@dataclass(frozen=True)
class Conflict:
    """A line of the user's own part that breaks the instance, and how, in words."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where} {self.what}."


def conflicts(raw: bytes) -> list[Conflict]:
    """Return what a part, or a MIME archive of parts, does that no instance survives."""
    found = []
    for where, text in _leaves(raw.replace(b"\r\n", b"\n")):
        first = next((number for number, line in _lines(text) if COPIED.search(line)), None)
        if first is not None:
            found.append(
                Conflict(
                    where(first),
                    "is copied from a launch template that AWS Batch made (Batch-lt-...)",
                )
            )
            continue
        if text.startswith("#cloud-config"):
            found += [
                Conflict(where(number), "replaces /etc/ecs/ecs.config; add append: true")
                for number in _written_files(text)
            ]
        for number, line in _lines(text):
            if match := SETS.search(line):
                if not READS.search(line):
                    found.append(
                        Conflict(
                            where(number), f"sets {match['word']}, which AWS Batch sets itself"
                        )
                    )
            elif REPLACES.search(line):
                found.append(
                    Conflict(
                        where(number), "replaces /etc/ecs/ecs.config; append to it with >> instead"
                    )
                )
    return found


def _leaves(raw: bytes) -> Iterator[tuple[Any, str]]:
    """Yield (what names a line of it, text) of each part; of base64, by its place in the part."""
    import email

    if not re.match(rb"(?i)(mime-version|content-type)\s*:", raw):
        yield "line {}".format, raw.decode(errors="replace")
        return
    whole = raw.decode("ascii", "surrogateescape")
    start = 0
    leaves = (leaf for leaf in email.message_from_bytes(raw).walk() if not leaf.is_multipart())
    for number, leaf in enumerate(leaves, 1):
        payload, content = str(leaf.get_payload()), leaf.get_payload(decode=True)
        text = content.decode(errors="replace") if isinstance(content, bytes) else payload
        place = whole.find(payload, start)
        if leaf.get("Content-Transfer-Encoding", "").lower() == "base64" or place < 0:
            yield f"part {number}, line {{}}".format, text
            continue
        start = place + len(payload)
        before = whole.count("\n", 0, place)
        yield (lambda line, before=before: f"line {line + before}"), text


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the numbered lines that do something: no comments."""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.lstrip().startswith("#"):
            yield number, line


def _written_files(text: str) -> Iterator[int]:
    """Yield the lines of a cloud-config's write_files that replace the file."""
    import yaml

    try:
        node = yaml.compose(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError:
        return  # cloud-init runs none of it
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    for key, value in pairs:
        if key.value != "write_files" or not isinstance(value, yaml.SequenceNode):
            continue
        for entry in value.value:
            fields = {name.value: field for name, field in getattr(entry, "value", [])}
            path, append = fields.get("path"), fields.get("append")
            if (
                path
                and path.value == "/etc/ecs/ecs.config"
                and not (append and str(append.value).lower() in ("true", "yes", "on"))
            ):
                yield path.start_mark.line + 1
