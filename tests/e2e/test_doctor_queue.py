"""doctor on a job queue that plain boto3 has created, where AWS refuses, is slow, or hangs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import pytest
from attach_lab import Lab
from botocore.config import Config
from lab.forwarder import Call, Forwarder, Reply
from local_aws import LocalAws

from batchreg.doctor import collect
from batchreg.doctor.facts import Facts
from batchreg.doctor.findings import diagnose
from batchreg.registry import check as registry
from batchreg.render import userdata

IMAGE = "ghcr.io/lab/align:3"
IMAGE_ID = "ami-0c2023a1b2c3d4e5f"  # one that the embedded AWS has
QUEUE, ATTACHED = "by-hand", "by-hand-with-credentials"
SERVICES = ("batch", "cloudformation", "ec2", "ecs", "iam", "autoscaling", "secretsmanager")
SECONDS_PER_CALL = 1.5


class Aws(Forwarder):
    """The embedded AWS, which refuses an operation, or is slow or hangs in some services."""

    def __init__(self, backend: str) -> None:
        super().__init__(backend)
        self.refused, self.slow, self.hangs = "", tuple[str, ...](), ""
        self.over = Event()

    def before(self, call: Call) -> Reply | None:
        service = re.search(r"Credential=[^/]+/[^/]+/[^/]+/([\w-]+)/", str(call.headers))
        name = service[1] if service else ""
        if name == self.hangs:
            self.over.wait(60)
        if name in self.slow:
            time.sleep(SECONDS_PER_CALL)
        return denied(name) if call.operation == self.refused else None


def denied(service: str) -> Reply:
    """Answer as AWS does to whoever lacks a permission, in the protocol of the service."""
    code = "UnauthorizedOperation" if service == "ec2" else "AccessDenied"
    error = f"<Error><Code>{code}</Code><Message>You are not authorized.</Message></Error>"
    if service == "ec2":
        return Reply(403, f"<Response><Errors>{error}</Errors></Response>".encode())
    if service in ("cloudformation", "iam", "autoscaling"):
        return Reply(403, f"<ErrorResponse>{error}</ErrorResponse>".encode())
    body = {"__type": "AccessDeniedException", "message": "You are not authorized."}
    return Reply(403, json.dumps(body).encode(), {"Content-Type": "application/json"})


class Look(NamedTuple):
    facts: Facts
    causes: list[str]
    rows: dict[str, str]
    seconds: float


class World:
    """Two queues: one whose instances have credentials, and one whose have none."""

    def __init__(self, aws: LocalAws) -> None:
        self.aws = aws
        for name in (QUEUE, ATTACHED):
            self.lab(name)
        aws.set_jobs("FAILED", reason="CannotPullImageManifestError: unauthorized")
        self.submit(QUEUE)
        aws.set_jobs("RUNNING")
        self.submit(ATTACHED)

    def lab(self, name: str) -> None:
        lab = Lab(self.aws, name)
        lab.role()
        statements = [{"Effect": "Allow", "Action": "ecs:*", "Resource": "*"}]
        specification, resources, choices = None, dict[str, Any](), dict[str, Any]()
        roles: dict[str, str] = {}
        if name == ATTACHED:
            login = {"username": "lab", "password": "canary-4711", "registry_url": "ghcr.io"}
            secret = self.aws.client("secretsmanager").create_secret(
                Name=f"{name}-ghcr", SecretString=json.dumps(login)
            )["ARN"]
            statements.append(
                {"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": secret}
            )
            text = userdata.for_instance([secret], self.aws.region)
            template = lab.template("ecs", text.encode(), ImageId=IMAGE_ID)
            specification = {"launchTemplateId": template, "version": "1"}
            # Its instances are a Spot Fleet's, from a machine image of its own.
            for service, managed in (
                ("spotfleet", "AmazonEC2SpotFleetTaggingRole"),
                ("batch", "AWSBatchServiceRole"),
            ):
                roles[service] = self.service_role(lab, service, managed)
            resources = {
                "type": "SPOT",
                "allocationStrategy": "BEST_FIT",
                "spotIamFleetRole": roles["spotfleet"],
            }
            choices = {"serviceRole": roles["batch"]}
        policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
        lab.iam.put_role_policy(RoleName=f"{name}-ecs", PolicyName="ecs", PolicyDocument=policy)
        lab.make(specification, resources=resources, **choices)

    def service_role(self, lab: Lab, service: str, managed: str) -> str:
        """Create a role for a service of AWS, with a policy of AWS's own, and return its ARN."""
        name = f"{lab.name}-{service}"
        trust = {"Effect": "Allow", "Principal": {"Service": f"{service}.amazonaws.com"}}
        document = json.dumps({"Statement": [{**trust, "Action": "sts:AssumeRole"}]})
        arn = lab.iam.create_role(RoleName=name, AssumeRolePolicyDocument=document)["Role"]["Arn"]
        lab.iam.attach_role_policy(
            RoleName=name, PolicyArn=f"arn:aws:iam::aws:policy/service-role/{managed}"
        )
        return str(arn)

    def submit(self, queue: str) -> None:
        batch = self.aws.client("batch")
        definition = batch.register_job_definition(
            jobDefinitionName="align",
            type="container",
            containerProperties={
                "image": IMAGE,
                "resourceRequirements": [
                    {"type": "VCPU", "value": "1"},
                    {"type": "MEMORY", "value": "512"},
                ],
            },
        )["jobDefinitionArn"]
        batch.submit_job(jobName="align", jobQueue=queue, jobDefinition=definition)

    def look(self, queue: str, front: Aws, seconds: float = 60) -> Look:
        """Look at a queue through `front`; the registry accepts whoever has credentials."""

        def client(service: str) -> Any:
            return self.aws._session.create_client(
                service,
                region_name=self.aws.region,
                endpoint_url=front.url,
                aws_access_key_id="test",
                aws_secret_access_key="test",
                config=Config(retries={"total_max_attempts": 1}, max_pool_connections=30),
            )

        def check(image: Any, credentials: Any, **_: Any) -> registry.Verdict:
            cause = "ok" if credentials else "login-needed"
            return registry.Verdict(image.name, bool(credentials), cause, "It is private.", "", {})

        scope = collect.Scope(stack="batchreg", region=self.aws.region, queue=queue, assumed=True)
        began = time.monotonic()
        facts = collect.collect(client, scope, check=check, seconds=seconds)
        taken = time.monotonic() - began
        causes = [finding.cause for finding in diagnose(facts)]
        return Look(facts, causes, dict(facts.rows()), taken)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with LocalAws() as aws:
        yield World(aws)


