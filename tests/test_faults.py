"""What the network, the credentials and AWS itself do wrong, from the outside.

batchreg runs as a subprocess against a real server that fails as told and else passes requests on
to the embedded AWS. Whatever happens: one line, exit status 1, no traceback, or success after a
retry.
"""

from __future__ import annotations

import itertools
import json
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from lab.forwarder import Call, Drop, Forwarder, Reply
from local_aws import LocalAws

from batchreg import aws as batchreg_aws

PASSWORD = "hunter2-canary"
HTML = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Hotel &nbsp; Wi-Fi</html>"
XHTML = "<html><head><title>Sign in</title></head><body><p>Hotel Wi-Fi</p></body></html>"

# A fault answers a request, or drops the connection: (status, content type, body) or DROP.
Answer = tuple[int, str, str]
DROP = None


def error(code: str, message: str, status: int = 400) -> Answer:
    """Answer as CloudFormation does."""
    return (
        status,
        "text/xml",
        (
            '<ErrorResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/"><Error>'
            f"<Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
            "<RequestId>1-2-3</RequestId></ErrorResponse>"
        ),
    )


def json_error(code: str, message: str, status: int = 403) -> Answer:
    """Answer as Batch does."""
    return status, "application/json", json.dumps({"__type": code, "message": message})


def denied(action: str) -> str:
    return (
        f"User: arn:aws:iam::111122223333:user/ada is not authorized to perform: {action} on "
        f"resource: * because no identity-based policy allows the {action} action"
    )


class Front(Forwarder):
    """A server in front of the embedded AWS, which fails as its `faults` say."""

    def __init__(self, backend: str) -> None:
        super().__init__(backend)
        self.names: list[str] = []  # of the calls that have arrived
        # What a call named so is answered instead, in order; a `*` stands for any call.
        self.faults: dict[str, Iterator[Answer | None]] = {}
        self.lost: set[str] = set()  # calls that arrive once, and whose answer does not

    def before(self, call: Call) -> Reply | None:
        name = call.operation.rpartition("/")[2]
        self.names.append(name)
        for key in (name, "*"):
            if key in self.faults:
                try:
                    fault = next(self.faults[key])
                except StopIteration:
                    continue
                if fault is DROP:
                    raise Drop
                status, kind, body = fault
                return Reply(status, body.encode(), {"Content-Type": kind})
        return None

    def after(self, call: Call, reply: Reply) -> Reply:
        name = call.operation.rpartition("/")[2]
        if name in self.lost:
            self.lost.remove(name)
            raise Drop
        return reply


@pytest.fixture
def front(aws: LocalAws) -> Iterator[Front]:
    with Front(aws.endpoint) as front:
        yield front


@pytest.fixture
def environ(aws: LocalAws, front: Front, tmp_path: Path) -> dict[str, str]:
    """Good credentials, and nothing from this machine's own configuration."""
    return {
        **aws.environ,
        "AWS_ENDPOINT_URL": front.url,
        "HOME": str(tmp_path),
        "AWS_EC2_METADATA_DISABLED": "true",
        "BATCHREG_PASSWORD": PASSWORD,
        "NO_PROXY": "127.0.0.1",
    }


DEPLOY = ("deploy", "--yes", "--username", "lab-canary", "--stack-name")


def fails_with_one_line(result: Any) -> str:
    """Return the line, having checked that it is one."""
    lines = [line for line in result.stderr.splitlines() if line.startswith("batchreg: ")]
    assert result.returncode == 1, result.stderr
    assert len(lines) == 1, result.stderr
    assert result.stderr.endswith(f"{lines[0]}\n"), result.stderr
    assert "Traceback" not in result.stderr
    assert PASSWORD not in result.stderr + result.stdout
    assert "lab-canary" not in result.stderr + result.stdout
    assert result.stdout == ""
    return str(lines[0])


def only_line(result: Any) -> str:
    """Return the line, having checked that nothing else is printed but what it waited for."""
    line = fails_with_one_line(result)
    said = [each for each in result.stderr.splitlines() if not each.startswith("Waiting for http")]
    assert said == [line]
    return line


# Faults that pass


