"""Image names, job definitions, states, ends and logs of jobs: the parts, without a process."""

from __future__ import annotations

import itertools
import json
import re
from types import SimpleNamespace
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from botocore.stub import Stubber
from botocore.validate import ParamValidator
from hypothesis import assume, example, given
from hypothesis import strategies as st
from lab.agent import DOCKER_HUB_KEY, auth_for

from batchreg.errors import BatchregError
from batchreg.jobs import batch as jobs
from batchreg.jobs import definitions
from batchreg.jobs import log as joblog
from batchreg.jobs.definitions import Spec, definition
from batchreg.jobs.log import Line, LogReader
from batchreg.registry import images as image

SECRET = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:registry-AbCdEf"
ROLE = "arn:aws:iam::111122223333:role/JobExecutionRole"
DIGEST = "sha256:" + "0123456789abcdef" * 4


def client(service: str) -> Any:
    return botocore.session.get_session().create_client(
        service, region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="x"
    )


# --- Image names ---

part = st.from_regex("[a-z0-9]{1,6}((\\.|_|__|-|---)[a-z0-9]{1,6}){0,2}", fullmatch=True)
label = st.from_regex("[A-Za-z0-9]{1,5}(-[A-Za-z0-9]{1,3})?", fullmatch=True)
dotted = st.lists(label, min_size=2, max_size=3).map(".".join)
port = st.integers(1, 65535).map(lambda number: f":{number}")
hosts = st.one_of(
    dotted,
    st.builds("{}{}".format, st.one_of(label, dotted), port),
    st.sampled_from(["localhost", "docker.io", "ghcr.io", "index.docker.io"]),
)
tags = st.from_regex("[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True).map(":{}".format)


@given(
    host=st.none() | hosts,
    path=st.lists(part, min_size=1, max_size=3).map("/".join),
    tag=st.just("") | tags,
    digest=st.sampled_from(["", "@" + DIGEST]),
)
def test_every_well_formed_name_is_taken_apart(host, path, tag, digest):
    """Host, path, tag and digest, as github.com/distribution/reference defines them."""
    first, slash, _ = path.partition("/")
    assume(host or not slash or ("." not in first and first != "localhost"))  # else it is the host
    name = f"{host + '/' if host else ''}{path}{tag}{digest}"
    found = image.parse(name)
    assert (found.name, found.registry, found.path) == (name, host or "docker.io", path)


@given(
    name=st.one_of(
        st.from_regex(r"[A-Za-z0-9.:/@_-]{1,40}", fullmatch=True),
        st.builds("{}/{}".format, hosts, part),
        st.builds("{}{}".format, part, tags),
    )
)
@example("registry-1.docker.io/lab/x")
@example("localhost/x")
@example("lab/x:5000/y")
def test_the_registry_is_the_one_whose_login_the_agent_sends(name):
    """Else the warning about missing credentials would be wrong, or the job's login another's."""
    try:
        found = image.parse(name)
    except BatchregError:
        return
    key = DOCKER_HUB_KEY if found.on_hub else found.registry
    config = {
        "ECS_ENGINE_AUTH_TYPE": "dockercfg",
        "ECS_ENGINE_AUTH_DATA": json.dumps({key: {"auth": "dTpw"}}),
    }
    assert auth_for(name, config) == {"username": "u", "password": "p"}


@given(st.text())
def test_any_other_text_is_refused_in_one_line(text):
    """Whatever is pasted there: no traceback, and no line break in the message."""
    try:
        message = image.parse(text).name
    except BatchregError as error:
        message = str(error)
    assert len(message.splitlines()) <= 1


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "/",
        "a/",
        "/a",
        "a//b",
        "a:",
        "a:b:c",
        "a@",
        "a@sha256:12",
        "-a",
        "a-",
        "a..b",
        "ghcr.io/Lab/x",
        "https://ghcr.io/lab/x",
        "ghcr.io/lab/x:3\n",
        "ghcr.io:port/x",
        "a___b",
        "ghcr.io/lab/x:-3",
        "-ghcr.io/x",
        "ghcr-.io/x",
        "ghcr.io/",
        "ghcr.io/lab/x y",
        "häuser/x",
        "x:" + "t" * 129,
        f"x@{DIGEST.upper()}",
        "$(id)",
        "..",
        "a/../b",
    ],
)
def test_malformed_name_is_refused(name):
    """Docker would refuse it on the instance, minutes later."""
    with pytest.raises(BatchregError, match=r"is not the name of an image\. Write it like"):
        image.parse(name)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("https://ghcr.io/lab/x:3", "without a scheme"), ("ghcr.io/Lab/x", "in lower case")],
)
def test_refusal_says_what_to_mend(name, hint):
    """The two slips that people make most."""
    with pytest.raises(BatchregError, match=f"{hint}[.]$"):
        image.parse(name)


