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

from batchreg.errors import BatchregError

if TYPE_CHECKING:
    from email.message import Message
    from pathlib import Path

# EC2 allows 16,384 bytes before base64. AWS Batch merges its own part into the same archive: 700 to
# 800 bytes in the examples that AWS prints.
LIMIT = 16 * 1024 - 1024

# As in registry_login, which is too expensive to import here; a test compares them.
# A run tries for this long where Secrets Manager throttles or does not answer. Then the agent is
# parked, or starts without credentials.
BOOT_DEADLINE_SECONDS = 60
# A parked instance powers off after this long if its agent has registered by then, and after both if
# not. A secret that is fixed meanwhile still counts, and an account whose secret is gone does not
# start and stop instances all the time.
POWER_OFF_SECONDS = 630
REGISTRATION_SECONDS = 300
# Without credentials a run begins so long after the last one has ended.
RETRY_SECONDS = 30

# How long after its boot an instance may be running without credentials.
PATIENCE_SECONDS = POWER_OFF_SECONDS + REGISTRATION_SECONDS + RETRY_SECONDS + BOOT_DEADLINE_SECONDS

# What a placeholder such as ${RegistrySecret} grows by when it becomes an ARN: the longest region,
# a stack name of 40 characters, CloudFormation's and Secrets Manager's random suffixes.
ARN_BYTES = 125

# The agent gets all credentials in one variable, for which Linux has 128 KiB: enough for nine with
# user names and passwords as long as CloudFormation allows. Secrets of the user's own are mostly
# shorter, and what would be too much is left out and named on the console.
MAX_REGISTRIES = 9
MAX_OWN_SECRETS = 20

SCRIPT_PATH = "/opt/batchreg/registry_login.py"

# cloud-init runs the scripts of all parts sorted by file name. Ours is to be the last, although it
# would not matter: it only installs a service that runs the program before the agent starts. So no
# other part can undo it, and it is in nobody's way.
NAME = "zzzz-batchreg"
# Version 0.1.0 had it first.
OURS = rf'\A.*\n.*filename="(00-batchreg|{NAME})"'
HEADER = f"""\
Content-Type: text/x-shellscript
Content-Disposition: attachment; filename="{NAME}"

#!/bin/sh
mkdir -p /opt/batchreg
cd /opt/batchreg
"""

# Never a blocking `systemctl start` or `restart` in user data: amazon-ecs-agent #1707.
INSTALL = """\
systemctl enable -q batchreg.service batchreg.timer
systemctl --no-block start batchreg.service batchreg.timer
"""

# With these two lines in ecs.config the agent registers its instance, but cannot open the connection
# over which tasks come (amazon-ecs-agent, wsclient/client.go and httpproxy/proxy.go).
PARKING = """\
HTTP_PROXY=127.0.0.1:9
NO_PROXY=ecs.${AWS::Region}.${AWS::URLSuffix},ec2.${AWS::Region}.${AWS::URLSuffix},169.254.169.254,/var/run/docker.sock
"""

# Where Python cannot run the program, the shell does the least of what the program would do. With an
# argument it is the end of a run: one that was killed is repeated, so that no agent starts without
# credentials.
RUN = f"""\
[ -z "$1" ] || case $SERVICE_RESULT in signal|oom-kill);; *) exit 0;; esac
cd /opt/batchreg
why='it needs python3, 3.6 or newer'
if python3 -c 'import sys; sys.exit(sys.version_info < (3, 6))'; then
 python3 registry_login.py @args $1
 code=$?
 [ $code -lt 2 ] && [ -e /run/batchreg.json ] && exit $code
 why="registry_login.py ended with $code"
fi
config=/etc/ecs/ecs.config
mkdir -p /etc/ecs
if grep -qsx 'HTTP_PROXY=127.0.0.1:9\\|ECS_ENGINE_AUTH_DATA=.*auth.*' $config; then
 exit 1
elif grep -q =join args; then
 echo "batchreg: continuing without credentials: $why"
elif grep -qs _PROXY= $config; then
 sleep {POWER_OFF_SECONDS}
 systemctl --no-block poweroff
else
 (echo; cat parking) >>$config
 echo "batchreg: parked: $why"
 [ $code ] && exec systemctl --no-block start batchreg-retry.timer
 systemd-run -q --on-active={POWER_OFF_SECONDS + REGISTRATION_SECONDS} systemctl poweroff
fi
exit 1
"""

# All that remains where ECR pulls all images.
SETTING = """\
grep -qs ^ECS_IMAGE_PULL_BEHAVIOR= /etc/ecs/ecs.config ||
printf '\\nECS_IMAGE_PULL_BEHAVIOR=${ImagePullBehavior}\\n' >>/etc/ecs/ecs.config
"""