def test_throttling_is_waited_for(batchreg, environ, front, stack):
    """AWS throttles whole accounts: somebody else's script must not end a deploy."""
    front.faults["*"] = iter([error("Throttling", "Rate exceeded")] * 2)
    result = batchreg(*DEPLOY, stack, environ=environ)
    assert result.returncode == 0, result.stderr
    assert front.names[:3] == ["DescribeStacks"] * 3
    assert "Throttling" not in result.stderr


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(DROP, id="connection-reset"),
        pytest.param(error("InternalFailure", "try again", 500), id="500"),
        pytest.param((502, "text/html", HTML), id="502-html"),
        pytest.param((503, "text/html", XHTML), id="503-xhtml"),
    ],
)
def test_each_call_may_fail_once(batchreg, environ, front, stack, fault):
    """The whole life of a stack over a bad network: every first call fails."""

    class Once(dict[str, Any]):
        def __missing__(self, call: str) -> Iterator[Answer | None]:
            self[call] = iter([fault])
            return self[call]

        def __contains__(self, call: object) -> bool:
            return call != "*"

    front.faults = Once()
    assert batchreg(*DEPLOY, stack, environ=environ).returncode == 0
    assert batchreg("status", "--stack-name", stack, environ=environ).returncode == 0
    result = batchreg("destroy", "--yes", "--stack-name", stack, environ=environ)
    assert result.returncode == 0, result.stderr
    assert {
        "CreateChangeSet",
        "ExecuteChangeSet",
        "DescribeStackEvents",
        "DeleteStack",
        "listjobs",
        "DescribeSecret",
    } <= set(front.names)


@pytest.mark.parametrize(
    "call",
    [
        "DescribeStacks",
        "CreateChangeSet",
        "DescribeChangeSet",
        "ExecuteChangeSet",
        "DescribeStackEvents",
    ],
)
def test_a_call_whose_answer_is_lost_is_made_again(batchreg, environ, front, stack, call):
    """What has already happened is not taken for somebody else's work."""
    front.lost = {call}
    result = batchreg(*DEPLOY, stack, environ=environ)
    assert result.returncode == 0, result.stderr
    assert front.lost == set()


def test_a_delete_whose_answer_is_lost_is_made_again(batchreg, environ, front, stack):
    """The second request finds the stack on its way, or gone."""
    assert batchreg(*DEPLOY, stack, environ=environ).returncode == 0
    front.lost = {"DeleteStack"}
    result = batchreg("destroy", "--yes", "--stack-name", stack, environ=environ)
    assert (result.returncode, f"{stack} is gone." in result.stderr) == (0, True), result.stderr


def test_a_network_that_is_away_for_a_while_does_not_end_the_following(
    batchreg, environ, front, stack
):
    """The stack goes on in the meantime; only a long absence ends the command."""
    front.faults["DescribeStackEvents"] = iter([DROP] * 4)
    result = batchreg(*DEPLOY, stack, environ={**environ, "AWS_MAX_ATTEMPTS": "1"})
    assert result.returncode == 0, result.stderr
    assert f"{stack} is up." in result.stderr


def test_aws_max_attempts_counts(batchreg, environ, front, stack):
    """The variable works as in other tools."""
    front.faults["*"] = itertools.repeat(DROP)
    only_line(batchreg(*DEPLOY, stack, environ={**environ, "AWS_MAX_ATTEMPTS": "2"}))
    assert front.names == ["DescribeStacks"] * 2


# Faults that stay


@pytest.mark.parametrize(
    "call",
    [
        "DescribeStacks",
        "CreateChangeSet",
        "DescribeChangeSet",
        "ExecuteChangeSet",
        "DescribeStackEvents",
    ],
)
def test_a_missing_permission_is_named_with_the_next_step(
    batchreg, environ, front, stack, call, aws
):
    """AWS's own message names the action; nothing half-made stays behind."""
    action = f"cloudformation:{call}"
    front.faults[call] = itertools.repeat(error("AccessDenied", denied(action), 403))
    line = fails_with_one_line(batchreg(*DEPLOY, stack, environ=environ))
    assert line.startswith(
        f"batchreg: AWS rejected {call}: {denied(action)}. Ask for this permission, "
        "or use another --profile."
    )
    stacks = aws.client("cloudformation").describe_stacks()["Stacks"]
    left = [each["StackStatus"] for each in stacks if each["StackName"] == stack]
    if call == "DescribeStackEvents":
        assert f"The operation on {stack} continues; deploy again to watch it." in line
    else:
        assert left in ([], ["DELETE_COMPLETE"])


