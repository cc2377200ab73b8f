"""Jobs of a stack for which ECR pulls: the names of their images, and what they carry."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest
from checks import IMAGES
from checks import PASSWORD as TOKEN
from registry_server import RegistryServer
from submitting import (
    BATCHREG,
    IMAGE,
    PASSWORD,
    USER,
    definition_of,
    detached,
    environ,
    outputs,
    run,
)

from batchreg.render import template
from batchreg.render.settings import Settings
from batchreg.render.text import to_json

ECR = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
CACHED = f"{ECR}/genomics/ghcr/lab/align:3"
PULLED = f"Pulled through ECR: {CACHED}"
STACK = {"BATCHREG_STACK_NAME": "cached"}


@pytest.fixture(scope="module")
def upstream() -> Iterator[RegistryServer]:
    """A private registry, for which a stack has credentials."""
    rights = {"ada": {"lab/align"}}
    with RegistryServer(users={"ada": TOKEN}, rights=rights, images=IMAGES) as server:
        yield server


@pytest.fixture(scope="module", autouse=True)
def stack(aws, upstream: RegistryServer) -> None:
    """A stack with two registries that are cached, and one that is not."""
    body = json.loads(to_json(template.build(Settings(slots=(1, 2, 3), fargate=True))))
    for n, prefix in {"": "genomics/ghcr", "2": "genomics/lab"}.items():
        body["Outputs"][f"CacheRepositoryPrefix{n}"] = {"Value": prefix}
    values = {
        "RegistryUrl": "ghcr.io",
        "RegistryUrl2": upstream.host,
        "RegistryUrl3": "quay.io",
        "SubnetIDs": ",".join(aws.subnet_ids),
        "SecurityGroupIDs": ",".join(aws.security_group_ids),
    }
    for n in ("", "2", "3"):
        values |= {f"Username{n}": USER, f"Password{n}": PASSWORD}
    client = aws.client("cloudformation")
    client.create_stack(
        StackName="cached",
        TemplateBody=json.dumps(body),
        Capabilities=["CAPABILITY_IAM"],
        Parameters=[
            {"ParameterKey": key, "ParameterValue": value} for key, value in values.items()
        ],
    )
    client.get_waiter("stack_create_complete").wait(StackName="cached", WaiterConfig={"Delay": 1})
    secret = {"username": "ada", "accessToken": TOKEN}
    for n in ("", "2"):
        aws.client("secretsmanager").put_secret_value(
            SecretId=outputs(aws, "cached")[f"RegistrySecret{n}Arn"],
            SecretString=json.dumps(secret),
        )


def test_image_prints_a_name_a_line(aws):
    """For scripts: stdout has the names alone, and stderr says which stay and why."""
    done = run(aws, "image", IMAGE, "quay.io/lab/x", f"{ECR}/mine", **STACK)
    assert done.status == 0
    assert done.out.splitlines() == [CACHED, "quay.io/lab/x", f"{ECR}/mine"]
    assert done.err.splitlines()[1] == f"{ECR}/mine stays as it is. It is in ECR already."
    assert done.err.startswith("quay.io/lab/x stays as it is. The cache is for ghcr.io, 127.0.0.1:")


def test_image_reads_names_from_stdin(aws):
    """As a list of a workflow's images comes from another program."""
    done = subprocess.run(
        [BATCHREG, "image", "-"],
        env=environ(aws, **STACK),
        input=f"{IMAGE}\n\nghcr.io/lab/sort\n",
        text=True,
        capture_output=True,
        timeout=60,
    )
    assert done.stdout.splitlines() == [CACHED, f"{ECR}/genomics/ghcr/lab/sort"]


def test_image_prints_json(aws):
    """The same as fields."""
    done = run(aws, "image", "--json", IMAGE, "quay.io/x", **STACK)
    cached, kept, result = map(json.loads, done.out.splitlines())
    assert cached == {"type": "image", "image": IMAGE, "name": CACHED, "cached": True, "reason": ""}
    assert (kept["name"], kept["cached"], result) == (
        "quay.io/x",
        False,
        {"type": "result", "cached": 1},
    )
    assert done.err == ""


def test_names_stay_where_a_stack_has_no_cache(aws):
    """The output can be used either way."""
    done = run(aws, "image", IMAGE, BATCHREG_STACK_NAME="plain")
    assert (done.status, done.out) == (0, f"{IMAGE}\n")
    assert done.line == f"{IMAGE} stays as it is. plain has no pull-through cache."


def test_what_is_no_image_is_refused_before_aws_is_asked(aws):
    """Nothing is printed for the others."""
    done = run(aws, "image", IMAGE, "ghcr.io/Lab/x", AWS_ENDPOINT_URL="http://127.0.0.1:9")
    assert (done.status, done.out) == (1, "")
    assert done.line.startswith("batchreg: 'ghcr.io/Lab/x' is not the name of an image.")


