"""User data as people have it in launch templates, by structure."""

from __future__ import annotations

import base64
import gzip

from batchreg.attach.archive import Spliced
from batchreg.render import userdata

VALUES = {
    "AWS::Region": "eu-central-1",
    "AWS::URLSuffix": "amazonaws.com",
    "RegistrySecret": "arn:aws:secretsmanager:eu-central-1:111122223333:secret:R-AbCdEf",
    "RegistrySecret3": "arn:aws:secretsmanager:eu-central-1:111122223333:secret:R3-AbCdEf",
    "CredentialRefreshMinutes": "30",
}

# A part of ours that leaves a mark, and nothing more.
PART = """\
Content-Type: text/x-shellscript; charset="us-ascii"
Content-Disposition: attachment; filename="zz-batchreg"

#!/bin/sh
mkdir -p /opt/batchreg
echo '${AWS::Region} ${!HOME}' > /opt/batchreg/mark
"""

HEADER = 'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="{}"\n\n'


def resolved(spliced: Spliced) -> bytes:
    """Return the user data that CloudFormation makes of it."""
    return base64.b64decode(spliced.theirs) + userdata.resolve(spliced.ours, VALUES).encode()


def shell(*lines: str, name: str = "") -> str:
    """Return a shell script as a MIME part."""
    disposition = f'Content-Disposition: attachment; filename="{name}"\n' if name else ""
    script = "\n".join(["#!/bin/bash", *lines, ""])
    return f'Content-Type: text/x-shellscript; charset="us-ascii"\n{disposition}\n{script}'


def mark(number: int) -> str:
    """Return a line of shell that leaves a file behind."""
    return f"echo ran-{number} >> /etc/theirs"


def multipart(*parts: str, boundary: str = "==MYBOUNDARY==", end: str = "--\n") -> bytes:
    """Return a MIME multipart archive."""
    delimiter = f"--{boundary}"
    body = "".join(f"{delimiter}\n{part}\n" for part in parts)
    return f"{HEADER.format(boundary)}{body}{delimiter}{end}".encode()


def _unclosed(data: bytes) -> bytes:
    return data[: data.rindex(b"--==MYBOUNDARY==--")]


def _in_base64(script: bytes, content_type: str = "text/x-shellscript") -> str:
    text = base64.encodebytes(script).decode()
    return f"Content-Type: {content_type}\nContent-Transfer-Encoding: base64\n\n{text}"


CLOUD_CONFIG = (
    "Content-Type: text/cloud-config\n\n#cloud-config\nruncmd:\n- [sh, -c, "
    '"echo ran-1 >> /etc/theirs"]\n'
)
_INNER = (
    'Content-Type: multipart/mixed; boundary="inner"\n\n--inner\n'
    f"{shell(mark(1), name='a.sh')}\n--inner\n{shell(mark(2), name='b.sh')}\n"
)
_PREAMBLE = "This is a multi-part message in MIME format.\n"