@pytest.mark.parametrize(
    ("command", "call", "action"),
    [
        ("destroy", "listjobs", "batch:ListJobs"),
        ("status", "listjobs", "batch:ListJobs"),
        ("status", "describejobqueues", "batch:DescribeJobQueues"),
    ],
)
def test_a_missing_permission_of_another_service_is_named(
    batchreg, environ, front, stack, command, call, action
):
    """The calls of Batch answer in another format."""
    assert batchreg(*DEPLOY, stack, environ=environ).returncode == 0
    front.faults[call] = itertools.repeat(json_error("AccessDeniedException", denied(action)))
    yes = ["--yes"] if command == "destroy" else []
    line = only_line(batchreg(command, *yes, "--stack-name", stack, environ=environ))
    assert action in line
    assert "Ask for this permission" in line


@pytest.mark.parametrize(
    ("code", "message", "step"),
    [
        (
            "ExpiredToken",
            "The security token included in the request is expired",
            "Log in to AWS again.",
        ),
        (
            "RequestExpired",
            "Request has expired",
            "Log in to AWS again, or set this machine's clock.",
        ),
        (
            "InvalidClientTokenId",
            "The security token included in the request is invalid",
            "Check the AWS credentials, or log in to AWS again.",
        ),
        (
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match",
            "Check the AWS secret key and this machine's clock.",
        ),
        ("Throttling", "Rate exceeded", "Wait a minute, then try again."),
    ],
)
def test_refused_credentials_say_what_to_do(batchreg, environ, front, stack, code, message, step):
    """The message of AWS's, and what helps."""
    front.faults["*"] = itertools.repeat(error(code, message, 403))
    line = only_line(batchreg(*DEPLOY, stack, environ={**environ, "AWS_MAX_ATTEMPTS": "1"}))
    assert line == f"batchreg: AWS rejected DescribeStacks: {message}. {step}"


def test_credentials_that_expire_on_the_way_say_that_the_stack_goes_on(
    batchreg, environ, front, stack
):
    """Nobody must think that the deploy has stopped."""
    front.faults["DescribeStackEvents"] = itertools.repeat(error("ExpiredToken", "It has expired"))
    line = fails_with_one_line(batchreg(*DEPLOY, stack, environ=environ))
    assert line == (
        "batchreg: AWS rejected DescribeStackEvents: It has expired. Log in to "
        f"AWS again. The operation on {stack} continues; deploy again to watch it."
    )
    del front.faults["DescribeStackEvents"]
    assert batchreg(*DEPLOY, stack, environ=environ).returncode == 0


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, HTML), (200, XHTML), (200, ""), (302, XHTML), (403, HTML), (407, XHTML)],
)
def test_a_proxys_page_is_not_taken_for_aws(batchreg, environ, front, stack, status, body):
    """A hotel's Wi-Fi answers everything, some of it in well-formed XML."""
    front.faults["*"] = itertools.repeat((status, "text/html; charset=utf-8", body))
    assert only_line(batchreg(*DEPLOY, stack, environ=environ)) == (
        "batchreg: The answer is not from AWS. Check the proxy and --endpoint-url."
    )


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "text/xml"])
def test_nonsense_is_not_taken_for_aws(batchreg, environ, front, stack, kind):
    """--endpoint-url may name any server."""
    front.faults["*"] = itertools.repeat((200, kind, '{"hello": "world"}'))
    assert "not from AWS" in only_line(batchreg(*DEPLOY, stack, environ=environ))


def test_a_page_in_the_middle_is_not_taken_for_aws(batchreg, environ, front, stack):
    """The network's login may expire at any moment; Batch's answers are JSON."""
    assert batchreg(*DEPLOY, stack, environ=environ).returncode == 0
    front.faults["listjobs"] = itertools.repeat((200, "text/html", HTML))
    line = only_line(batchreg("status", "--stack-name", stack, environ=environ))
    assert "not from AWS" in line


