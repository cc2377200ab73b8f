"""Job definitions: what AWS Batch would refuse is refused before."""

from __future__ import annotations

import re
from typing import Any

import botocore.session
import pytest
from botocore.stub import Stubber
from botocore.validate import ParamValidator
from hypothesis import example, given
from hypothesis import strategies as st

from batchreg.errors import BatchregError
from batchreg.jobs import definitions
from batchreg.jobs.definitions import Spec, definition
from batchreg.registry import images as image

SECRET = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:registry-AbCdEf"
ROLE = "arn:aws:iam::111122223333:role/JobExecutionRole"
DIGEST = "sha256:" + "0123456789abcdef" * 4


def client(service: str) -> Any:
    return botocore.session.get_session().create_client(
        service, region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="x"
    )


def spec(name: str = "ghcr.io/lab/align:3", **options: Any) -> Spec:
    return Spec(image=image.parse(name), **options)


def on_fargate(**options: Any) -> Spec:
    return spec(fargate=True, execution_role=ROLE, **options)


def documented_pairs() -> set[tuple[float, int]]:
    """Return Fargate's (vCPUs, MiB), read from the documentation that botocore ships."""
    text = SERVICE.shape_for("ResourceRequirement").members["value"].documentation
    _, _, text = re.sub("<[^>]*>", "", text).partition("The supported values are")
    pairs = set()
    for vcpus, sizes in re.findall(r"value = ([0-9.]+) *MEMORY *= *([0-9, or]+)", text):
        pairs |= {(float(vcpus), int(size)) for size in re.findall("[0-9]+", sizes)}
    return pairs


SERVICE = botocore.session.get_session().get_service_model("batch")
FARGATE = documented_pairs()


def refusals(body: dict[str, Any]) -> list[str]:
    """Return what AWS Batch has against a job definition, by its documentation.

    Source: docs.aws.amazon.com/batch/latest/APIReference/API_ContainerProperties.html and the
    pages that it refers to.
    """
    shape = SERVICE.operation_model("RegisterJobDefinition").input_shape
    report = ParamValidator().validate(body, shape)
    container = body["containerProperties"]
    needs = {each["type"]: each["value"] for each in container["resourceRequirements"]}
    fargate = body["platformCapabilities"] == ["FARGATE"]
    resources = (float(needs["VCPU"]), int(needs["MEMORY"]))
    rules = {
        report.generate_report(): not report.has_errors(),
        "name": re.fullmatch("[A-Za-z0-9_-]{1,128}", body["jobDefinitionName"]),
        "image": len(container["image"]) <= 255,
        "deprecated": not {"vcpus", "memory"} & container.keys(),
        "environment": not any(
            each["name"].startswith("AWS_BATCH") for each in container.get("environment", [])
        ),
        "attempts": 1 <= body["retryStrategy"]["attempts"] <= 10,
        "timeout": body.get("timeout", {}).get("attemptDurationSeconds", 60) >= 60,
        "resources": resources in FARGATE
        if fargate
        else (resources[0] >= 1 and resources[0] % 1 == 0 and resources[1] >= 4),
        "gpus": not fargate or "GPU" not in needs,
        "execution role": not fargate or "executionRoleArn" in container,
        "role for the secret": "executionRoleArn" in container
        or "repositoryCredentials" not in container,
        "network": fargate or "networkConfiguration" not in container,
        "privileged": not fargate or not {"privileged", "ulimits"} & container.keys(),
    }
    return [name for name, kept in rules.items() if not kept]


full = {
    "environment": {"A": "1", "B": ""},
    "job_role": ROLE,
    "execution_role": ROLE,
    "secret": SECRET,
    "retries": 10,
    "timeout": 60,
}
DEFINITIONS = {
    "least": definition(spec()),
    "ec2": definition(spec(vcpus=64, memory=4, gpus=8, **full), ["align", "--all"]),
    "fargate": definition(spec(fargate=True, **full), ["align"]),
    "hub": definition(spec("library/alpine")),
    "digest": definition(spec(f"registry.example.com:5050/a.b/c__d-{'e' * 140}@{DIGEST}")),
}