SERVICE = """\
[Unit]
Description=Registry credentials
After=cloud-final.service
Before=ecs.service
StartLimitIntervalSec=0
[Service]
Type=oneshot
ExecStart=/bin/sh /opt/batchreg/run
ExecStopPost=/bin/sh /opt/batchreg/run --deadline=5
StandardOutput=journal+console
[Install]
WantedBy=ecs.service
"""

# The program starts it where there are no credentials, and stops it once there are.
RETRY_TIMER = f"""\
[Timer]
Unit=batchreg.service
OnUnitInactiveSec={RETRY_SECONDS}
AccuracySec=1s
"""

# The random delay keeps a fleet that booted in one moment from asking in one moment.
TIMER = """\
[Timer]
OnUnitActiveSec=${CredentialRefreshMinutes}min
RandomizedDelaySec=1min
AccuracySec=1s
[Install]
WantedBy=timers.target
"""

# A ${ within ${...}, or one that nothing closes. How CloudFormation reads these is not documented.
NESTED = r"\$\{[^}]*(\$\{|$)"

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


def part(
    secret_ids: Sequence[str],
    *,
    on_failure: str = "park",
    image_pull_behavior: str | None = "${ImagePullBehavior}",
    packed: bool = False,
) -> str:
    """Return our MIME part as text for `Fn::Sub`: a script that installs the program.

    It may go after anybody's parts. `secret_ids` are as in `build`, and `on_failure` as in
    `Settings`. Without an `image_pull_behavior` the agent keeps its own.
    """
    head = variable_portion(
        secret_ids, on_failure=on_failure, image_pull_behavior=image_pull_behavior
    )
    return head + escape(constant_portion(packed))


def variable_portion(
    secret_ids: Sequence[str],
    *,
    on_failure: str = "park",
    image_pull_behavior: str | None = "${ImagePullBehavior}",
) -> str:
    """Return the beginning of `part`, text for `Fn::Sub`: whatever differs between two of them."""
    arguments = [
        "--region=${AWS::Region}",
        "--url-suffix=${AWS::URLSuffix}",
        # One word each: before 3.8 Python's argparse refuses others in a file.
        *(f"--secret-id={secret_id}" for secret_id in secret_ids),
        *([f"--setting=ECS_IMAGE_PULL_BEHAVIOR={image_pull_behavior}"] * bool(image_pull_behavior)),
        f"--on-failure={on_failure}",
    ]
    return (
        HEADER
        + _written("args", "\n".join(arguments) + "\n")
        + _written("parking", PARKING)
        + _written("/etc/systemd/system/batchreg.timer", TIMER)
    )


@cache
def constant_portion(packed: bool = False) -> str:
    """Return the rest of `part`, the same for all, as plain text without placeholders.

    `packed`: with the program compressed, for archives that have too little room for it.
    """
    return (
        (_packed if packed else _written)(SCRIPT_PATH, script())
        + _written("run", RUN)
        + "cd /etc/systemd/system\n"
        + _written("batchreg.service", SERVICE)
        + _written("batchreg-retry.timer", RETRY_TIMER)
        + INSTALL
    )


def part_without_credentials() -> str:
    """Return our MIME part where ECR pulls all images, as text for `Fn::Sub`."""
    return HEADER.partition("mkdir")[0] + SETTING


def build(
    secret_ids: Sequence[str], user_parts: Sequence[str] = (), *, on_failure: str = "park"
) -> str:
    """Return the archive as text for `Fn::Sub`: `user_parts` and then `part`.

    `secret_ids` are names, ARNs or placeholders such as `${RegistrySecret}`; `user_parts` are MIME
    parts with their headers. Raises BatchregError where the archive exceeds LIMIT.
    """
    placeholders = sum(secret_id.startswith("${") for secret_id in secret_ids)
    most = MAX_REGISTRIES if placeholders else MAX_OWN_SECRETS
    if len(secret_ids) > most:
        raise BatchregError(
            f"{len(secret_ids)} registries are too many for one stack.", f"Use {most} at most."
        )
    for packed in (False, True):
        ours = (
            part(secret_ids, on_failure=on_failure, packed=packed)
            if secret_ids
            else part_without_credentials()
        )
        text = archive([*map(escape, user_parts), ours])
        size = len(text) + ARN_BYTES * placeholders
        if size <= LIMIT:
            return text
    raise BatchregError(
        f"The user data is {size:,} bytes; the limit is {LIMIT:,}.",
        f"Shorten your own part by {size - LIMIT:,} bytes."
        if user_parts
        else "Use fewer registries, or secrets with shorter names.",
    )