def test_name_that_batch_would_refuse_for_its_length_is_refused():
    """255 characters are the most that ContainerProperties.image takes."""
    longest = "ghcr.io/" + "a" * 247
    assert image.parse(longest).name == longest
    with pytest.raises(BatchregError, match="has 256 characters; AWS Batch accepts 255"):
        image.parse(longest + "a")


# --- Job definitions ---


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
    with pytest.raises(BatchregError, match="the nearest are") as refusal:
        on_fargate(vcpus=vcpus, memory=memory)
    named = re.findall("--vcpus ([0-9.]+) --memory ([0-9]+)", str(refusal.value))
    assert len(named) == 3
    assert {(float(cpus), int(size)) for cpus, size in named} <= FARGATE


def test_nearest_pairs_come_first():
    """What differs least stands first."""
    with pytest.raises(BatchregError) as refusal:
        on_fargate(vcpus=1, memory=1024)
    assert str(refusal.value) == (
        "Fargate has no 1 vCPUs with 1024 MiB; the nearest are --vcpus 1 --memory 2048, "
        "--vcpus 0.5 --memory 1024, --vcpus 1 --memory 3072."
    )


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"vcpus": 1.5}, "On EC2 a job takes whole vCPUs: give --vcpus 1 or more."),
        ({"vcpus": 0.25}, "On EC2 a job takes whole vCPUs: give --vcpus 1 or more."),
        ({"memory": 3}, "A job takes 4 MiB at least: give more --memory."),
        ({"fargate": True, "gpus": 1}, "Fargate has no GPUs: leave out --gpus or --fargate."),
        (
            {"environment": {"AWS_BATCH_X": "1"}},
            "AWS Batch keeps AWS_BATCH_X for itself: choose another name.",
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
        assert definitions.register(batch, body) == "n:7"
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
        assert definitions.register(batch, body) == "n:7"
        stub.assert_no_pending_responses()


# --- Ends, and what to do about them ---


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        ({"status": "SUCCEEDED", "container": {"exitCode": 0}}, (0, "")),
        (
            {"status": "FAILED", "statusReason": "exited", "container": {"exitCode": 3}},
            (3, "exited"),
        ),
        (
            {
                "status": "FAILED",
                "statusReason": "Task failed to start",
                "container": {"reason": "CannotPullContainerError:\n no"},
            },
            (1, "CannotPullContainerError: no"),
        ),
        (
            {
                "status": "FAILED",
                "container": {"exitCode": 137, "reason": "OutOfMemoryError: killed"},
            },
            (137, "OutOfMemoryError: killed"),
        ),
        (
            {"status": "FAILED", "statusReason": "timeout", "container": {"exitCode": 0}},
            (1, "timeout"),
        ),
        ({"status": "FAILED", "statusReason": "big", "container": {"exitCode": 256}}, (1, "big")),
        (
            {"status": "FAILED", "statusReason": "Array Child Job failed"},
            (1, "Array Child Job failed"),
        ),
        ({"status": "FAILED"}, (1, "no reason given")),
    ],
)
def test_verdict_is_the_jobs_own_exit_code_or_one(job, expected):
    """A failed job never counts as a success."""
    assert jobs.verdict(job) == expected


PULL = "CannotPullContainerError: Error response from daemon: "


