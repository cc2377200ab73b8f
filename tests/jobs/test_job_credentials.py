"""Job definitions that `submit` registers, and the credentials that they carry."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from submitting import (
    BATCHREG,
    IMAGE,
    PASSWORD,
    USER,
    definition_of,
    deploy,
    detached,
    outputs,
    run,
)

from batchreg.render import template
from batchreg.render.settings import Settings
from batchreg.render.text import to_yaml


def test_definition_has_a_new_revision_only_for_a_change(aws):
    """The same again is the same revision, and so is what there was before a change."""

    def revision(*options: str, tag: str = "1") -> str:
        job = detached(aws, *options, f"ghcr.io/lab/revised:{tag}", "--", "any", "command")
        return job["jobDefinition"].rsplit("/", 1)[-1]

    assert [revision(), revision(), revision(tag="2"), revision("--memory", "1G"), revision()] == [
        f"ghcr-io-lab-revised:{number}" for number in (1, 1, 2, 3, 1)
    ]


def test_definition_is_tagged_as_ours(aws):
    """Else it could not be told from one that somebody else has registered."""
    batch = aws.client("batch")
    job = detached(aws, "ghcr.io/lab/tagged:1")
    assert re.fullmatch("[0-9a-f]{16}", definition_of(aws, job)["tags"]["batchreg"])
    batch.register_job_definition(
        jobDefinitionName="ghcr-io-lab-tagged",
        type="container",
        containerProperties={"image": "ghcr.io/lab/tagged:1"},
    )
    assert detached(aws, "ghcr.io/lab/tagged:1")["jobDefinition"] == job["jobDefinition"]


def test_instance_login_leaves_no_trace_in_the_definition(aws):
    """The default: the compute environment has it."""
    container = definition_of(aws, detached(aws, IMAGE))["containerProperties"]
    assert not {"repositoryCredentials", "executionRoleArn"} & container.keys()


def test_job_login_is_the_stacks_secret_read_by_its_execution_role(aws):
    """As Secrets Manager and IAM know them."""
    made = outputs(aws, "plain")
    job = detached(aws, "--auth", "job", IMAGE, BATCHREG_STACK_NAME="plain")
    container = definition_of(aws, job)["containerProperties"]
    assert container["repositoryCredentials"] == {"credentialsParameter": made["RegistrySecretArn"]}
    assert container["executionRoleArn"] == made["JobExecutionRoleArn"]
    assert definition_of(aws, job)["platformCapabilities"] == ["EC2"]


def test_job_login_has_what_the_execution_role_hands_to_the_registry(aws):
    """repositoryCredentials want `username` and `password` in the secret's JSON."""
    text = aws.client("secretsmanager").get_secret_value(
        SecretId=outputs(aws, "plain")["RegistrySecretArn"]
    )["SecretString"]
    assert {"username": USER, "password": PASSWORD}.items() <= json.loads(text).items()


def test_fargate_implies_the_job_login_and_its_own_queue(aws):
    """There is no instance to carry one."""
    made = outputs(aws, "lab")
    job = detached(aws, "--fargate", "--vcpus", "0.25", "--memory", "512", IMAGE)
    body = definition_of(aws, job)
    assert job["jobQueue"] == made["FargateJobQueueArn"]
    assert body["platformCapabilities"] == ["FARGATE"]
    assert body["containerProperties"]["repositoryCredentials"] == {
        "credentialsParameter": made["RegistrySecretArn"]
    }
    assert body["containerProperties"]["executionRoleArn"] == made["JobExecutionRoleArn"]


def test_printed_definition_is_the_registered_one(aws):
    """For who registers it elsewhere; the command, which submit sends with the job, is in it."""
    done = run(aws, "job-definition", "--auth", "job", IMAGE, "--", "align")
    printed = json.loads(done.out)
    assert printed["containerProperties"].pop("command") == ["align"]
    registered = definition_of(aws, detached(aws, "--auth", "job", IMAGE))
    assert printed.items() <= registered.items()