def archive(parts: Sequence[str]) -> str:
    """Return a MIME archive of `parts`, each with its headers."""
    boundary = "==batchreg=="
    while any(f"--{boundary}" in part for part in parts):
        boundary += "="
    return "".join(
        [
            f'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="{boundary}"\n\n',
            *(f"--{boundary}\n{part.rstrip()}\n\n" for part in parts),
            f"--{boundary}--\n",
        ]
    )


def for_instance(
    secret_ids: Sequence[str],
    region: str,
    user_parts: Sequence[str] = (),
    *,
    refresh_minutes: int = 30,
    image_pull_behavior: str = "default",
    on_failure: str = "park",
) -> str:
    """Return the archive for a launch template that something else than CloudFormation makes."""
    for secret_id in secret_ids:
        # One line each in the file of arguments. AWS's own rule for names, and `:` for ARNs.
        if not re.fullmatch(r"[A-Za-z0-9/_+=.@!:-]{1,2048}", secret_id):
            raise BatchregError(f"{secret_id!r} is neither the name nor the ARN of a secret.")
        if secret_id.startswith("arn:") and region_of(secret_id) != [region]:
            raise BatchregError(
                f"{secret_id} is not in {region}: an instance asks one region. "
                "Replicate the secret there."
            )
    if not re.fullmatch(r"[a-z]{2,}(-[a-z]+)+-[0-9]+", region):
        raise BatchregError(f"{region!r} is not a region: write it like eu-central-1.")
    from batchreg.aws import url_suffix

    return resolve(
        build(secret_ids, user_parts, on_failure=on_failure),
        {
            "AWS::Region": region,
            "AWS::URLSuffix": url_suffix(region),
            "CredentialRefreshMinutes": str(refresh_minutes),
            "ImagePullBehavior": image_pull_behavior,
        },
    )


def region_of(secret_id: str) -> list[str]:
    """Return the region that the ARN of a secret names, nothing for a name."""
    return secret_id.split(":")[3:4] if secret_id.startswith("arn:") else []


def resolve(text: str, values: Mapping[str, str]) -> str:
    """Return `text` as CloudFormation's `Fn::Sub` would: placeholders replaced, `${!` unescaped."""
    return re.sub(
        r"\$\{(?:!|([^}!]*)\})", lambda found: "${" if found[1] is None else values[found[1]], text
    )


def user_parts(text: str) -> tuple[str, ...]:
    """Return the user's own parts of what `build` returned."""
    theirs = (part for part in _parts(text) if not re.search(OURS, part))
    return tuple(part.rstrip().replace("${!", "${") for part in theirs)


def on_failure(text: str) -> str:
    """Return the `on_failure` of what `build` returned."""
    ours = "".join(part for part in _parts(text) if re.search(OURS, part))
    found = re.search(r"(?m)^--on-failure=(\w+)$", ours)
    return found[1] if found else "park"


def _parts(text: str) -> list[str]:
    boundary = text.split('boundary="', 1)[1].split('"', 1)[0]
    return re.split(f"--{boundary}(?:--)?\n", text)[1:-1]


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
                f"{path} is a broken MIME archive ({type(broken[0]).__name__}): fix its "
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
    if isinstance(content, bytes) and (not body.isascii() or re.search(NESTED, body)):
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
    kept, in_docstring = [], False
    with open(path, encoding="ascii") as file:
        for line in file:  # not by patterns, which take ten times as long
            text = line.split("  # ")[0].rstrip()
            code = text.lstrip()
            if in_docstring or code.startswith('"""'):
                in_docstring = not code[0 if in_docstring else 3 :].endswith('"""')
            elif code and (code[0] != "#" or code[1] == "!"):
                kept.append(" " * ((len(text) - len(code)) // 4) + code + "\n")
    return "".join(kept)


def _written(path: str, content: str) -> str:
    """Return the shell command that writes a file."""
    return f"cat > {path} <<'EOF'\n{content}EOF\n"


def _packed(path: str, content: str) -> str:
    """Return the shell command that unpacks a file, always the same for the same content.

    The header of the gzip file is ours: Python's own depends on its version and the system.
    """
    import zlib
    from base64 import encodebytes

    raw = content.encode()
    deflate = zlib.compressobj(9, wbits=-15)
    packed = (
        b"\x1f\x8b\x08\0\0\0\0\0\x02\xff"
        + deflate.compress(raw)
        + deflate.flush()
        + zlib.crc32(raw).to_bytes(4, "little")
        + len(raw).to_bytes(4, "little")
    )
    text = encodebytes(packed).decode("ascii")
    return f"base64 -d <<'EOF' | gzip -d > {path}\n{text}EOF\n"
