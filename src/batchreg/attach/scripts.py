"""What somebody's scripts do that matters to ours, by line; no value of theirs is ever quoted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from batchreg.attach.archive import ELSEWHERE, Archive, Part
from batchreg.errors import BatchregError
from batchreg.render.parts import COPIED, SETS

CREDENTIALS = re.compile(r"\bECS_ENGINE_AUTH_(?:TYPE|DATA)\b")
ECS_CONFIG = r"""["']?/etc/ecs/ecs\.config\b"""
# Wider than what deploy refuses (render.parts): these lines are only pointed out.
OVERWRITES = re.compile(
    rf"(?<!>)>\|?\s*{ECS_CONFIG}|\btee\s+(?!-a\b|--append\b){ECS_CONFIG}|"
    rf"\b(?:cp|mv|install|wget|curl)\b.*\s{ECS_CONFIG}"
)
OVERWRITES_BY_CLOUD_CONFIG = re.compile(rf"\bpath:\s*{ECS_CONFIG}")
# ecs.service waits for cloud-final.service, which runs the script: amazon-ecs-agent #1707.
BLOCKS = re.compile(
    r"\bsystemctl\b(?!.*--no-block)(?=.*\b(?:re)?start\b|.*--now\b)(?!.*\btry-restart\b).*"
    r"\becs(?:\.service)?(?![\w./-])|\bservice\s+ecs\s+(?:re)?start\b"
)
# Replaces the list that runs shell scripts.
NO_SCRIPTS = re.compile(r"^\s*cloud_final_modules\s*:")
INCLUDE = ("text/x-include-url", "text/x-include-once-url")
# What Amazon Linux 2023 lacks or does in another way: docs.aws.amazon.com/linux/al2023/ug/.
AMAZON_LINUX_2 = re.compile(
    r"(?P<word>\bamazon-linux-extras\b|\byum-config-manager\b|\bepel(?:-release)?\b|\bpython2\S*|"
    r"\baws-?cli\b(?!-2)|\baws-cfn-bootstrap\b|\bntpd?\b|\bcrontab\b|\bel7\b|\bamzn2\b|\binitctl\b|"
    r"\bnvidia-docker\b|\blustre-client\b|"
    r"(?<![\w.-])yum(?=\s)|/etc/sysconfig/docker(?:-storage)?\b|\brc\.local\b|"
    r"http://169\.254\.169\.254/latest/(?!api/token)\S*)"
)


@dataclass(frozen=True)
class Line:
    """A line of somebody's user data, and the word in it that matters."""

    part: Part
    number: int
    word: str

    def __str__(self) -> str:
        return f"{self.part}, line {self.number}"


@dataclass(frozen=True, kw_only=True)
class Review:
    """What people should know before our part runs beside theirs.

    `warnings`: sentences. `credentials`: lines that set registry credentials by hand, which the
    instance then merges with ours. `amazon_linux_2`: lines that may fail on Amazon Linux 2023.
    """

    warnings: tuple[str, ...] = ()
    credentials: tuple[Line, ...] = ()
    amazon_linux_2: tuple[Line, ...] = ()


def review(archive: Archive) -> Review:
    """Read the scripts of an archive. Raises BatchregError for one that must not be copied."""
    _refuse(archive)
    warnings: list[str] = []
    for line in _matching(archive, SETS):
        warnings.append(f"{line} sets {line.word}, which AWS Batch reserves for itself.")
    for line in _overwriting(archive):
        warnings.append(
            f"{line} overwrites /etc/ecs/ecs.config. The credentials are written after that."
        )
    for line in _matching(archive, BLOCKS):
        warnings.append(
            f"{line} starts the ECS agent and waits for it, but the agent waits for the script: "
            "use systemctl --no-block."
        )
    for line in _matching(archive, NO_SCRIPTS):
        warnings.append(
            f"{line} replaces cloud-init's list of modules. Without scripts-user in it, "
            "batchreg's part does not run."
        )
    for part in archive.parts:
        if _type(part) in INCLUDE:
            warnings.append(
                f"{part} includes other files. If an instance cannot fetch them, cloud-init drops "
                "all of the user data, batchreg's part too."
            )
    return Review(
        warnings=tuple(warnings),
        credentials=tuple(_matching(archive, CREDENTIALS)),
        amazon_linux_2=tuple(_matching(archive, AMAZON_LINUX_2)),
    )


def _refuse(archive: Archive) -> None:
    for line in _matching(archive, COPIED):
        raise BatchregError(
            f"The user data of {archive.owner} was copied from a launch template that AWS Batch "
            f"made (Batch-lt-…): {line} names a cluster.",
            "Take that part out in a new version of the launch template, then attach again.",
        )
    for part in archive.parts:
        if _type(part) == "text/part-handler" and "x-shellscript" in part.text:
            raise BatchregError(
                f"The user data of {archive.owner} has a part handler for shell scripts ({part}), "
                "which would get batchreg's part.",
                f"Take it out in a new version of the launch template, {ELSEWHERE}.",
            )


def _type(part: Part) -> str:
    """Return what cloud-init takes a part for: the first line counts where the type says little."""
    starts = {
        "#include-once": INCLUDE[1],
        "#include": INCLUDE[0],
        "#part-handler": "text/part-handler",
    }
    if part.content_type in ("text/plain", "text/x-shellscript"):
        for start, content_type in starts.items():
            if part.text.startswith(start):
                return content_type
    return part.content_type


def _matching(archive: Archive, pattern: re.Pattern[str]) -> Iterator[Line]:
    """Yield the lines that match, but no comments."""
    for part in archive.parts:
        for number, text in enumerate(part.text.splitlines(), 1):
            found = pattern.search(text)
            if found and not text.lstrip().startswith("#"):
                # Never the line itself: it may hold a password.
                yield Line(part, number, found.groupdict().get("word", ""))


def _overwriting(archive: Archive) -> Iterator[Line]:
    yield from _matching(archive, OVERWRITES)
    for line in _matching(archive, OVERWRITES_BY_CLOUD_CONFIG):
        if not re.search(r"\bappend:\s*true\b", line.part.text):
            yield line