# Each appends ran-1, ran-2 and so on to /etc/theirs as it boots.
ACCEPTED: dict[str, bytes | None] = {
    "none": None,
    "empty": b"",
    "blank": b"\n",
    "one shell script": multipart(shell(mark(1))),
    "several shell scripts": multipart(*(shell(mark(n), name=f"{n}.sh") for n in (1, 2, 3))),
    "cloud-config": multipart(CLOUD_CONFIG),
    "cloud-config and shell": multipart(CLOUD_CONFIG, shell(mark(2), name="z.sh")),
    "boothook": multipart(
        "Content-Type: text/cloud-boothook\n\n#cloud-boothook\n#!/bin/sh\n" + mark(1) + "\n"
    ),
    "base64": multipart(_in_base64(f"#!/bin/sh\n{mark(1)}\n".encode())),
    "base64 without padding at its end": multipart(
        _in_base64(f"#!/bin/sh\n{mark(1)}\n".encode()).rstrip()
    ),
    "gzip in base64": multipart(
        _in_base64(gzip.compress(f"#!/bin/sh\n{mark(1)}\n".encode(), mtime=0), "application/gzip")
    ),
    "CRLF in the archive, LF in the script": multipart(shell(mark(1)))
    .replace(b"\n", b"\r\n")
    .replace(b"bash\r\n", b"bash\n")
    .replace(b"theirs\r\n", b"theirs\n"),
    "boundary of AWS Batch": multipart(shell(mark(1)), boundary="==BOUNDARY=="),
    "boundary without quotes": multipart(shell(mark(1)), boundary="//").replace(b'"//"', b"//"),
    "boundary with special characters": multipart(shell(mark(1)), boundary="a.b+c'(d)/e:f=g?h*[i]"),
    "never closed": _unclosed(multipart(shell(mark(1)))),
    "never closed, no line break at its end": _unclosed(multipart(shell(mark(1)))).rstrip(),
    "never closed, two scripts": _unclosed(
        multipart(shell(mark(1), name="a.sh"), shell(mark(2), name="b.sh"))
    ),
    "no line break after the closing boundary": multipart(shell(mark(1)), end="--"),
    "blanks after the closing boundary": multipart(shell(mark(1)), end="-- \t\n"),
    "text after the closing boundary": multipart(shell(mark(1)), end="--\nsee the wiki\n"),
    "text before the first boundary": multipart(shell(mark(1))).replace(
        b"\n\n--", f"\n\n{_PREAMBLE}\n--".encode(), 1
    ),
    "headers in another order and case": multipart(shell(mark(1)))
    .replace(b"MIME-Version: 1.0\nContent-Type:", b"Content-type:", 1)
    .replace(b"\n\n", b"\nmime-version: 1.0\n\n", 1),
    "folded header": multipart(shell(mark(1))).replace(b"mixed; ", b"mixed;\n    ", 1),
    "nested": multipart(_INNER + "--inner--\n"),
    "nested, the inner one never closed": multipart(_INNER),
    "nested, inner boundary longer by a word": multipart(
        _INNER.replace("inner", "==MYBOUNDARY==inner") + "--==MYBOUNDARY==inner--\n"
    ),
    "script without #!": multipart(
        shell(mark(1), name="a.sh"), "Content-Type: text/x-shellscript\n\necho never-ran\n"
    ),
    "UTF-8": multipart(shell("# Größe und 🐳", mark(1))),
    "jinja": multipart(
        "Content-Type: text/jinja2\n\n## template: jinja\n#cloud-config\n"
        'runcmd:\n- [sh, -c, "echo ran-{{ 1 }} >> /etc/theirs"]\n'
    ),
    "names that differ by a tilde": multipart(
        shell("echo no", name="zzz.sh"), shell(mark(1), name="~zzz.sh")
    ),
    "scripts of one name": multipart(shell("echo no", name="a.sh"), shell(mark(1), name="a.sh")),
}

_PLAIN = multipart(shell(mark(1)))
REFUSED: dict[str, tuple[bytes, str]] = {
    "script": (b"#!/bin/bash\necho hello\n", "not a MIME archive"),
    "cloud-config": (b"#cloud-config\nruncmd: []\n", "not a MIME archive"),
    "TOML": (b'[settings.ecs]\ncluster = "x"\n', "TOML"),
    "gzip": (gzip.compress(_PLAIN), "compressed"),
    "blank line first": (b"\n" + _PLAIN, "a MIME archive behind a blank line"),
    "indented": (b"".join(b"    " + line for line in _PLAIN.splitlines(True)), "indented"),
    "no MIME-Version": (_PLAIN.replace(b"MIME-Version: 1.0\n", b"", 1), "without a MIME-Version"),
    "single part": (b"MIME-Version: 1.0\n" + shell("true").encode(), "a single MIME part"),
    "no boundary in the header": (
        _PLAIN.replace(b'; boundary="==MYBOUNDARY=="', b"", 1),
        "a single MIME part",
    ),
    "another boundary in the header": (
        _PLAIN.replace(b"==MYBOUNDARY==", b"==OTHER==", 1),
        "a broken MIME archive",
    ),
    "byte order mark": (b"\xef\xbb\xbf" + _PLAIN, "not a MIME archive"),
    "Latin-1": (multipart(shell("# x")).replace(b"# x", b"# \xfc"), "not UTF-8"),
    "binary": (bytes(range(256)), "not a MIME archive"),
}