@pytest.mark.parametrize(
    ("reason", "step"),
    [
        (
            PULL
            + "pull access denied for lab/x, repository does not exist or may require 'docker login'",
            "The login may be wrong",
        ),
        (PULL + "Head https://ghcr.io/v2/lab/x/manifests/3: denied", "The login may be wrong"),
        (PULL + "Get http://quay.io/v2/: no basic auth credentials", "The login may be wrong"),
        (PULL + "unauthorized: authentication required", "The login may be wrong"),
        (PULL + "manifest for ghcr.io/lab/x:9 not found: manifest unknown", "name and tag"),
        (PULL + "toomanyrequests: You have reached your pull rate limit", "limits the pulls"),
        (PULL + "received unexpected HTTP status: 429 Too Many Requests", "limits the pulls"),
        (PULL + f"denied: ghcr.io/lab/x@sha256:{'429' * 21}a", "The login may be wrong"),
        (PULL + "denied: ghcr.io/api/ollama", "The login may be wrong"),
        (PULL + "write /var/lib/docker/x: no space left on device", "--root-volume-gib"),
        (
            PULL + "no matching manifest for linux/arm64/v8 in the manifest list entries",
            "another architecture",
        ),
        (PULL + "Get https://ghcr.io/v2/: dial tcp 140.82.121.33:443: i/o timeout", "do not reach"),
        (
            PULL + "net/http: request canceled (Client.Timeout exceeded while awaiting headers)",
            "do not reach",
        ),
        (
            "MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE - CE(s) associated with the job queue "
            "cannot meet the CPU requirement specified in the job.",
            "--max-vcpus",
        ),
        (
            "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - The job resource requirement (vCPU/memory/GPU) "
            "is higher than that can be met by the CE(s) attached to the job queue.",
            "--instance-type",
        ),
        (
            "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY - Service cannot fulfill the capacity requested for "
            "instance type [m7i.large]",
            "or wait",
        ),
        ("ACTION_REQUIRED - CE(s) associated with the job queue are invalid.", "batchreg status"),
        ("MISCONFIGURATION:SERVICE_ROLE_PERMISSIONS - x", "AWSServiceRoleForBatch"),
        ("UNDETERMINED - Batch job is blocked, root cause is undetermined.", "vCPU quota"),
        (
            "ResourceInitializationError: unable to pull secrets or registry auth: i/o timeout",
            "Secrets Manager",
        ),
        (
            'CannotStartContainerError: exec: "align": executable file not found in $PATH',
            "behind --",
        ),
        ("OutOfMemoryError: Container killed due to memory usage", "--memory"),
        ("Job attempt duration exceeded timeout", "--timeout"),
        ("Host EC2 (instance i-0abc) terminated.", "--retries"),
        ("Essential container in task exited", ""),
        ("", ""),
    ],
)
def test_reason_calls_for_a_step(reason, step):
    """Each reason that is known to stop a job, with what helps; none where it speaks for itself."""
    found = jobs.advice(reason)
    assert step in found
    assert bool(found) == bool(step)


def queue_answers(stub: Stubber, queue: dict[str, str], environment: dict[str, str]) -> None:
    stub.add_response(
        "describe_job_queues",
        {
            "jobQueues": [
                {
                    "jobQueueName": "q",
                    "jobQueueArn": "arn:q",
                    "priority": 1,
                    "state": "ENABLED",
                    "computeEnvironmentOrder": [{"order": 1, "computeEnvironment": "arn:ce"}],
                    **queue,
                }
            ]
        },
    )
    stub.add_response(
        "describe_compute_environments",
        {
            "computeEnvironments": [
                {
                    "computeEnvironmentName": "ce",
                    "computeEnvironmentArn": "arn:ce",
                    "state": "ENABLED",
                    "status": "VALID",
                    **environment,
                }
            ]
        },
        {"computeEnvironments": ["arn:ce"]},
    )


@pytest.mark.parametrize(
    ("queue", "environment", "line"),
    [
        (
            {"status": "INVALID", "statusReason": "see the compute environment"},
            {"status": "INVALID", "statusReason": "CLIENT_ERROR - Access denied\n for role."},
            "The compute environment ce is INVALID: CLIENT_ERROR - Access denied for role. Mend that, "
            "then batchreg deploy.",
        ),
        (
            {"status": "VALID"},
            {"state": "DISABLED", "statusReason": "ComputeEnvironment Healthy"},
            "The compute environment ce is DISABLED: enable it in the AWS Batch console.",
        ),
        (
            {"status": "VALID", "state": "DISABLED"},
            {},
            "The job queue q is DISABLED: enable it in the AWS Batch console.",
        ),
        (
            {"status": "INVALID"},
            {},
            "The job queue q is INVALID: no reason given. Mend that, then batchreg deploy.",
        ),
    ],
)
def test_queue_that_cannot_run_a_job_is_refused(queue, environment, line):
    """Submitted there, the job would wait for ever."""
    batch = client("batch")
    with Stubber(batch) as stub:
        queue_answers(stub, queue, environment)
        with pytest.raises(BatchregError) as refusal:
            jobs.check_queue(batch, "arn:q")
    assert str(refusal.value) == line