@pytest.mark.parametrize("body", DEFINITIONS.values(), ids=DEFINITIONS)
def test_definition_is_one_that_batch_takes(body):
    """botocore's own validator, and the rules that it does not know."""
    assert refusals(body) == []


@pytest.mark.parametrize(
    "change",
    [
        {"platformCapabilities": ["FARGATE"]},
        {"jobDefinitionName": "a.b"},
        {"type": 3},
        {"timeout": {"attemptDurationSeconds": 59}},
        {"retryStrategy": {"attempts": 11}},
    ],
)
def test_judge_would_refuse_something(change):
    """The check above can fail."""
    assert refusals({**DEFINITIONS["least"], **change})


def test_definition_with_a_login_of_its_own_names_the_secret_and_its_reader():
    """The execution role reads the secret; the password itself is nowhere."""
    container = definition(spec(secret=SECRET, execution_role=ROLE))["containerProperties"]
    assert container["repositoryCredentials"] == {"credentialsParameter": SECRET}
    assert container["executionRoleArn"] == ROLE


def test_documentation_has_the_pairs_of_eight_sizes():
    """The next tests compare with these."""
    assert {vcpus for vcpus, _ in FARGATE} == {0.25, 0.5, 1, 2, 4, 8, 16, 32}
    assert len(FARGATE) == 77


def test_fargate_pairs_are_exactly_the_documented_ones():
    """Every pair of vCPUs and memory that Fargate has is taken."""
    assert {
        (vcpus, size) for vcpus, sizes in definitions.FARGATE.items() for size in sizes
    } == FARGATE
    for vcpus, memory in FARGATE:
        assert refusals(definition(on_fargate(vcpus=vcpus, memory=memory))) == []


@given(
    vcpus=st.sampled_from([0.25, 0.3, 0.5, 1, 2, 3, 4, 8, 16, 32, 64]),
    memory=st.integers(1, 300_000),
)
@example(1, 1024)
def test_wrong_pair_is_refused_with_right_ones(vcpus, memory):
    """What is named instead works."""
    if (vcpus, memory) in FARGATE:
        return
    with pytest.raises(BatchregError, match="The nearest are") as refusal:
        on_fargate(vcpus=vcpus, memory=memory)
    named = re.findall("--vcpus ([0-9.]+) --memory ([0-9]+)", str(refusal.value))
    assert len(named) == 3
    assert {(float(cpus), int(size)) for cpus, size in named} <= FARGATE


def test_nearest_pairs_come_first():
    """What differs least stands first."""
    with pytest.raises(BatchregError) as refusal:
        on_fargate(vcpus=1, memory=1024)
    assert str(refusal.value) == (
        "Fargate does not offer 1 vCPUs with 1024 MiB. The nearest are --vcpus 1 --memory 2048, "
        "--vcpus 0.5 --memory 1024, --vcpus 1 --memory 3072."
    )


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            {"vcpus": 1.5},
            "1.5 is not a whole number of vCPUs, which EC2 requires. Use --vcpus 1 or --vcpus 2.",
        ),
        (
            {"vcpus": 0.25},
            "0.25 is not a whole number of vCPUs, which EC2 requires. Use --vcpus 1, or --fargate.",
        ),
        ({"memory": 3}, "A job needs at least 4 MiB. Use more --memory."),
        ({"fargate": True, "gpus": 1}, "Fargate has no GPUs. Leave out --gpus or --fargate."),
        (
            {"environment": {"AWS_BATCH_X": "1"}},
            "AWS Batch reserves AWS_BATCH_X. Choose another name.",
        ),
    ],
)
def test_what_batch_would_refuse_is_refused_before(options, line):
    """Without a request, and with what to do."""
    with pytest.raises(BatchregError) as refusal:
        spec(**options)
    assert str(refusal.value) == line


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ghcr.io/lab/align:3", "ghcr-io-lab-align"),
        ("ghcr.io/lab/align:4", "ghcr-io-lab-align"),
        ("alpine", "docker-io-alpine"),
        ("r.example.com:5050/a.b/c", "r-example-com-5050-a-b-c"),
    ],
)
def test_definition_is_named_after_the_image_without_its_tag(name, expected):
    """The tags of one image are revisions of one definition."""
    assert definition(spec(name))["jobDefinitionName"] == expected


