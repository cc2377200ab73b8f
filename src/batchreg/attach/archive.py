"""Somebody's user data, and our part spliced in after theirs.

Their bytes stay theirs: nothing is parsed and written again. What they have is cut before its
closing boundary, and our part and a closing boundary follow. Ran with cloud-init 22.4: every
multipart structure in tests/e2e/test_attach_boot.py behaves as it did without us.
"""

from __future__ import annotations

import base64
import gzip
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from batchreg.errors import BatchregError
from batchreg.render import userdata

if TYPE_CHECKING:
    from email.message import Message

GZIP = b"\x1f\x8b"
# cloud-init looks for MIME-Version in this many bytes, and takes anything else for one part.
HEADER_BYTES = 4_096
# What an instance has instead when there is no user data.
EMPTY = b'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="==batchreg=="\n\n'

PROBE = (("Content-Type", "text/x-shellscript"), "#!/bin/sh")  # a part for a try

ELSEWHERE = "or give the credentials in the job definition, as submit does with --auth job"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of an archive as cloud-init sees it: decoded, and unpacked where it is packed."""

    number: int
    name: str  # its file name, or ""
    content_type: str
    text: str = field(repr=False)  # it may hold credentials

    def __str__(self) -> str:
        return f"part {self.number}" + (f" ({self.name})" if self.name else "")


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A MIME multipart archive, up to where another part can follow.

    `data`: their bytes without the closing boundary and what follows it. `boundary`: that of the
    outermost level, without the leading hyphens. `owner`: the launch template, in words.
    """

    data: bytes = field(repr=False)
    boundary: str
    owner: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, kw_only=True)
class Spliced:
    """The user data of a copy: `theirs` in base64, then `ours` as text for `Fn::Sub`."""

    theirs: str = field(repr=False)
    ours: str = field(repr=False)

    @property
    def size(self) -> int:
        """Return the bytes that EC2 counts at most, with the longest ARNs in place."""
        secrets = len(re.findall(r"\$\{RegistrySecret", self.ours))
        return (
            len(base64.b64decode(self.theirs))
            + len(self.ours)
            - self.ours.count("${!")
            + secrets * userdata.ARN_BYTES
        )


def decode(user_data: str | None) -> bytes | None:
    """Return the bytes of a launch template's user data."""
    return base64.b64decode(user_data) if user_data else None


def read(data: bytes | None, owner: str = "the launch template") -> Archive:
    """Return somebody's user data, None or empty where a launch template has none.

    Raises BatchregError where our part cannot follow theirs.
    """
    data = data if data and data.strip() else EMPTY
    _refuse_what_is_no_archive(data, owner)
    message = _parse(data)
    boundary = message.get_boundary()
    if message.get_content_maintype() != "multipart" or not boundary:
        raise BatchregError(
            f"The user data of {owner} is a single MIME part, not a multipart archive.",
            f"Make it a multipart archive in a new version of the launch template, {ELSEWHERE}.",
        )
    text = data.decode()
    closing = re.search(rf"(?<![^\r\n])--{re.escape(boundary)}--[ \t]*(?![^\r\n])", text)
    archive = Archive(
        data=text[: closing.start()].encode() if closing else data,
        boundary=boundary,
        owner=owner,
        parts=tuple(_part(number, leaf) for number, leaf in enumerate(_leaves(message), 1)),
    )
    _refuse_what_would_change(archive, message)
    return archive


def splice(archive: Archive, part: str) -> Spliced:
    """Return the archive with `part` at its end.

    `part`: ours, with its headers, as text for `Fn::Sub`. Raises BatchregError where the archive
    outgrows userdata.LIMIT.
    """
    spliced = _spliced(archive, part)
    if spliced.size > userdata.LIMIT:
        raise BatchregError(
            f"With batchreg's part, the user data of {archive.owner} is "
            f"{spliced.size:,} bytes; the limit is {userdata.LIMIT:,}.",
            f"Shorten it by {spliced.size - userdata.LIMIT:,} bytes in a new version of the launch "
            f"template, {ELSEWHERE}.",
        )
    return spliced