def test_queue_that_is_gone_is_refused():
    """Somebody deleted it behind the stack's back."""
    batch = client("batch")
    with Stubber(batch) as stub:
        stub.add_response("describe_job_queues", {"jobQueues": []})
        with pytest.raises(BatchregError, match=r"job queue genomics-q is gone: batchreg destroy"):
            jobs.check_queue(batch, "arn:aws:batch:r:1:job-queue/genomics-q")


def test_healthy_queue_passes():
    """And an update under way does not stop a job."""
    batch = client("batch")
    with Stubber(batch) as stub:
        queue_answers(stub, {"status": "VALID"}, {"status": "UPDATING"})
        jobs.check_queue(batch, "arn:q")


# --- Logs ---


class Stream:
    """One log stream of CloudWatch's, whose answers are as its documentation allows them.

    A page can hold few lines or none although more follow, and its token is new; the end is where
    the token that was sent comes back. `pages` are the sizes of the next pages, then all that is
    left comes in one. `between` is called before each answer: lines can come between two pages.
    """

    exceptions = client("logs").exceptions

    def __init__(self, pages=(), between=lambda: None) -> None:
        self.lines: list[str] = []
        self.there = True
        self.requests = 0
        self._pages = iter(pages)
        self._between = between
        self._places = {}
        self._names = itertools.count(1)

    def expire(self) -> None:
        """Forget the tokens, as after 24 hours."""
        self._places.clear()

    def get_log_events(self, *, logGroupName, logStreamName, startFromHead, nextToken=None):
        assert logGroupName == "/aws/batch/job"
        assert startFromHead
        self.requests += 1
        assert self.requests < 1000, "it goes on for ever"
        self._between()
        if not self.there:
            raise self.exceptions.ResourceNotFoundException({}, "GetLogEvents")
        if nextToken and nextToken not in self._places:
            raise self.exceptions.InvalidParameterException({}, "GetLogEvents")
        start = self._places.get(nextToken, 0)
        end = start + next(self._pages, len(self.lines))
        events = [{"message": line, "timestamp": 7} for line in self.lines[start:end]]
        if nextToken and start == len(self.lines):
            return {"events": [], "nextForwardToken": nextToken}
        token = f"f/{next(self._names)}"
        self._places[token] = start + len(events)
        return {"events": events, "nextForwardToken": token}


def job(*names: str, status: str = "RUNNING") -> dict[str, Any]:
    *before, last = names or ("one",)
    return {
        "jobId": "j",
        "status": status,
        "container": {"logStreamName": last},
        "attempts": [{"container": {"logStreamName": name}} for name in before],
    }


def texts(lines) -> list[str]:
    return [line.text for line in lines]


@given(
    pages=st.lists(st.integers(0, 3), max_size=30),
    written=st.lists(st.integers(0, 5), max_size=6),
    meanwhile=st.lists(st.integers(0, 2), max_size=30),
    expiries=st.sets(st.integers(0, 6)),
)
@example(pages=[0, 1, 0, 0, 1, 0], written=[2], meanwhile=[], expiries=set())
@example(pages=[1, 1], written=[2, 1], meanwhile=[0, 1], expiries={1})
def test_no_line_is_lost_and_none_comes_twice(pages, written, meanwhile, expiries):
    """However CloudWatch pages, whenever lines come, and though they have equal time stamps."""
    numbers = map(str, itertools.count())
    between = iter(meanwhile)
    stream = Stream(pages, lambda: stream.lines.extend(itertools.islice(numbers, next(between, 0))))
    reader, seen = LogReader(stream), []
    for turn, count in enumerate(written):
        stream.lines.extend(itertools.islice(numbers, count))
        if turn in expiries:
            stream.expire()
        seen += texts(reader.read(job()))
    seen += texts(reader.read(job()))
    assert seen == stream.lines
    assert reader.lines == len(seen)