@pytest.mark.parametrize("body", [HTML, "Bad gateway"], ids=["html", "text"])
def test_a_gateway_without_aws_behind_it_is_named(batchreg, environ, front, stack, body):
    """After the retries, the status of the gateway."""
    front.faults["*"] = itertools.repeat((502, "text/html", body))
    line = only_line(batchreg(*DEPLOY, stack, environ=environ))
    assert line.startswith("batchreg: No answer from AWS, but 502 Bad Gateway. Check the proxy")
    assert len(front.names) == batchreg_aws.ATTEMPTS


def test_a_refusal_that_quotes_the_request_is_told_without_the_login(
    batchreg, environ, front, stack
):
    """AWS's validation quotes what it was sent."""
    message = (
        f"1 validation error detected: Value '[lab-canary, {PASSWORD}]' at 'parameters' "
        "failed to satisfy constraint"
    )
    front.faults["CreateChangeSet"] = itertools.repeat(error("ValidationError", message))
    assert only_line(batchreg(*DEPLOY, stack, environ={**environ, "BATCHREG_NO_CHECK": "1"})) == (
        "batchreg: AWS rejected CreateChangeSet: 1 validation error detected: Value '[****, ****]' "
        "at 'parameters' failed to satisfy constraint."
    )


# No connection


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "http://127.0.0.1:1",
            "No answer from http://127.0.0.1:1/ (region us-east-1, profile default). Check",
        ),
        (
            "http://no-such-host.invalid",
            "No answer from http://no-such-host.invalid/ (region us-east-1, profile ",
        ),
        ("not a url", "Invalid endpoint: not a url. Check --endpoint-url"),
        ("localhost:4566", "Invalid endpoint: localhost:4566. Check --endpoint-url"),
        ("http://localhost:99999", "Port out of range 0-65535. Check --endpoint-url"),
        ("http://", "Invalid endpoint: http://. Check --endpoint-url"),
    ],
)
def test_an_endpoint_that_is_none_is_one_line(batchreg, environ, stack, url, message):
    """The line names the address, wherever it comes from."""
    line = only_line(batchreg(*DEPLOY, stack, environ={**environ, "AWS_ENDPOINT_URL": url}))
    assert line.startswith(f"batchreg: {message}")


def test_a_server_without_tls_is_one_line(batchreg, environ, front, stack):
    """A wrong scheme, or a proxy that breaks TLS: certificates are the likeliest cause."""
    url = front.url.replace("http:", "https:")
    line = only_line(
        batchreg(
            *DEPLOY, stack, environ={**environ, "AWS_ENDPOINT_URL": url, "AWS_MAX_ATTEMPTS": "1"}
        )
    )
    assert line.startswith(f"batchreg: No secure connection to {url}/: ")
    assert "AWS_CA_BUNDLE" in line


def test_a_proxy_that_is_away_is_named_without_its_password(batchreg, environ, stack):
    """HTTPS_PROXY often carries a login."""
    line = only_line(
        batchreg(
            *DEPLOY,
            stack,
            environ={
                **environ,
                "AWS_ENDPOINT_URL": "https://cloudformation.us-east-1.amazonaws.com",
                "HTTPS_PROXY": "http://ada:secret@127.0.0.1:1",
                "AWS_MAX_ATTEMPTS": "1",
            },
        )
    )
    assert line == (
        "batchreg: No answer from the proxy http://***:***@127.0.0.1:1. Check HTTPS_PROXY."
    )


def test_an_endpoint_that_hangs_ends_in_one_line(environ):
    """botocore waits a minute for each attempt by itself; here all of them end within two."""
    session = batchreg_aws.Session(profile=None, region="us-east-1", endpoint="http://127.0.0.1:1")
    config = session.client("cloudformation").meta.config
    attempts = config.retries["total_max_attempts"]
    assert attempts * (config.connect_timeout + config.read_timeout) <= 120
    with socket.create_server(("127.0.0.1", 0)) as hangs:
        url = f"http://127.0.0.1:{hangs.getsockname()[1]}"
        client = boto3.client(
            "cloudformation",
            region_name="us-east-1",
            endpoint_url=url,
            aws_access_key_id="x",
            aws_secret_access_key="x",
            config=Config(read_timeout=0.1, retries={"total_max_attempts": 1}),
        )
        with pytest.raises(BotoCoreError) as timeout:
            client.describe_stacks()
    assert batchreg_aws.explain(timeout.value) == (
        f"No answer from {url}/. Check the network, the proxy, --region and --endpoint-url."
    )


