"""ECR's pull-through cache with nothing but real parts: a private registry, Debian's docker-registry
as the cache, and the Docker Engine, which finds ECR under its own name.
"""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from cache_world import IMPORT, PULL, policy, statement
from cached import World, cached_registries
from lab.parts import PullError, Registry
from real_parts import PASSWORD, require
from token_server import TokenServer

EC2_ROLE = "arn:aws:iam::aws:policy/service-role/AmazonEC2ContainerServiceforEC2Role"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    require("registry", "engine", "machine")
    with cached_registries(tmp_path_factory.mktemp("cache")) as world:
        for name in ("align", "sort", "count"):
            world.registries["ghcr.io"].push(f"lab/{name}")
        yield world


@pytest.fixture(scope="module")
def puller(world: World) -> str:
    """A role with all that a first pull takes."""
    return world.puller(*PULL, *IMPORT)


def test_first_pull_fetches_the_image_and_creates_its_repository(world: World, puller: str) -> None:
    """The secret's credentials are the registry's; the repository is as its template says."""
    prefix, rules = world.cached(), json.dumps({"rules": []})
    world.ecr.create_repository_creation_template(
        prefix=prefix,
        appliedFor=["PULL_THROUGH_CACHE"],
        imageTagMutability="IMMUTABLE",
        lifecyclePolicy=rules,
    )
    image = world.image(prefix, "lab/align:latest")
    world.engine.pull(image, world.login(puller))
    assert world.engine.run(image, ["echo", "aligned"]) == (0, "aligned\n")
    world.engine.remove(image)
    repository = world.repository(f"{prefix}/lab/align")
    assert repository
    assert repository["imageTagMutability"] == "IMMUTABLE"
    kept = world.ecr.get_lifecycle_policy(repositoryName=f"{prefix}/lab/align")
    assert kept["lifecyclePolicyText"] == rules


def test_second_pull_needs_no_registry(world: World, puller: str) -> None:
    """Nor a rule, nor the permissions of the first; what is not cached does need them."""
    host = "registry.gitlab.com"
    registry = world.registries[host]
    for name in ("align", "sort"):
        registry.push(f"group/{name}")
    prefix = world.cached(host)
    align, sort = (world.image(prefix, f"group/{name}:latest") for name in ("align", "sort"))
    assert world.pull(align, puller) == ""
    registry.__exit__()
    assert world.pull(align, world.puller(*PULL)) == ""
    assert "Requested image not found" in world.pull(sort, puller)
    world.ecr.delete_pull_through_cache_rule(ecrRepositoryPrefix=prefix)
    assert world.pull(align, puller) == ""
    assert f"The repository with name '{prefix}/group/sort' does not exist" in world.pull(
        sort, puller
    )


def test_new_secret_counts_for_the_next_image(world: World, puller: str) -> None:
    """What is cached needs neither; a wrong one is refused as ECR does."""
    registry = world.registries["ghcr.io"]
    secret = world.secret(registry.username, registry.password)
    prefix = world.rule(secret)
    align, sort = (world.image(prefix, f"lab/{name}:latest") for name in ("align", "sort"))
    assert world.pull(align, puller) == ""
    registry.change_password("second one")
    assert world.pull(align, puller) == ""
    assert "The authentication to the upstream registry failed." in world.pull(sort, puller)
    assert world.validated(prefix)[0] is False
    assert world.repository(f"{prefix}/lab/sort") is None
    content = json.dumps({"username": registry.username, "accessToken": "second one"})
    world.secrets.put_secret_value(SecretId=secret, SecretString=content)
    assert world.validated(prefix) == (True, "")
    assert world.pull(sort, puller) == ""


