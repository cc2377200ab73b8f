"""doctor on environments whose images ECR pulls, in the embedded AWS: healthy, broken, fixed."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from account import LOGIN, PASSWORD, Account
from attach_lab import Lab
from cache_world import PULL, policy, statement
from local_aws import LocalAws
from registry_server import RegistryServer

from batchreg.doctor import collect
from batchreg.doctor.facts import Facts
from batchreg.doctor.findings import Finding, diagnose
from batchreg.registry import check as registry
from batchreg.render import template
from batchreg.render.settings import Settings
from batchreg.render.text import to_yaml

NAME = "cached-queue"


class World:
    """An environment of somebody's whose images ECR pulls, from a registry of this machine."""

    def __init__(self, aws: LocalAws, server: RegistryServer) -> None:
        self.aws, self.server = aws, server
        self.ecr, self.iam, self.secrets = map(aws.client, ("ecr", "iam", "secretsmanager"))
        self.lab = Lab(aws, NAME)

    @property
    def prefix(self) -> str:
        return self.lab.outputs["CacheRepositoryPrefix"]

    @property
    def image(self) -> str:
        return f"{self.aws.ecr_host}/{self.prefix}/lab/align:3"

    def look(self, **scope: Any) -> Facts:
        """Collect, while what would ask the internet says that the image can be pulled."""
        self.asked: list[tuple[str, Any]] = []

        def check(image: Any, login: Any, **_: Any) -> registry.Verdict:
            self.asked.append((image.name, login))
            return registry.Verdict(image.name, True, "ok", "", "", {})

        scope = scope or {"queue": NAME}
        return collect.collect(
            self.aws.client,
            collect.Scope(region="us-east-1", **scope),
            check=check,
            seconds=30,  # the embedded AWS takes its time to load a service
        )

    def findings(self, **scope: Any) -> list[Finding]:
        return diagnose(self.look(**scope))


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    users = {"lab": PASSWORD}
    with LocalAws() as aws, RegistryServer(users=users, login="basic") as server:
        aws.set_upstreams({"ghcr.io": server.host})
        world = World(aws, server)
        lab = world.lab.make()
        joining = statement(["ecs:*"])
        lab.iam.put_role_policy(
            RoleName=f"{NAME}-ecs", PolicyName="ecs", PolicyDocument=policy(joining)
        )
        run(aws, "attach", NAME, "--registry-url", "ghcr.io", "--pull-through-cache=all", "--yes")
        yield world