def test_definition_of_ours_is_found_on_a_later_page():
    """AWS lists a hundred revisions a page; a new one for each submit would never end."""
    batch = client("batch")
    body = definition(spec())
    with Stubber(batch) as stub:
        stub.add_response("describe_job_definitions", {"jobDefinitions": []})
        stub.add_response(
            "register_job_definition",
            {"jobDefinitionName": "n", "jobDefinitionArn": "n:7", "revision": 7},
        )
        batch.meta.events.register(
            "provide-client-params.batch.RegisterJobDefinition",
            lambda params, **_: registered.update(params),
        )
        registered: dict[str, Any] = {}
        assert definitions.register(batch, body, "lab") == "n:7"
        ours = {
            "jobDefinitionName": "n",
            "jobDefinitionArn": "n:7",
            "revision": 7,
            "type": "container",
            "tags": registered["tags"],
        }
        foreign = {**ours, "jobDefinitionArn": "n:9", "revision": 9, "tags": {}}
        stub.add_response(
            "describe_job_definitions", {"jobDefinitions": [foreign], "nextToken": "2"}
        )
        stub.add_response("describe_job_definitions", {"jobDefinitions": [ours]})
        assert definitions.register(batch, body, "lab") == "n:7"
        stub.assert_no_pending_responses()


def test_definition_of_another_stack_is_not_shared():
    """It is deregistered with that stack."""
    batch = client("batch")
    with Stubber(batch) as stub:
        registered: list[dict[str, Any]] = []
        batch.meta.events.register(
            "provide-client-params.batch.RegisterJobDefinition",
            lambda params, **_: registered.append(params),
        )
        for stack in ("lab", "genomics"):
            there = [
                {"type": "container", "jobDefinitionName": "n", "jobDefinitionArn": "n:1"}
                | {"revision": 1, "tags": one["tags"]}
                for one in registered
            ]
            stub.add_response("describe_job_definitions", {"jobDefinitions": there})
            made = {"jobDefinitionName": "n", "jobDefinitionArn": "n:1", "revision": 1}
            stub.add_response("register_job_definition", made)
            definitions.register(batch, definition(spec()), stack)
        stub.assert_no_pending_responses()
    assert [one["tags"]["batchreg:stack"] for one in registered] == ["lab", "genomics"]


def test_definitions_of_a_stack_are_deregistered_page_by_page():
    """Those without the tag, of an earlier version or of somebody else, stay."""
    batch, gone = client("batch"), []
    batch.meta.events.register(
        "provide-client-params.batch.DeregisterJobDefinition",
        lambda params, **_: gone.append(params["jobDefinition"]),
    )
    tags = {"batchreg": "digest", "batchreg:stack": "lab"}
    pages = [
        {"n:1": tags, "n:2": {"batchreg": "digest"}, "n:3": {}},
        {"m:1": {**tags, "batchreg:stack": "other"}, "m:2": tags},
    ]
    with Stubber(batch) as stub:
        for number, page in enumerate(pages):
            found = [
                {"jobDefinitionName": "n", "jobDefinitionArn": arn, "revision": 1}
                | {"type": "container", "tags": tags}
                for arn, tags in page.items()
            ]
            more = {} if number else {"nextToken": "2"}
            stub.add_response(
                "describe_job_definitions",
                {"jobDefinitions": found, **more},
                {"status": "ACTIVE", **({"nextToken": "2"} if number else {})},
            )
        for _ in range(2):
            stub.add_response("deregister_job_definition", {})
        assert definitions.deregister_all(batch, "lab") == 2
        stub.assert_no_pending_responses()
    assert sorted(gone) == ["m:2", "n:1"]