# The user's AWS configuration


@pytest.fixture
def configured(batchreg, environ, tmp_path) -> Callable[..., str]:
    """Run with a configuration file and without the usual variables; return the one line."""

    def run(text: str | bytes = "", *arguments: str, **variables: str | None) -> str:
        path = tmp_path / "aws-config"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        merged = {
            **environ,
            "AWS_CONFIG_FILE": str(path),
            "AWS_ACCESS_KEY_ID": None,
            "AWS_SECRET_ACCESS_KEY": None,
            **variables,
        }
        clean = {key: value for key, value in merged.items() if value is not None}
        return only_line(batchreg(*DEPLOY, "x", *arguments, environ=clean)).removeprefix(
            "batchreg: "
        )

    return run


def test_no_region_is_one_line(configured):
    """The flag and the variable that help."""
    assert configured(AWS_REGION=None, AWS_DEFAULT_REGION=None) == (
        "No AWS region is set. Use --region, or set AWS_REGION."
    )


def test_no_credentials_is_one_line(configured):
    """As on a machine where nobody has logged in yet."""
    assert configured() == "No AWS credentials. Log in, set AWS_PROFILE, or use --profile."


def test_half_of_the_credentials_is_named(configured):
    """A variable that was not exported."""
    assert configured(AWS_ACCESS_KEY_ID="x") == (
        "Incomplete AWS credentials: AWS_SECRET_ACCESS_KEY is not set."
    )


@pytest.mark.parametrize(
    ("arguments", "variables"), [(["--profile", "nowhere"], {}), ([], {"AWS_PROFILE": "nowhere"})]
)
def test_an_unknown_profile_is_named(configured, arguments, variables):
    """With the command that lists the others."""
    assert configured("[default]\n", *arguments, **variables) == (
        "There is no AWS profile nowhere. `aws configure list-profiles` lists them."
    )


@pytest.mark.parametrize("text", ["[default\nregion = x\n", "region = x\n", b"\xff\xfe[default]"])
def test_a_broken_configuration_file_is_named(configured, tmp_path, text):
    """The path, since nobody remembers where AWS keeps it."""
    assert configured(text) == (
        f"{tmp_path}/aws-config is not an AWS configuration file. Fix or move it."
    )


@pytest.mark.parametrize("region", ["us east 1", "eu-central-1/../x", "\u00e9"])
def test_a_region_that_cannot_be_one_is_named(configured, region):
    """A slip in the shell's quotes."""
    assert configured(AWS_REGION=region) == (
        f"{region!r} is not an AWS region. Use --region, or set AWS_REGION."
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[default]\ncredential_process = /bin/false\n", "Log in to AWS again."),
        (
            "[default]\nsso_session = work\nsso_account_id = 111122223333\nsso_role_name = r\n"
            "[sso-session work]\nsso_start_url = https://work.awsapps.com/start\n"
            "sso_region = us-east-1\n",
            "Log in to AWS again.",
        ),
        (
            "[default]\nrole_arn = arn:aws:iam::111122223333:role/r\nsource_profile = gone\n",
            'The source_profile "gone" referenced in the profile "default" does not exist.',
        ),
        ("[default]\nmax_attempts = many\n", "Check --endpoint-url and the AWS_* variables."),
    ],
)
def test_credentials_that_cannot_be_had_are_one_line(configured, text, message):
    """Each way of logging in has its own way of failing."""
    assert message in configured(text)


def test_every_line_is_a_sentence_without_markup():
    """Messages of AWS's come with line breaks, markup and stray full stops."""
    refusal = boto3.client("sts", region_name="x-y-1").exceptions.ClientError(
        {"Error": {"Code": "X", "Message": "<b>Two\n lines</b>.. "}}, "CreateChangeSet"
    )
    assert batchreg_aws.explain(refusal) == "AWS rejected CreateChangeSet: Two lines."
    assert batchreg_aws.explain(ValueError("a bug of ours")) is None
    assert all(re.fullmatch("[A-Z].*[.]", step) for step in batchreg_aws.NEXT_STEPS.values())