@pytest.fixture
def front(world: World) -> Iterator[Aws]:
    with Aws(world.aws.endpoint) as front:
        yield front
        front.over.set()


# What the agent said is true although nobody knows of the instances' credentials.
LESS_PRECISE = {"FAILED": ("pull-denied",)}
EXPECTED = {QUEUE: ["no-credentials-for-registry"], ATTACHED: []}


@pytest.fixture(scope="module")
def whole(world: World) -> dict[str, Look]:
    """What doctor sees of the queues where nothing is in its way."""
    with Aws(world.aws.endpoint) as front:
        return {queue: world.look(queue, front) for queue in EXPECTED}


def assert_true(seen: Look, whole: Look) -> None:
    """Every finding and every row of a partial look is one of the whole one, or says less."""
    assert {*seen.causes} <= {*whole.causes, *LESS_PRECISE.get(seen.rows.get("Job align", ""), ())}
    for what, state in seen.rows.items():
        assert what in whole.rows, what
        less = ("exists", "unknown routes")
        assert state in less or whole.rows[what].startswith(state), (what, state)


@pytest.mark.parametrize("queue", EXPECTED)
def test_queue_that_something_else_created_is_diagnosed(whole: dict[str, Look], queue: str) -> None:
    """Without a stack; and the fix for missing credentials is to attach some."""
    seen = whole[queue]
    assert seen.causes == EXPECTED[queue]
    assert seen.facts.stack is None
    assert {f"Job queue {queue}", f"Compute environment {queue}"} <= seen.rows.keys()
    if queue == QUEUE:
        (finding,) = diagnose(seen.facts)
        assert finding.fix == (
            f"batchreg attach {QUEUE} --region us-east-1 --registry-url ghcr.io",
        )
    else:
        assert seen.rows[f"Role {queue}-ecs"] == "has its permissions"
        assert f"Secret {queue}-ghcr" in seen.rows