def test_registry_with_a_token_server_is_cached(world: World, puller: str, tmp_path: Path) -> None:
    """As the registries have it that ECR supports: credentials are for the token server."""
    with Registry("ada", "x", directory=tmp_path / "registry") as filling:
        filling.push("lab/align")
    with (
        TokenServer(tmp_path, {"ada": PASSWORD}, {"ada": {"lab/align"}}) as tokens,
        Registry("ada", "x", directory=tmp_path / "registry", auth=tokens.auth) as registry,
    ):
        world.aws.set_upstreams({"registry-1.docker.io": registry.host})
        prefix = world.rule(world.secret("ada", PASSWORD), "registry-1.docker.io")
        wrong = world.rule(world.secret("ada", "wrong"), "registry-1.docker.io")
        assert world.validated(prefix) == (True, "")
        assert world.pull(world.image(prefix, "lab/align:latest"), puller) == ""
        refused = world.pull(world.image(wrong, "lab/align:latest"), puller)
        assert "The authentication to the upstream registry failed." in refused
    assert world.pull(world.image(prefix, "lab/align:latest"), puller) == ""


@pytest.mark.parametrize(
    ("actions", "why"),
    [
        ((*PULL, "ecr:BatchImportUpstreamImage"), "/lab/align' does not exist in the registry"),
        ((*PULL, "ecr:CreateRepository"), "manifest unknown: Requested image not found"),
        (IMPORT, "is not authorized to perform: ecr:BatchGetImage on resource: arn:aws:ecr:"),
    ],
)
def test_pull_without_a_permission_says_what_ecr_says(
    world: World, actions: tuple[str, ...], why: str
) -> None:
    """Which is less than what is missing. Nothing is created."""
    prefix = world.cached()
    assert why in world.pull(world.image(prefix, "lab/align:latest"), world.puller(*actions))
    assert world.repository(f"{prefix}/lab/align") is None


def test_permissions_of_a_role_end_at_the_prefix(world: World) -> None:
    """A role for one prefix pulls through no other."""
    one, other = world.cached(), world.cached()
    repositories = f"arn:aws:ecr:us-east-1:123456789012:repository/{one}/*"
    role = world.role(
        statement(["ecr:GetAuthorizationToken"]), statement([*PULL, *IMPORT], repositories)
    )
    assert world.pull(world.image(one, "lab/align:latest"), role) == ""
    assert "not authorized" in world.pull(world.image(other, "lab/align:latest"), role)


def test_policies_of_ecr_give_and_take(world: World, puller: str) -> None:
    """The registry's policy may allow what the role's does not, a repository's may deny it."""
    prefix = world.cached()
    role = world.puller(*PULL)
    arn = f"arn:aws:ecr:us-east-1:123456789012:repository/{prefix}/*"
    text = policy(statement(IMPORT, arn, Principal={"AWS": role}))
    world.ecr.put_registry_policy(policyText=text)
    image = world.image(prefix, "lab/align:latest")
    assert world.pull(image, role) == ""
    world.ecr.delete_registry_policy()
    closed = {"Effect": "Deny", "Principal": "*", "Action": "ecr:*"}
    world.ecr.set_repository_policy(repositoryName=f"{prefix}/lab/align", policyText=policy(closed))
    assert "with an explicit deny in a resource-based policy" in world.pull(image, puller)


def test_deleted_repository_is_fetched_again(world: World, puller: str) -> None:
    """Nothing of it is left to be served."""
    prefix = world.cached()
    image = world.image(prefix, "lab/count:latest")
    assert world.pull(image, puller) == ""
    world.ecr.delete_repository(repositoryName=f"{prefix}/lab/count", force=True)
    world.aws.set_upstreams({"ghcr.io": "127.0.0.1:1"})
    assert "Requested image not found" in world.pull(image, puller)
    world.aws.set_upstreams({"ghcr.io": world.registries["ghcr.io"].host})
    assert world.pull(image, puller) == ""


def test_pull_needs_a_token(world: World, puller: str) -> None:
    """Not even a cached image comes without."""
    image = world.image(world.cached(), "lab/align:latest")
    assert world.pull(image, puller) == ""
    with pytest.raises(PullError, match="no basic auth credentials"):
        world.engine.pull(image)
    with pytest.raises(PullError, match="unauthorized: authentication required"):
        world.engine.pull(image, {"username": "AWS", "password": "nonsense"})


# Jobs


