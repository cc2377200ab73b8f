"""Credentials that occur nowhere else in the world, and the search for them everywhere but in AWS."""

from __future__ import annotations

import base64
import secrets
import subprocess
from pathlib import Path

import schemas
from account import BATCHREG, Account
from lab.environ import clean
from wire import Wire

USERNAME, PASSWORD = (f"canary{secrets.token_hex(12)}" for _ in range(2))
CANARIES = [
    text.encode()
    for text in (USERNAME, PASSWORD, base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode())
]


def sung(*places: bytes | str) -> bool:
    """Tell whether a canary is in any of these places."""
    return any(
        canary in (place.encode() if isinstance(place, str) else place)
        for place in places
        for canary in CANARIES
    )


class Watched:
    """Runs batchreg with the canaries in its environment, and looks where they must not be."""

    road = "CreateChangeSet"  # the one operation that may carry them

    def __init__(self, account: Account, folder: Path) -> None:
        self.account, self.folder = account, folder
        self.answer = lambda operation, body: body

    def __call__(
        self, *arguments: str, command: str = "deploy", **environ: str
    ) -> subprocess.CompletedProcess[str]:
        command_lines: set[bytes] = set()

        def look(*_: object) -> None:
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    command_lines.add(path.read_bytes())
                except OSError:  # it has just ended
                    continue

        with Wire(self.account.aws.endpoint, before=look, answer=self.answer) as wire:
            result = subprocess.run(
                [BATCHREG, command, "--stack-name", self.account.name, *arguments],
                cwd=self.folder,
                capture_output=True,
                text=True,
                timeout=30,
                env=clean(
                    **{
                        **self.account.aws.environ,
                        "AWS_ENDPOINT_URL": wire.endpoint,
                        "TMPDIR": str(self.folder),
                        "HOME": str(self.folder),
                        "BATCHREG_USERNAME": USERNAME,
                        "BATCHREG_PASSWORD": PASSWORD,
                        "BATCHREG_NO_CHECK": "1",  # a registry that is asked may have it
                        **environ,
                    }
                ),
            )
        schemas.check_lines(arguments, result.stdout)
        self.carriers = {sent.operation for sent in wire.sent if sung(sent.text)}
        assert self.carriers <= {self.road}
        assert not sung(result.stdout, result.stderr)
        assert not wire.sent or any(b"batchreg" in line for line in command_lines)
        assert not sung(*command_lines)
        assert not sung(*(path.read_bytes() for path in self.folder.rglob("*") if path.is_file()))
        return result
