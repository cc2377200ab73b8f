"""The user data of an instance: a MIME multipart archive, built without a template language.

What `build` returns is text for `Fn::Sub`: `${AWS::Region}` and the like stand for values, and a
literal `${` is written `${!`. `resolve` does what CloudFormation does with it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

from batchreg.aws import url_suffix
from batchreg.errors import BatchregError

if TYPE_CHECKING:
    from email.message import Message
    from pathlib import Path

# EC2 takes 16 KB before base64, and AWS Batch merges a part of its own into the same archive.
# What that adds is not documented, so a quarter stays free.
LIMIT = 12 * 1024

# A run of the login lasts this long where Secrets Manager throttles or does not answer. There are
# three, with pauses: a secret that somebody mends meanwhile still counts, and an account whose
# secret is gone does not start and stop instances all the time.
BOOT_DEADLINE_SECONDS = 150
BOOT_PAUSES_SECONDS = (60, 120, 0)  # after each run

# How long an instance without credentials keeps trying before it gives up.
PATIENCE_SECONDS = len(BOOT_PAUSES_SECONDS) * BOOT_DEADLINE_SECONDS + sum(BOOT_PAUSES_SECONDS)

# What a placeholder such as ${RegistrySecret} grows by when it becomes an ARN: the longest region,
# a stack name of 40 characters, CloudFormation's and Secrets Manager's random suffixes.
ARN_BYTES = 125

SCRIPT_PATH = "/opt/batchreg/registry_login.py"

# Runs in cloud-final.service, which ecs.service waits for: the agent finds its credentials, or no
# agent starts. Never a blocking `systemctl start` or `restart` here: amazon-ecs-agent #1707.
# It writes its files itself: a cloud-config would have to get along with everybody else's, whose
# lists replace each other, and each line would travel with an indent.
BOOT = f"""\
#!/bin/sh
mkdir -p /opt/batchreg
%s
for pause in {" ".join(map(str, BOOT_PAUSES_SECONDS))}; do
 python3 {SCRIPT_PATH} @/opt/batchreg/args --deadline {BOOT_DEADLINE_SECONDS}
 if grep -qs '^ECS_ENGINE_AUTH_DATA=.*auth' /etc/ecs/ecs.config; then
  systemctl daemon-reload
  exec systemctl --no-block enable --now batchreg.timer
 fi
 sleep $pause
done
echo 'batchreg: no registry login at all: powering off' >&2
systemctl --no-block poweroff
"""

SERVICE = f"""\
[Unit]
Description=Refresh the registry logins
[Service]
Type=oneshot
ExecStart=/usr/bin/python3 {SCRIPT_PATH} @/opt/batchreg/args -q
StandardOutput=journal+console
"""

# The random delay keeps a fleet that booted in one moment from asking in one moment.
TIMER = """\
[Timer]
OnActiveSec=${CredentialRefreshMinutes}min
OnUnitActiveSec=${CredentialRefreshMinutes}min
RandomizedDelaySec=1min
AccuracySec=1s
[Install]
WantedBy=timers.target
"""


# A ${ within ${...}, or one that nothing closes. How CloudFormation reads these is not documented.
NESTED = re.compile(r"\$\{[^}]*(\$\{|$)")

# What cloud-init makes of a file's first line, and the types that it acts on.
# Source: cloudinit.readthedocs.io/en/latest/explanation/format.html
STARTS = {
    b"#!": "x-shellscript",
    b"#cloud-config-archive": "cloud-config-archive",
    b"#cloud-config": "cloud-config",
    b"#cloud-boothook": "cloud-boothook",
    b"#include-once": "x-include-once-url",
    b"#include": "x-include-url",
    b"#part-handler": "part-handler",
    b"## template: jinja": "jinja2",
}
KNOWN = {
    *(f"text/{subtype}" for subtype in STARTS.values()),
    *(f"text/x-shellscript-per-{how_often}" for how_often in ("boot", "instance", "once")),
    "text/cloud-config-jsonp",
    "text/plain",  # cloud-init looks at the first line
}


def build(secret_ids: Sequence[str], user_parts: Sequence[str] = ()) -> str:
    """Return the archive as text for `Fn::Sub`.

    `secret_ids` are names, ARNs or placeholders such as `${RegistrySecret}`; `user_parts` are MIME
    parts with their headers. Raises BatchregError where the archive outgrows LIMIT.
    """
    arguments = [
        "--region=${AWS::Region}",
        "--url-suffix=${AWS::URLSuffix}",
        *(f"-s{secret_id}" for secret_id in secret_ids),
        "--setting=ECS_IMAGE_PULL_BEHAVIOR=${ImagePullBehavior}",
    ]
    files = {
        SCRIPT_PATH: escape(script()),
        "/opt/batchreg/args": "\n".join(arguments) + "\n",
        "/etc/systemd/system/batchreg.service": SERVICE,
        "/etc/systemd/system/batchreg.timer": TIMER,
    }
    boot = BOOT % "".join(map(_written, files.items())).rstrip()
    # Ours first, so that no other part's shell script can keep it from running.
    parts = [
        'Content-Type: text/x-shellscript; charset="us-ascii"\n'
        'Content-Disposition: attachment; filename="00-batchreg"\n\n' + boot,
        *map(escape, user_parts),
    ]
    boundary = "==batchreg=="
    while any(f"--{boundary}" in part for part in parts):
        boundary += "="
    text = "".join(
        [
            f'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="{boundary}"\n\n',
            *(f"--{boundary}\n{part.rstrip()}\n\n" for part in parts),
            f"--{boundary}--\n",
        ]
    )
    size = len(text) + ARN_BYTES * sum(secret_id.startswith("${") for secret_id in secret_ids)
    if size > LIMIT:
        raise BatchregError(
            f"The user data is {size:,} bytes long, and {LIMIT:,} are the limit: "
            + (
                f"shorten your own part by {size - LIMIT:,}, for example by fetching a longer "
                "script from S3."
                if user_parts
                else f"{len(secret_ids)} registries are too many for one stack."
            )
        )
    return text


def for_instance(
    secret_ids: Sequence[str],
    region: str,
    user_parts: Sequence[str] = (),
    *,
    refresh_minutes: int = 30,
    image_pull_behavior: str = "default",
) -> str:
    """Return the archive for a launch template that something else than CloudFormation makes."""
    for secret_id in secret_ids:
        # One line each in the file of arguments. AWS's own rule for names, and `:` for ARNs.
        if not re.fullmatch(r"[A-Za-z0-9/_+=.@!:-]{1,2048}", secret_id):
            raise BatchregError(f"{secret_id!r} is neither the name nor the ARN of a secret.")
        if secret_id.startswith("arn:") and secret_id.split(":")[3:4] != [region]:
            raise BatchregError(
                f"{secret_id} is not in {region}: an instance asks one region. "
                "Replicate the secret there."
            )
    if not re.fullmatch(r"[a-z]{2,}(-[a-z]+)+-[0-9]+", region):
        raise BatchregError(f"{region!r} is not a region: write it like eu-central-1.")
    return resolve(
        build(secret_ids, user_parts),
        {
            "AWS::Region": region,
            "AWS::URLSuffix": url_suffix(region),
            "CredentialRefreshMinutes": str(refresh_minutes),
            "ImagePullBehavior": image_pull_behavior,
        },
    )


def resolve(text: str, values: Mapping[str, str]) -> str:
    """Return `text` as CloudFormation's `Fn::Sub` would: placeholders replaced, `${!` unescaped."""
    return re.sub(
        r"\$\{(?:!|([^}!]*)\})", lambda found: "${" if found[1] is None else values[found[1]], text
    )


