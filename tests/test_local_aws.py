"""The embedded AWS starts, says where it is, and ends."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from cloud import Cloud, eventually
from local_aws import PROGRAM, LocalAws
from pages import ROOT


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with LocalAws() as aws:
        yield Cloud(aws)


def by_hand(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *arguments],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def is_up(endpoint: str) -> bool:
    try:
        urllib.request.urlopen(f"{endpoint}/_localstack/health", timeout=5).close()
    except OSError:
        return False
    return True


def test_prints_what_a_shell_needs(cloud: Cloud) -> None:
    """`eval` of its output is all that it takes to use it by hand."""
    with by_hand("--port", "0") as process:
        assert process.stdout
        lines = [process.stdout.readline() for _ in cloud.aws.environ]
        process.kill()
    printed = subprocess.run(
        ["sh", "-c", "".join(lines) + "env"], text=True, capture_output=True, check=True
    ).stdout
    assert set(cloud.aws.environ) <= {line.split("=")[0] for line in printed.splitlines()}


def test_starts_as_the_readme_says() -> None:
    """From the environment that make has set up, which is where ministack is."""
    (line,) = re.findall(r"(?m)^    (\S+ scripts/local_aws .*)$", (ROOT / "README.md").read_text())
    with subprocess.Popen(
        [*line.split(), "--port", "0"], cwd=ROOT, text=True, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        endpoint = process.stdout.readline().strip().partition("=")[2]
        eventually(lambda: is_up(endpoint), bool)
        process.send_signal(signal.SIGINT)


def test_ctrl_c_ends_it_quietly() -> None:
    """Ending a server by hand is no failure."""
    with by_hand("--port", "0") as process:
        assert process.stdout
        endpoint = process.stdout.readline().strip().partition("=")[2]
        eventually(lambda: is_up(endpoint), bool)
        address = endpoint.rpartition("/")[2]
        with contextlib.closing(http.client.HTTPConnection(address)) as connection:
            connection.request("GET", "/_localstack/health")
            connection.getresponse().read()
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=5)
    assert (process.returncode, stderr.count("\n")) == (0, 1), stderr


def test_a_port_in_use_is_one_line() -> None:
    """A second server says what to do instead."""
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        by_hand("--port", str(other.getsockname()[1])) as process,
    ):
        _, stderr = process.communicate(timeout=5)
    assert stderr.endswith("Address already in use. Use --port 0 for a free one.\n")


def test_ends_with_the_block() -> None:
    """Nothing stays behind, also when the block fails."""
    with pytest.raises(ZeroDivisionError), LocalAws() as aws:  # noqa: PT012
        assert is_up(aws.endpoint)
        _ = 1 / 0
    assert not is_up(aws.endpoint)


def test_dies_with_its_parent(tmp_path: Path) -> None:
    """A test run that is killed leaves no server running."""
    code = (
        "import local_aws, time\n"
        "with local_aws.LocalAws() as aws: print(aws.endpoint, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=PROGRAM.parent,
        text=True,
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as parent:
        assert parent.stdout
        endpoint = parent.stdout.readline().strip()
        assert is_up(endpoint)
        parent.kill()
    eventually(lambda: is_up(endpoint), lambda up: not up)


def test_a_failed_start_says_why(tmp_path: Path) -> None:
    """Whoever waits for it learns what the child's log says."""
    with pytest.raises(RuntimeError, match="could not convert string to float"):
        LocalAws(pace="soon", log=tmp_path / "log").__enter__()  # type: ignore[arg-type]


def test_environ_is_enough_for_boto3(cloud: Cloud) -> None:
    """The command line's own tests pass it to a subprocess."""
    code = "import boto3; print(boto3.client('sts').get_caller_identity()['Account'])"
    run = subprocess.run(
        [sys.executable, "-c", code],
        text=True,
        capture_output=True,
        check=True,
        env={**os.environ, **cloud.aws.environ},
    )
    assert run.stdout == "123456789012\n"


def test_the_network_is_there(cloud: Cloud) -> None:
    """The named subnets are in the named VPC."""
    subnets = cloud.ec2.describe_subnets(SubnetIds=cloud.aws.subnet_ids)["Subnets"]
    assert {subnet["VpcId"] for subnet in subnets} == {cloud.aws.vpc_id}


def test_the_network_is_in_environ(cloud: Cloud) -> None:
    """batchreg reads its network from the environment."""
    assert cloud.aws.environ["BATCHREG_SUBNET_ID"].split() == cloud.aws.subnet_ids


def test_the_metadata_service_wants_a_token(cloud: Cloud) -> None:
    """Amazon Linux 2023 has IMDSv2 only."""
    endpoint = cloud.aws.environ["AWS_EC2_METADATA_SERVICE_ENDPOINT"]
    with pytest.raises(urllib.error.HTTPError, match="401") as refusal:
        urllib.request.urlopen(f"{endpoint}/latest/meta-data/iam/security-credentials/")
    refusal.value.close()