@pytest.fixture(scope="module")
def queue(world: World) -> str:
    """A queue whose instances have credentials for no registry, and the pull's permissions."""
    role = world.role(statement(IMPORT), attached=[EC2_ROLE]).rpartition("/")[2]
    world.iam.create_instance_profile(InstanceProfileName="cached")
    world.iam.add_role_to_instance_profile(InstanceProfileName="cached", RoleName=role)
    batch = world.aws.client("batch")
    batch.create_compute_environment(
        computeEnvironmentName="cached",
        type="MANAGED",
        computeResources={
            "type": "EC2",
            "allocationStrategy": "BEST_FIT_PROGRESSIVE",
            "minvCpus": 0,
            "maxvCpus": 4,
            "instanceTypes": ["m7i"],
            "instanceRole": "cached",
            "subnets": world.aws.subnet_ids,
            "securityGroupIds": world.aws.security_group_ids,
        },
    )
    batch.create_job_queue(
        jobQueueName="cached",
        priority=1,
        computeEnvironmentOrder=[{"order": 1, "computeEnvironment": "cached"}],
    )
    return "cached"


def run(world: World, queue: str, image: str, **container: Any) -> dict[str, Any]:
    """Run a job to its end, and return it."""
    batch = world.aws.client("batch")
    needs = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "64"}]
    definition = batch.register_job_definition(
        jobDefinitionName="lab",
        type="container",
        containerProperties={"image": image, "resourceRequirements": needs, **container},
    )["jobDefinitionArn"]
    job_id = batch.submit_job(jobName="lab", jobQueue=queue, jobDefinition=definition)["jobId"]
    end = time.monotonic() + 60
    while time.monotonic() < end:
        (job,) = batch.describe_jobs(jobs=[job_id])["jobs"]
        if job["status"] in ("SUCCEEDED", "FAILED"):
            return job
        time.sleep(0.05)
    raise TimeoutError(job["status"])


def test_job_pulls_with_the_instance_roles_token(world: World, queue: str) -> None:
    """Its instance knows of no registry."""
    job = run(world, queue, world.image(world.cached(), "lab/align"), command=["true"])
    assert job["status"] == "SUCCEEDED", job


def test_job_pulls_with_its_execution_roles_token(world: World, queue: str) -> None:
    """Where a job definition has such a role, the instance's counts for nothing."""
    image = world.image(world.cached(), "lab/align")
    without = run(world, queue, image, executionRoleArn=world.role(statement(PULL)))
    reason = without["container"]["reason"]
    assert reason.startswith("CannotPullECRContainerError: operation error ECR: GetAuthorizationT")
    assert "api error AccessDeniedException: User: arn:aws:sts::" in reason
    narrow = run(world, queue, image, executionRoleArn=world.puller(*PULL))
    assert narrow["container"]["reason"].startswith("CannotPullImageManifestError: Error response")
    assert "does not exist in the registry with id" in narrow["container"]["reason"]


# What stays behind


def test_engine_trusts_ecrs_certificate_for_ecrs_host(world: World) -> None:
    """It asks on port 80 where this fails, so that no pull would show it."""
    etc = world.endpoint.etc
    address = (etc / "hosts").read_text().split()[-2]
    certificate = etc / "docker/certs.d" / world.aws.ecr_host / "ca.crt"
    context = ssl.create_default_context(cafile=str(certificate))
    with (
        socket.create_connection((address, 443)) as plain,
        context.wrap_socket(plain, server_hostname=world.aws.ecr_host) as secure,
    ):
        assert secure.version() == "TLSv1.3"


def test_no_password_is_left_in_a_file(world: World) -> None:
    """Neither where ECR keeps images, nor on the instances, nor in a log."""
    files = {path: path.read_bytes() for path in world.aws.log.parent.rglob("*") if path.is_file()}
    assert any(path.name == "docker-registry.log" for path in files)
    for password in (PASSWORD, "second one", "first:b"):
        texts = (password, quote(password, safe=""), json.dumps(password)[1:-1])
        for path, content in files.items():
            assert not any(text.encode() in content for text in texts), path