@pytest.mark.parametrize(
    ("service", "cause"), [("spotfleet", "spot-role"), ("batch", "service-role")]
)
def test_role_that_a_service_may_not_take_is_repaired_as_printed(
    world: World, front: Aws, service: str, cause: str
) -> None:
    """With the command as it is; whoever else is trusted stays so."""
    iam, name = world.aws.client("iam"), f"{ATTACHED}-{service}"
    other = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}}
    document = json.dumps({"Statement": [{**other, "Action": "sts:AssumeRole"}]})
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=document)
    seen = world.look(ATTACHED, front)
    assert seen.causes == [cause]
    (fix,) = diagnose(seen.facts)[0].fix
    environ = {**world.aws.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(["/bin/sh", "-c", fix], env=environ, check=True)
    assert world.look(ATTACHED, front).causes == []
    trust = json.dumps(iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"])
    assert "ec2.amazonaws.com" in trust


OPERATIONS = {
    "/v1/describejobqueues",
    "/v1/describecomputeenvironments",
    "/v1/listjobs",
    "/v1/describejobs",
    "DescribeStacks",
    "DescribeSubnets",
    "DescribeRouteTables",
    "DescribeNetworkAcls",
    "DescribeDhcpOptions",
    "DescribeInternetGateways",
    "DescribeNatGateways",
    "DescribePrefixLists",
    "DescribeVpcs",
    "DescribeVpcEndpoints",
    "DescribeVpcAttribute",
    "DescribeSecurityGroups",
    "DescribeImages",
    "DescribeInstances",
    "DescribeInstanceTypeOfferings",
    "DescribeInstanceTypes",
    "DescribeSpotFleetRequestHistory",
    "DescribeSpotFleetRequests",
    "DescribeLaunchTemplateVersions",
    "ListContainerInstances",
    "DescribeScalingActivities",
    "GetInstanceProfile",
    "GetRole",
    "SimulatePrincipalPolicy",
    "DescribeSecret",
    "GetSecretValue",
}


def test_every_operation_is_refused_below(world: World, front: Aws) -> None:
    """A call that is new needs a line above; the quota is one that the embedded AWS refuses."""
    for queue in EXPECTED:
        world.look(queue, front)
    assert {call.operation for call in front.calls} - {"GetServiceQuota"} == OPERATIONS
    page = (Path(__file__).parents[2] / "docs" / "permissions.md").read_text().lower()
    policy = page[page.index("## doctor") :]
    assert [one for one in OPERATIONS if f':{one.rpartition("/")[2].lower()}"' not in policy] == []


@pytest.mark.parametrize("queue", EXPECTED)
@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_missing_permission_costs_its_facts_and_makes_none_up(
    world: World, front: Aws, whole: dict[str, Look], operation: str, queue: str
) -> None:
    """The permission is listed, and what is said is still true."""
    front.refused = operation
    seen = world.look(queue, front)
    assert_true(seen, whole[queue])
    asked = operation in {call.operation for call in front.calls}
    name = operation.rpartition("/")[2].lower()
    gaps = {gap.permission.partition(":")[2].lower() for gap in seen.facts.not_looked_at}
    assert (name in gaps) == asked


@pytest.mark.parametrize("service", SERVICES)
def test_slow_service_costs_nothing(
    world: World, front: Aws, whole: dict[str, Look], service: str
) -> None:
    """Calls that take 1.5 s each are awaited."""
    front.slow = (service,)
    seen = world.look(ATTACHED, front, seconds=collect.SECONDS)
    assert seen.seconds < 10
    assert (seen.causes, seen.rows) == (whole[ATTACHED].causes, whole[ATTACHED].rows)


def test_at_most_six_calls_follow_one_another(world: World, front: Aws) -> None:
    """With 1.5 s for every call of all services, all is there after six."""
    front.slow = (*SERVICES, "kms", "servicequotas")
    seen = world.look(ATTACHED, front)
    assert seen.seconds < 6 * SECONDS_PER_CALL + 1


@pytest.mark.parametrize("service", SERVICES)
def test_service_that_hangs_costs_its_facts_and_no_more(
    world: World, front: Aws, whole: dict[str, Look], service: str
) -> None:
    """What did not arrive in time is listed."""
    front.hangs = service
    seconds = collect.SECONDS if service == "batch" else 4
    seen = world.look(QUEUE, front, seconds=seconds)
    front.over.set()
    assert seen.seconds < seconds + 1
    assert_true(seen, whole[QUEUE])
    reasons = {
        gap.reason
        for gap in seen.facts.not_looked_at
        if gap.permission.partition(":")[0] == service
    }
    assert reasons <= {f"no answer within {seconds:g} s"}
    assert reasons or service == "secretsmanager"  # which nothing asks about this queue