def _parse(data: bytes) -> Message:
    """Parse as cloud-init does: text in UTF-8, with the defects that it forgives."""
    import email

    return email.message_from_string(data.decode())


def _leaves(message: Message) -> list[Message]:
    if not message.is_multipart() and not _body(message):
        return []  # an archive without parts
    return [leaf for leaf in message.walk() if not leaf.is_multipart()]


def _spliced(archive: Archive, part: str) -> Spliced:
    theirs = archive.data
    if not theirs.endswith((b"\n", b"\r")):
        theirs += b"\n"
    # Base64 texts can be joined only where the first has no padding. Line breaks before a boundary
    # change no script and no YAML.
    theirs += b"\n" * (-len(theirs) % 3)
    boundary = userdata.escape(archive.boundary)
    return Spliced(
        theirs=base64.b64encode(theirs).decode(),
        ours=f"--{boundary}\n{part.rstrip()}\n\n--{boundary}--\n",
    )


def _part(number: int, leaf: Message) -> Part:
    content = leaf.get_payload(decode=True)
    assert isinstance(content, bytes)  # it is not multipart
    if content.startswith(GZIP):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError):
            content = b""  # cloud-init cannot read it either
    return Part(
        number=number,
        name=leaf.get_filename() or "",
        content_type=leaf.get_content_type(),
        text=content.decode(errors="replace"),
    )


def _refuse_what_is_no_archive(data: bytes, owner: str) -> None:
    """Raise BatchregError for what AWS Batch and cloud-init do not take for a MIME archive."""
    first = data.split(b"\n", 1)[0]
    if data.startswith(GZIP):
        problem = "compressed"
    elif first.lstrip().startswith(b"["):
        problem = "TOML, as Bottlerocket takes it, and Bottlerocket cannot run batchreg's program"
    elif not first.strip():
        problem = "a MIME archive behind a blank line, which AWS Batch does not recognize"
    elif re.match(rb"(?i)\s+(mime-version|content-type)\s*:", first):
        problem = "an indented MIME archive, which AWS Batch does not recognize"
    elif not re.match(rb"(?i)[!-9;-~]+\s*:", first):
        problem = "not a MIME archive"
    elif b"mime-version:" not in data[:HEADER_BYTES].lower():
        problem = "an archive without a MIME-Version header, which cloud-init does not recognize"
    else:
        try:
            data.decode()
        except UnicodeDecodeError:
            problem = "not UTF-8 text, which cloud-init cannot read"
        else:
            return
    raise BatchregError(
        f"The user data of {owner} is {problem}.",
        "Make it a MIME multipart archive in a new version of the launch template, as "
        f"docs.aws.amazon.com/batch/latest/userguide/launch-templates.html shows, {ELSEWHERE}.",
    )


def _refuse_what_would_change(archive: Archive, message: Message) -> None:
    """Raise BatchregError where a parser would see other parts of theirs than before."""
    probe = _spliced(archive, f"{PROBE[0][0]}: {PROBE[0][1]}\n\n{PROBE[1]}")
    joined = base64.b64decode(probe.theirs) + probe.ours.replace("${!", "${").encode()
    before = [(leaf.items(), _body(leaf)) for leaf in _leaves(message)]
    after = [(leaf.items(), _body(leaf)) for leaf in _leaves(_parse(joined))]
    if after != [*before, ([PROBE[0]], PROBE[1])]:
        raise BatchregError(
            f"The user data of {archive.owner} is a broken MIME archive: another part cannot "
            "follow the last one.",
            f"Fix its headers and boundaries in a new version of the launch template, {ELSEWHERE}.",
        )


def _body(leaf: Message) -> str:
    return str(leaf.get_payload()).rstrip("\r\n")
