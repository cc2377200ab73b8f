"""What tests share: the command line as a user runs it, and an AWS for it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest
import schemas
from account import BATCHREG, Account, Run
from checks import IMAGES, PASSWORD
from lab.environ import clean
from local_aws import LocalAws
from program import Instance, secret
from registry_server import RegistryServer
from secrets_server import REGION, SecretsServer
from stubs import Stubs
from wire import Wire

from batchreg.registry_login import SecretsManager, read_all

# Who starts the tests may ignore Ctrl-C, as a shell does with `&`, and children would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def batchreg(tmp_path: Path) -> Run:
    """Run `batchreg` as a subprocess in an empty folder, with no settings from outside.

    Whatever --json prints must be in its schema, and a refused batchreg.yaml must not be.
    """

    def run(
        *arguments: str, environ: dict[str, str] | None = None, **options: object
    ) -> subprocess.CompletedProcess[str]:
        options = {"capture_output": True, "cwd": tmp_path, **options}
        done = subprocess.run(
            [BATCHREG, *arguments], text=True, timeout=60, env=clean(**(environ or {})), **options
        )
        schemas.check_lines(arguments, done.stdout)
        schemas.check_settings(tmp_path / "batchreg.yaml", done.stderr)
        return done

    return run


@pytest.fixture(scope="session")
def aws() -> Iterator[LocalAws]:
    """One embedded AWS for all; a test has a stack of its own, and leaves the network alone."""
    with LocalAws() as aws:
        yield aws


@pytest.fixture(scope="session")
def slow_aws() -> Iterator[LocalAws]:
    """An embedded AWS that takes its time, as AWS does: there is something to interrupt."""
    with LocalAws(pace=0.05) as aws:
        yield aws


_numbers = count(1)


@pytest.fixture
def stack() -> str:
    """Return a name that no other test's stack has."""
    return f"lab{next(_numbers)}"


@pytest.fixture(scope="session")
def template() -> str:
    """What `batchreg render` prints."""
    return subprocess.run(
        [BATCHREG, "render"], capture_output=True, text=True, check=True, timeout=60, cwd="/"
    ).stdout


@pytest.fixture
def account(aws: LocalAws, stack: str) -> Account:
    """The embedded AWS, without the stack."""
    return Account(aws, stack)


@pytest.fixture
def made(account: Account, template: str) -> Account:
    """The embedded AWS, with the stack."""
    account.make(template)
    return account


@pytest.fixture
def serve() -> Iterator[Callable[..., RegistryServer]]:
    """Start a registry where ada may pull lab/align, and everybody lab/open."""
    with ExitStack() as servers:

        def start(**options: object) -> RegistryServer:
            settings = {
                "users": {"ada": PASSWORD},
                "rights": {"ada": {"lab/align"}, "": {"lab/open"}},
                "images": {**IMAGES, "lab/open": IMAGES["lab/align"]},
                **options,
            }
            return servers.enter_context(RegistryServer(**settings))

        yield start


@pytest.fixture
def server() -> Iterator[SecretsServer]:
    """Serve two secrets, for ghcr.io and Docker Hub."""
    secrets: dict[str, str | bytes] = {"ghcr": secret(), "hub": secret("bob", "b", "docker.io")}
    with SecretsServer(secrets) as running:
        yield running
    assert running.errors == []


@pytest.fixture
def instance(tmp_path: Path, server: SecretsServer) -> Instance:
    return Instance(tmp_path, server)


@pytest.fixture
def read(server: SecretsServer, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """Read secrets as the program does, in this process, where waiting takes no time."""
    for name in ("AWS_ACCESS_KEY_ID", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.url)
    reader = SecretsManager(REGION, server.url)
    return lambda *ids: read_all(ids, reader.read, 30, sleep=lambda seconds: None)


@pytest.fixture
def stubbed_ec2() -> Iterator[Stubs]:
    """A client of EC2 whose responses the test gives, each of which must be asked for."""
    stubs = Stubs("ec2")
    yield stubs
    stubs.ec2.assert_no_pending_responses()


@pytest.fixture
def vanishing(aws: LocalAws) -> Iterator[tuple[str, dict[str, str]]]:
    """A subnet that is deleted between the checks and the change set, and the way to AWS."""
    ec2 = aws.client("ec2")
    (present,) = ec2.describe_subnets(SubnetIds=aws.subnet_ids[:1])["Subnets"]
    subnet = ec2.create_subnet(VpcId=present["VpcId"], CidrBlock="172.31.240.0/24")["Subnet"]
    ec2.modify_subnet_attribute(SubnetId=subnet["SubnetId"], MapPublicIpOnLaunch={"Value": True})

    def delete(operation: str, count: int) -> None:
        if operation == "CreateChangeSet":
            ec2.delete_subnet(SubnetId=subnet["SubnetId"])

    with Wire(aws.endpoint, before=delete) as wire:
        yield subnet["SubnetId"], {"AWS_ENDPOINT_URL": wire.endpoint}