def test_empty_pages_in_the_middle_are_not_the_end():
    """CloudWatch answers so where a job was silent for long."""
    stream = Stream([2, 0, 0, 0, 1])
    stream.lines = ["a", "b", "c"]
    assert texts(LogReader(stream).read(job())) == ["a", "b", "c"]


def test_end_is_found_with_one_request():
    """A follower polls for hours: nothing new must cost one request, and three pages four."""
    stream = Stream([1, 1, 1])
    stream.lines = ["a", "b", "c"]
    reader = LogReader(stream)
    list(reader.read(job()))
    assert stream.requests == 4
    assert list(reader.read(job())) == []
    assert stream.requests == 5


def test_pages_without_end_end():
    """Of lines that have expired CloudWatch hands out empty pages for ever (boto3 issue 4591)."""
    stream = Stream(itertools.repeat(0))
    stream.lines = ["expired"]
    assert list(LogReader(stream).read(job())) == []
    assert stream.requests == joblog.EMPTY_PAGES


def test_stream_that_is_not_there_yet_is_empty():
    """The first job of an account makes the group, and each job its stream, with its first line."""
    stream = Stream()
    stream.there = False
    reader = LogReader(stream)
    assert list(reader.read(job())) == []
    stream.there, stream.lines = True, ["a"]
    assert list(reader.read(job())) == [Line("a", 7)]


def test_job_without_a_stream_costs_no_request():
    """Before it runs, a job has none."""
    stream = Stream()
    reader = LogReader(stream)
    assert list(reader.read({"status": "RUNNABLE", "container": {}})) == []
    assert list(reader.drain({"status": "FAILED"}, sleep=pytest.fail)) == []
    assert stream.requests == 0


def test_streams_of_all_attempts_come_in_order():
    """Each attempt has its own; the last is named twice once the job has ended."""
    assert joblog.streams(job("first", "second")) == ["first", "second"]
    assert joblog.streams(job("first", "second", "second")) == ["first", "second"]
    assert joblog.streams({"attempts": [{"container": {}}, {}]}) == []


class Clock:
    """Time that passes in `sleep` alone, and what happens meanwhile."""

    def __init__(self, **happens) -> None:
        self.now, self._happens = (
            0.0,
            sorted(
                (float(time.removeprefix("at_").replace("_", ".")), event)
                for time, event in happens.items()
            ),
        )

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        while self._happens and self._happens[0][0] <= self.now:
            self._happens.pop(0)[1]()


def test_last_lines_may_come_after_the_end():
    """The log driver sends its rest as the container goes, and CloudWatch takes its time."""
    stream = Stream()
    stream.lines = ["a"]
    clock = Clock(at_1_5=lambda: stream.lines.append("b"), at_3=lambda: stream.lines.append("c"))
    reader = LogReader(stream)
    assert texts(reader.read(job())) == ["a"]
    assert texts(reader.drain(job(), clock.sleep)) == ["b", "c"]
    assert clock.now == 5


def test_first_line_after_the_end_is_waited_for_longer():
    """A job of half a second may have ended before its log group exists."""
    stream = Stream()
    stream.there = False
    clock = Clock(at_4=lambda: (stream.lines.append("a"), setattr(stream, "there", True)))
    assert texts(LogReader(stream).drain(job(), clock.sleep)) == ["a"]
    assert clock.now == 6


def test_silent_job_ends_the_wait():
    """`true` has nothing to say, ever."""
    clock = Clock()
    assert list(LogReader(Stream()).drain(job(), clock.sleep)) == []
    assert clock.now == 5


# --- Following ---


def batch_that_says(*answers: Any) -> Any:
    """Return a client whose DescribeJobs gives these in turn, and the last for ever."""
    turns = itertools.chain(answers, itertools.repeat(answers[-1]))

    def describe_jobs(jobs):
        answer = next(turns)
        if isinstance(answer, Exception):
            raise answer
        return {"jobs": [answer] if answer else []}

    return SimpleNamespace(describe_jobs=describe_jobs)


def followed(*answers: Any, stream: Stream | None = None, sleep=lambda _: None, **options) -> list:
    return list(
        jobs.follow(batch_that_says(*answers), stream or Stream(), "j", sleep=sleep, **options)
    )


def waiting(reason: str = "") -> dict[str, Any]:
    return {"jobId": "j", "status": "RUNNABLE", "statusReason": reason, "container": {}}