def run(aws: LocalAws, *command: str) -> str:
    """Run batchreg as a user does, and return what it prints."""
    program = str(Path(sys.executable).with_name("batchreg"))
    environ = {**os.environ, **aws.environ, **LOGIN}
    done = subprocess.run([program, *command], env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fixed(world: World, finding: Finding) -> None:
    """Run the fixes as printed."""
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    environ = {**world.aws.environ, **LOGIN, "PATH": path}
    for fix in finding.fix:
        assert shlex.split(fix)[0] in ("aws", "batchreg")
        done = subprocess.run(["sh", "-c", fix], env=environ, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_attached_queue_is_healthy_and_says_what_ecr_pulls(world: World) -> None:
    """Found by its queue alone; the launch template is still theirs and fetches nothing."""
    output = run(world.aws, "doctor", "--queue", NAME, "--json")
    answer = json.loads(output)
    looked = {row["what"]: row["is"] for row in answer["looked_at"]}
    assert answer["findings"] == []
    assert looked[f"Stack batchreg-{NAME}"] == "CREATE_COMPLETE"
    assert looked["Registry ghcr.io"] == f"pulled through ECR as {world.prefix}/, valid"
    assert looked[f"Role {NAME}-ecs"] == "has its permissions"
    # ministack has no quotas.
    assert {gap["permission"] for gap in answer["not_looked_at"]} <= {
        "servicequotas:GetServiceQuota"
    }
    assert json.dumps(PASSWORD)[1:-1] not in output


def test_deployed_stack_is_healthy(world: World) -> None:
    """Its user data has no program, and that is right."""
    account = Account(world.aws, "cached-stack")
    settings = Settings(cached=((1, "ghcr.io"),))
    account.make(
        to_yaml(template.build(settings)), RegistryUrl="ghcr.io", CachePrefix="cached-stack"
    )
    seen = world.look(stack="cached-stack")
    assert diagnose(seen) == []
    assert (seen.launch_template.differs, seen.launch_template.fetches_credentials) == (
        False,
        False,
    )
    assert [one.row for one in seen.cache_rules] == [
        ("Registry ghcr.io", "pulled through ECR as cached-stack/ghcr/, valid")
    ]


def test_rule_that_was_deleted_by_hand_is_named_and_comes_back(world: World) -> None:
    """With the stack's secret, and CloudFormation goes on managing it."""
    world.ecr.delete_pull_through_cache_rule(ecrRepositoryPrefix=world.prefix)
    (finding,) = world.findings()
    assert finding.cause == "cache-rule-missing"
    fixed(world, finding)
    assert world.findings() == []


def test_credentials_that_the_registry_rejects_are_named(world: World) -> None:
    """ECR says so; the fix asks for new ones, which nothing here can give but a variable."""
    world.server.users["lab"] = "changed"
    (finding,) = world.findings()
    assert finding.cause == "cache-rule-invalid"
    assert "The authentication to the upstream registry failed." in finding.evidence[0]
    assert finding.fix == (
        f"batchreg rotate --stack-name batchreg-{NAME} --region us-east-1 --registry ghcr.io",
    )
    world.server.users["lab"] = PASSWORD
    assert world.findings() == []


def test_secret_in_the_form_of_instances_is_the_cause(world: World) -> None:
    """ECR's refusal follows from it, and is no finding of its own."""
    arn = world.lab.outputs["RegistrySecretArn"]
    text = world.secrets.get_secret_value(SecretId=arn)["SecretString"]
    form = {"username": "lab", "password": PASSWORD, "registry_url": "ghcr.io"}
    world.secrets.put_secret_value(SecretId=arn, SecretString=json.dumps(form))
    (finding,) = world.findings()
    assert (finding.cause, len(finding.fix)) == ("secret-incomplete", 1)
    world.secrets.put_secret_value(SecretId=arn, SecretString=text)


def test_role_that_lost_its_policy_may_fill_the_cache_after_the_fix(world: World) -> None:
    """The companion stack's policy is on somebody's role, and whoever owns it may remove it."""
    role = f"{NAME}-ecs"
    (name,) = {*world.iam.list_role_policies(RoleName=role)["PolicyNames"]} - {"ecs"}
    document = world.iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
    world.iam.delete_role_policy(RoleName=role, PolicyName=name)
    (finding,) = world.findings()
    assert finding.cause == "cache-denied"
    # The registry's own policy grants it just as well.
    arn = f"arn:aws:iam::{world.aws.ecr_host[:12]}:role/{role}"
    granting = statement(
        ["ecr:CreateRepository", "ecr:BatchImportUpstreamImage"], Principal={"AWS": arn}
    )
    world.ecr.put_registry_policy(policyText=policy(granting))
    assert world.findings() == []
    world.ecr.delete_registry_policy()
    fixed(world, finding)
    assert world.findings() == []
    world.iam.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=json.dumps(document))


def test_image_is_asked_for_at_its_own_registry_and_its_repository_may_be_closed(
    world: World,
) -> None:
    """With the credentials that ECR has; a policy that denies the role is found."""
    repository = world.image.partition("/")[2].partition(":")[0]
    world.ecr.create_repository(repositoryName=repository)
    assert world.findings(queue=NAME, image=world.image) == []
    ((asked, login),) = world.asked
    assert (asked, login.username, login.password) == ("ghcr.io/lab/align:3", "lab", PASSWORD)
    denying = statement(PULL, Effect="Deny", Principal="*")
    denying.pop("Resource")
    world.ecr.set_repository_policy(repositoryName=repository, policyText=policy(denying))
    (finding,) = world.findings(queue=NAME, image=world.image)
    assert finding.cause == "repository-closed"
    assert "cached-queue-ecs" in finding.evidence[0]
    world.ecr.delete_repository_policy(repositoryName=repository)


def test_image_named_at_its_registry_is_asked_for_as_an_instance_would(world: World) -> None:
    """Instances have no credentials for it: those that ECR has would give a wrong answer."""
    world.findings(queue=NAME, image="ghcr.io/lab/align:3")
    assert world.asked == [("ghcr.io/lab/align:3", None)]