def user_parts(text: str) -> tuple[str, ...]:
    """Return the user's own parts of what `build` made."""
    boundary = text.split('boundary="', 1)[1].split('"', 1)[0]
    parts = re.split(f"--{boundary}(?:--)?\n", text)[2:-1]  # header and our script first
    if parts and f"\n path: {SCRIPT_PATH}\n" in parts[-1]:  # of stacks from before 0.1.0
        parts.pop()
    return tuple(part.rstrip().replace("${!", "${") for part in parts)


def read_parts(path: Path) -> tuple[str, ...]:
    """Return the MIME parts in the file at `path`, with their headers, in ASCII.

    The file is a MIME multipart archive, or one part as cloud-init takes it: a script (`#!`), a
    `#cloud-config`, a `#cloud-boothook` and so on. Raises BatchregError for anything else.
    """
    import email
    from email.message import Message

    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BatchregError(f"Cannot read {path}: {error.strerror}.") from None
    raw = raw.replace(b"\r\n", b"\n")
    if re.match(rb"(?i)(mime-version|content-type)\s*:", raw):
        archive = email.message_from_bytes(raw)
        leaves = [leaf for leaf in archive.walk() if not leaf.is_multipart()]
        broken = [defect for part in archive.walk() for defect in part.defects]
        if broken:
            raise BatchregError(
                f"{path} is a broken MIME archive ({type(broken[0]).__name__}): mend its "
                "boundaries and headers."
            )
    else:
        subtype = next((STARTS[start] for start in STARTS if raw.startswith(start)), None)
        if not subtype:
            raise BatchregError(
                f"{path} cannot become a MIME part: let its first line be #! and an interpreter, "
                "#cloud-config or #cloud-boothook, or make it a MIME archive."
            )
        leaf = Message()
        leaf["Content-Type"] = f'text/{subtype}; charset="utf-8"'
        leaf.set_payload(raw.decode("ascii", "surrogateescape"))
        leaves = [leaf]
    for number, leaf in enumerate(leaves, 1):
        if leaf.get_content_type() not in KNOWN:
            raise BatchregError(
                f"{path}: part {number} is {leaf.get_content_type()}, which cloud-init does not "
                "run: use text/x-shellscript or text/cloud-config."
            )
    return tuple(map(_ascii, leaves))


def _ascii(leaf: Message) -> str:
    """Return one MIME part as ASCII text, in base64 where that is the only safe way."""
    from email.base64mime import body_encode

    body, content = str(leaf.get_payload()), leaf.get_payload(decode=True)
    if isinstance(content, bytes) and (not body.isascii() or NESTED.search(body)):
        body = body_encode(content)
        del leaf["Content-Transfer-Encoding"]
        leaf["Content-Transfer-Encoding"] = "base64"
    del leaf["MIME-Version"]
    headers = "".join(f"{name}: {value}\n" for name, value in leaf.items())
    return f"{headers}\n{body}"


def escape(text: str) -> str:
    """Keep `Fn::Sub` from reading a literal `${`."""
    return text.replace("${", "${!")


@cache
def script() -> str:
    """Return `registry_login.py` as the instance gets it: without comments, one blank an indent."""
    path = os.path.join(os.path.dirname(os.path.dirname(__file__)), "registry_login.py")
    with open(path, encoding="ascii") as file:
        text = file.read()
    for pattern in (r'(?ms)^ *""".*?"""\n', r"(?m)^ *#(?!!).*\n", r"(?m)  # .*$", r"(?m)^\n"):
        text = re.sub(pattern, "", text)
    return re.sub(r"(?m)^ +", lambda indent: " " * (len(indent[0]) // 4), text)


def _written(item: tuple[str, str]) -> str:
    path, content = item
    return f"cat > {path} <<'EOF'\n{content}EOF\n"