def test_job_pulls_through_ecr_without_credentials(aws):
    """The definition keeps the image's own name, of which a cached one is a revision."""
    done = run(aws, "submit", "--detach", IMAGE, **STACK)
    assert done.err.splitlines()[0] == PULLED
    (job,) = aws.client("batch").describe_jobs(jobs=[done.out.strip()])["jobs"]
    body = definition_of(aws, job)
    assert body["containerProperties"]["image"] == CACHED
    assert body["jobDefinitionName"] == "ghcr-io-lab-align"
    assert not {"repositoryCredentials", "executionRoleArn"} & body["containerProperties"].keys()


def test_cached_name_is_used_as_it_is(aws):
    """Who has asked for it before gets the same job."""
    assert detached(aws, CACHED, **STACK)["container"]["image"] == CACHED


def test_credentials_in_the_job_are_left_out_for_a_cached_image(aws):
    """The registry would never see them."""
    done = run(aws, "submit", "--detach", "--auth", "job", IMAGE, **STACK)
    assert done.err.splitlines()[:2] == [
        PULLED,
        "ECR has the credentials for this image: --auth job adds none to the job.",
    ]
    (job,) = aws.client("batch").describe_jobs(jobs=[done.out.strip()])["jobs"]
    assert "repositoryCredentials" not in definition_of(aws, job)["containerProperties"]


def test_execution_role_pulls_from_ecr_on_fargate(aws):
    """There is no instance whose role could."""
    job = detached(aws, "--fargate", IMAGE, **STACK)
    container = definition_of(aws, job)["containerProperties"]
    assert container["image"] == CACHED
    assert container["executionRoleArn"] == outputs(aws, "cached")["JobExecutionRoleArn"]
    assert "repositoryCredentials" not in container


def test_image_of_the_other_registry_has_its_credentials(aws):
    """Both kinds are in one stack."""
    job = detached(aws, "--auth", "job", "quay.io/lab/x:1", **STACK)
    container = definition_of(aws, job)["containerProperties"]
    assert container["image"] == "quay.io/lab/x:1"
    assert container["repositoryCredentials"] == {
        "credentialsParameter": outputs(aws, "cached")["RegistrySecret3Arn"]
    }


def test_image_whose_cached_name_is_too_long_is_told(aws):
    """The instances have no credentials for its registry either."""
    image = f"ghcr.io/{'a' * 200}"
    done = run(aws, "submit", "--detach", image, **STACK)
    assert done.err.splitlines()[0].startswith(f"{image} cannot be pulled through ECR. With ECR's")
    assert len(done.err.splitlines()) == 2


def test_printed_definition_has_the_cached_name_of_a_named_stack(aws):
    """A tool that registers it knows no cache."""
    done = run(aws, "job-definition", IMAGE, **STACK)
    assert json.loads(done.out)["containerProperties"]["image"] == CACHED
    assert done.line == PULLED


def test_check_asks_the_registry_as_ecr_will(aws, upstream: RegistryServer):
    """With the credentials of ECR's secret, for the cached name too."""
    image, name = f"{upstream.host}/lab/align:3", f"{ECR}/genomics/lab/lab/align:3"
    done = run(aws, "check", image, **STACK)
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(f"ok  {image}  ")
    assert done.out.endswith(f"with these credentials, pulled through ECR as {name}\n")
    verdict, _ = map(json.loads, run(aws, "check", "--json", name, **STACK).out.splitlines())
    assert (verdict["image"], verdict["cached"], verdict["ok"]) == (image, name, True)


def test_check_names_the_cached_image_that_cannot_be_pulled(aws, upstream: RegistryServer):
    """Its job would fail with that name."""
    done = run(aws, "check", f"{upstream.host}/lab/align:9", **STACK)
    assert done.status == 1
    assert f"lab/align:9 (in ECR: {ECR}/genomics/lab/lab/align:9): " in done.line


@pytest.mark.parametrize("name", ["cached", "plain"])
def test_engine_prints_settings_for_the_stack(aws, name):
    """The stack's own queue; comments say what ECR pulls."""
    done = run(aws, "engine", "nextflow", "--bucket", "lab", BATCHREG_STACK_NAME=name)
    assert (done.status, done.err) == (0, "")
    assert f"queue    = '{outputs(aws, name)['JobQueueArn']}'" in done.out
    said = " ".join(done.out.split()).replace(" // ", " ")
    told = f"ECR pulls images of ghcr.io as {ECR}/genomics/ghcr/" in said
    assert told is (name == "cached")


def test_engine_notes_what_its_form_cannot_say(aws, tmp_path):
    """JSON has no comments, and a file needs no place on stdout."""
    path = tmp_path / "config.json"
    done = run(aws, "engine", "metaflow", "--output", str(path), BATCHREG_STACK_NAME="plain")
    assert (done.status, done.out) == (0, "")
    assert (
        json.loads(path.read_text())["METAFLOW_BATCH_JOB_QUEUE"]
        == outputs(aws, "plain")["JobQueueArn"]
    )
    assert done.err.splitlines()[1] == "Replace BUCKET with an S3 bucket that the jobs can use."