ENDED = {"jobId": "j", "status": "FAILED", "statusReason": "over", "container": {}}


def test_each_state_and_reason_is_told_once():
    """A job that waits for an hour says so once, and again when its reason changes."""
    seen = followed(waiting(), waiting(), waiting("full"), waiting("full"), ENDED)
    assert [(item.status, item.reason) for item in seen[:-1]] == [
        ("RUNNABLE", ""),
        ("RUNNABLE", "full"),
        ("FAILED", "over"),
    ]


def test_last_is_the_job_itself():
    """With its exit code."""
    assert followed(waiting(), ENDED)[-1] == ENDED


def test_log_comes_before_the_state_that_ends_it():
    """Nothing is left to come once the end is told."""
    stream = Stream()
    stream.lines = ["a"]
    seen = followed(job(), job(status="SUCCEEDED"), stream=stream)
    assert [getattr(item, "text", getattr(item, "status", "job")) for item in seen] == [
        "RUNNING",
        "a",
        "SUCCEEDED",
        "job",
    ]


def test_last_lines_are_waited_for_before_the_end_is_told():
    """They may reach CloudWatch after Batch knows that the job has ended."""
    stream = Stream()
    clock = Clock(at_1=lambda: stream.lines.append("late"))
    seen = followed(job(status="SUCCEEDED"), stream=stream, sleep=clock.sleep)
    assert [getattr(item, "text", getattr(item, "status", "job")) for item in seen] == [
        "late",
        "SUCCEEDED",
        "job",
    ]


def test_array_is_counted_per_state_in_the_order_of_a_jobs_life():
    """Zeros are left out."""
    array = {
        **waiting(),
        "status": "PENDING",
        "arrayProperties": {
            "size": 6,
            "statusSummary": {"SUCCEEDED": 3, "RUNNING": 2, "FAILED": 0, "SUBMITTED": 1},
        },
    }
    assert followed(array, ENDED)[0].children == (
        ("SUBMITTED", 1),
        ("RUNNING", 2),
        ("SUCCEEDED", 3),
    )


AWAY = EndpointConnectionError(endpoint_url="https://batch.example")
THROTTLED = ClientError({"Error": {"Code": "TooManyRequestsException"}}, "DescribeJobs")
DENIED = ClientError({"Error": {"Code": "AccessDeniedException"}}, "DescribeJobs")


@pytest.mark.parametrize("error", [AWAY, THROTTLED])
def test_network_that_is_away_for_a_while_ends_nothing(error):
    """The job goes on, and so does who follows it."""
    seen = followed(waiting(), error, error, waiting(), ENDED)
    assert [item.status for item in seen[:-1]] == ["RUNNABLE", "FAILED"]


def test_no_line_is_lost_while_the_network_is_away():
    """Nor told twice: reading goes on where it was."""
    errors = iter([None, AWAY, None])

    def between() -> None:
        if error := next(errors, None):
            raise error

    stream = Stream([1, 1], between)
    stream.lines = ["a", "b"]
    seen = followed(job(), job(), job(status="SUCCEEDED"), stream=stream)
    assert texts(item for item in seen if isinstance(item, Line)) == ["a", "b"]


def test_network_that_stays_away_is_a_failure():
    """After a minute."""
    clock = Clock()
    with pytest.raises(EndpointConnectionError):
        followed(waiting(), AWAY, sleep=clock.sleep)
    assert 60 <= clock.now < 70


def test_short_outages_do_not_add_up():
    """A job of days may see many."""
    seen = followed(*[*[AWAY] * 15, waiting()] * 5, ENDED)
    assert seen[-1] == ENDED


def test_refusal_is_a_failure_at_once():
    """Waiting does not give a permission."""
    with pytest.raises(ClientError, match="AccessDenied"):
        followed(DENIED, sleep=pytest.fail)


def test_unknown_job_is_a_failure():
    """Batch answers with an empty list, and forgets jobs after a week."""
    with pytest.raises(BatchregError, match="There is no job j in this region"):
        followed(None)


def test_polls_slow_down():
    """Quick at first, for short jobs, then every three seconds, for AWS's request limits."""
    pauses: list[float] = []
    followed(*[waiting()] * 20, ENDED, sleep=pauses.append)
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (0.2, 3)
