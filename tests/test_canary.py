"""A login that occurs nowhere else in the world, and the search for it everywhere but in AWS."""

from __future__ import annotations

import base64
import secrets
import subprocess
import sys
from pathlib import Path

import pytest
from account import Account
from lab.environ import clean
from wire import Wire

from batchreg.registry.logins import ENV
from batchreg.stack.plan import Inputs, RegistryInput, resolve

BATCHREG = str(Path(sys.executable).with_name("batchreg"))
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
                env={
                    **clean(),
                    **self.account.aws.environ,
                    "AWS_ENDPOINT_URL": wire.endpoint,
                    "TMPDIR": str(self.folder),
                    "HOME": str(self.folder),
                    "BATCHREG_USERNAME": USERNAME,
                    "BATCHREG_PASSWORD": PASSWORD,
                    **environ,
                },
            )
        self.carriers = {sent.operation for sent in wire.sent if sung(sent.text)}
        assert self.carriers <= {self.road}
        assert not sung(result.stdout, result.stderr)
        assert not wire.sent or any(b"batchreg" in line for line in command_lines)
        assert not sung(*command_lines)
        assert not sung(*(path.read_bytes() for path in self.folder.rglob("*") if path.is_file()))
        return result


@pytest.fixture
def watched(account, tmp_path):
    return Watched(account, tmp_path)


def test_login_reaches_the_secret_and_nothing_else_while_the_stack_lives(watched, account):
    """Create, a look at it, an update, its end: one request carries the login."""
    assert watched("--yes").returncode == 0
    assert watched.carriers == {"CreateChangeSet"}
    assert account.secret["password"] == PASSWORD
    assert watched("--json", command="status").returncode == 0
    assert watched("--yes", "--json", "--max-vcpus", "7").returncode == 0
    assert watched("--yes", "--json", command="destroy").returncode == 0


def test_login_stays_out_of_a_failure(watched):
    """The reason of a failed resource is CloudFormation's text, passed on."""
    for machine in ([], ["--json"]):
        assert watched("--yes", "--subnet-id", "subnet-0bad", *machine).returncode == 1


def test_login_stays_out_of_a_dry_run(watched, account):
    """A dry run needs the whole change set, and throws it away."""
    assert watched("--dry-run").returncode == 0
    assert watched.carriers == {"CreateChangeSet"}
    assert account.stack is None


@pytest.mark.parametrize(
    "arguments",
    [
        ["--yes", "--max-vcpus", "none"],
        ["--yes", "--no-such-option"],
        ["--yes", "--password", PASSWORD],
        ["--yes", f"--password={PASSWORD}"],
        ["--yes", "--password-stdin", PASSWORD],
        ["--yes", f"--password-stdin={PASSWORD}"],
        ["--yes", PASSWORD, USERNAME],
        ["--yes", "--registry-url", f"https://{USERNAME}:{PASSWORD}@ghcr.io"],
        ["--yes", "--kms-key-arn", "nonsense"],
    ],
)
def test_login_stays_out_of_the_message_about_a_wrong_option(watched, arguments):
    """Even where somebody has typed it as one, as other tools want it."""
    result = watched(*arguments)
    assert result.returncode in (1, 2)
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "environ",
    [
        {"BATCHREG_USERNAME": f"{USERNAME}:{PASSWORD}"},
        {"BATCHREG_PASSWORD": f"{PASSWORD}\n{PASSWORD}"},
        {"BATCHREG_PASSWORD": f"{PASSWORD}\udcff"},
    ],
)
def test_login_that_is_refused_is_not_shown(watched, environ):
    """The message says what is wrong with it, not what it is."""
    assert watched("--yes", **environ).returncode == 1
    assert watched.carriers == set()


def test_login_stays_out_of_a_traceback(watched):
    """A bug of ours may print whatever it likes, but no variables: here AWS answers nonsense."""

    def nonsense(operation: str, body: bytes) -> bytes:
        return body.replace(b"Status>", b"Mood>") if operation == "DescribeChangeSet" else body

    watched.answer = nonsense
    result = watched("--yes")
    assert result.returncode == 1
    assert "Traceback" in result.stderr


def test_login_stays_out_of_objects_that_a_debugger_or_a_log_prints():
    """repr() of what holds it, as a logging library or pytest would print it."""
    inputs = Inputs(stack_name="x", parameters={"Username": USERNAME, "Password": PASSWORD})
    several = RegistryInput("ghcr.io", USERNAME, f"{ENV}TOKEN", PASSWORD)
    listed = Inputs(stack_name="x", registries=(several,))
    for holder in (inputs, resolve(inputs), listed, resolve(listed)):
        assert not sung(repr(holder))