def test_printed_definition_needs_no_aws():
    """Unless it carries a login."""
    done = subprocess.run(
        [BATCHREG, "job-definition", IMAGE],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"]},
        timeout=60,
        cwd="/",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["containerProperties"]["image"] == IMAGE


@pytest.mark.parametrize(
    ("image", "secret"),
    [
        ("quay.io/lab/x:1", "https://quay.io/"),
        ("lab/x", "docker.io"),
        ("docker.io/library/x", "docker.io"),
    ],
)
def test_secret_of_the_images_registry_is_chosen(aws, own, image, secret):
    """Among several, by the registry that each says it is for."""
    job = detached(aws, "--auth", "job", image, BATCHREG_STACK_NAME="own")
    assert definition_of(aws, job)["containerProperties"]["repositoryCredentials"] == {
        "credentialsParameter": own[secret]
    }


def test_own_secrets_that_do_not_cover_the_registry_are_named(aws, own):
    """By their registries, and by nothing else that stands in them."""
    done = run(aws, "submit", "--detach", IMAGE, BATCHREG_STACK_NAME="own")
    assert done.status == 0
    assert done.err.splitlines()[0] == (
        "No credentials for ghcr.io in this stack; they cover quay.io, Docker Hub."
    )


def test_secret_of_each_of_the_stacks_registries_is_found(aws):
    """A stack may make several secrets, each with its number."""
    body = to_yaml(template.build(Settings(slots=(1, 3))))
    values = {
        "Username": USER,
        "Password": PASSWORD,
        "Username3": USER,
        "Password3": PASSWORD,
        "RegistryUrl": "ghcr.io",
        "RegistryUrl3": "https://quay.io",
        "SubnetIDs": ",".join(aws.subnet_ids),
        "SecurityGroupIDs": ",".join(aws.security_group_ids),
    }
    client = aws.client("cloudformation")
    client.create_stack(
        StackName="several",
        TemplateBody=body,
        Capabilities=["CAPABILITY_IAM"],
        Parameters=[
            {"ParameterKey": key, "ParameterValue": value} for key, value in values.items()
        ],
    )
    client.get_waiter("stack_create_complete").wait(StackName="several", WaiterConfig={"Delay": 1})
    job = detached(aws, "--auth", "job", "quay.io/lab/x:1", BATCHREG_STACK_NAME="several")
    assert definition_of(aws, job)["containerProperties"]["repositoryCredentials"] == {
        "credentialsParameter": outputs(aws, "several")["RegistrySecret3Arn"]
    }


class Denied(BaseHTTPRequestHandler):
    """Secrets Manager for a user who may not read secrets."""

    def do_POST(self) -> None:
        body = b'{"__type": "AccessDeniedException", "Message": "not authorized"}'
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(400)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def denied() -> Iterator[dict[str, str]]:
    """The environment of a user who may not read secrets."""
    with HTTPServer(("127.0.0.1", 0), Denied) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield {"AWS_ENDPOINT_URL_SECRETS_MANAGER": f"http://127.0.0.1:{server.server_port}"}
        server.shutdown()


def test_user_who_may_not_read_secrets_can_submit(aws, own, denied):
    """The instances have the logins; that no warning is possible is no reason to refuse."""
    done = run(aws, "submit", "--detach", IMAGE, BATCHREG_STACK_NAME="own", **denied)
    assert (done.status, len(done.err.splitlines())) == (0, 1)


def test_user_who_may_not_read_secrets_cannot_have_one_chosen(aws, own, denied):
    """A wrong guess would fail minutes later, at the pull."""
    done = run(aws, "submit", "--auth", "job", IMAGE, BATCHREG_STACK_NAME="own", **denied)
    assert (done.status, done.out) == (1, "")
    assert done.line == (
        "batchreg: It is unknown which secret is for ghcr.io. Ask for the permission "
        "secretsmanager:GetSecretValue on the stack's secrets."
    )


def test_only_secret_is_taken_unread(aws, own, denied):
    """It is the one that can be meant."""
    deploy(aws, "single", "--secret-arn", own["https://quay.io/"])
    job = detached(aws, "--auth", "job", IMAGE, BATCHREG_STACK_NAME="single", **denied)
    assert definition_of(aws, job)["containerProperties"]["repositoryCredentials"] == {
        "credentialsParameter": own["https://quay.io/"]
    }


def test_jobs_use_the_stacks_job_role_unless_another_is_given(aws):
    """A stack with --job-policy-arn has one; job-definition knows it of a stack that is named."""
    policy = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
    login = ("--registry-url", "ghcr.io", "--username", USER)
    deploy(aws, "roles", *login, "--job-policy-arn", policy)
    role, mine = outputs(aws, "roles")["JobRoleArn"], "arn:aws:iam::123456789012:role/mine"
    place = {"BATCHREG_STACK_NAME": "roles"}
    for options, expected in (((), role), (("--job-role-arn", mine), mine)):
        job = detached(aws, *options, IMAGE, **place)
        assert job["container"]["jobRoleArn"] == expected
    nowhere = {"BATCHREG_STACK_NAME": "", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    with_aws = run(aws, "job-definition", IMAGE, **place)
    without = run(aws, "job-definition", IMAGE, **nowhere)
    found = [json.loads(one.out)["containerProperties"] for one in (with_aws, without)]
    assert found[0]["jobRoleArn"] == role
    assert "jobRoleArn" not in found[1]
