"""Deploying a pull-through cache into an account that may have one already."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from account import LOGIN, Account

AWS_CLI = str(Path(sys.executable).parent)
GHCR = ("--registry-url", "ghcr.io", "--default-vpc", "--pull-through-cache")


@pytest.fixture
def deploy(batchreg, account):
    def run(*arguments: str, status: int = 0, **environ: str) -> subprocess.CompletedProcess[str]:
        result = batchreg(
            *("deploy", "--stack-name", account.name, "--yes", *arguments),
            environ={**account.aws.environ, **LOGIN, **environ},
        )
        assert result.returncode == status, result.stderr
        return result

    return run


@pytest.fixture
def ecr(account: Account):
    return account.aws.client("ecr")


def somebodys_rule(account: Account, prefix: str) -> None:
    secret = account.aws.client("secretsmanager").create_secret(
        Name=f"ecr-pullthroughcache/{account.name}",
        SecretString=json.dumps({"username": "eve", "accessToken": "theirs"}),
    )["ARN"]
    account.aws.client("ecr").create_pull_through_cache_rule(
        ecrRepositoryPrefix=prefix, upstreamRegistryUrl="ghcr.io", credentialArn=secret
    )


def test_prefix_that_a_rule_has_already_is_refused(deploy, account, ecr):
    """Before anything is created; another prefix is the way on."""
    somebodys_rule(account, f"{account.name}/ghcr")
    refused = deploy(*GHCR, status=1)
    assert f"with the prefix {account.name}/ghcr already, for ghcr.io" in refused.stderr
    assert "--cache-prefix" in refused.stderr
    assert account.stack is None
    made = deploy(*GHCR, "all", "--cache-prefix", f"{account.name}b")
    assert f"already, with the prefix {account.name}/ghcr" in made.stderr
    assert account.outputs["CacheRepositoryPrefix"] == f"{account.name}b/ghcr"
    ecr.delete_pull_through_cache_rule(ecrRepositoryPrefix=f"{account.name}/ghcr")


def test_prefix_of_one_more_cached_registry_is_checked_as_well(deploy, account, ecr, tmp_path):
    """It brings no parameter, so that nothing else would be looked at."""
    registries = [f"{host},username=lab,password=env:P" for host in ("ghcr.io", "docker-hub")]
    both = [word for one in registries for word in ("--registry", one)]
    environ = {"BATCHREG_USERNAME": "", "BATCHREG_PASSWORD": "", "P": "secret-of-the-lab"}
    deploy("--default-vpc", *both, "--pull-through-cache", "ghcr.io", **environ)
    ecr.create_pull_through_cache_rule(
        ecrRepositoryPrefix=f"{account.name}/hub", upstreamRegistryUrl="quay.io"
    )
    settings = tmp_path / "batchreg.yaml"
    settings.write_text("pull_through_cache: true\n")
    refused = deploy("--config", str(settings), status=1, **environ)
    assert f"with the prefix {account.name}/hub already" in refused.stderr
    assert "No changes were made" in refused.stderr
    ecr.delete_pull_through_cache_rule(ecrRepositoryPrefix=f"{account.name}/hub")
    settings.write_text("pull_through_cache: false\n")
    deploy("--config", str(settings), **environ)
    assert "CacheRepositoryPrefix" not in account.outputs


def test_creation_template_of_the_prefix_is_refused(deploy, account, ecr):
    """It would decide what our repositories are like."""
    ecr.create_repository_creation_template(prefix=account.name, appliedFor=["PULL_THROUGH_CACHE"])
    refused = deploy(*GHCR, status=1)
    assert f"repository creation template with the prefix {account.name} already" in refused.stderr
    assert account.stack is None
    ecr.delete_repository_creation_template(prefix=account.name)


def test_prefix_with_somebodys_rule_below_it_is_refused(deploy, account, ecr):
    """Our expiry would delete their images: ECR applies the template to all below its prefix."""
    somebodys_rule(account, f"{account.name}/theirs")
    refused = deploy(*GHCR, status=1)
    assert f"with the prefix {account.name} already: {account.name}/theirs" in refused.stderr
    assert account.stack is None
    ecr.delete_pull_through_cache_rule(ecrRepositoryPrefix=f"{account.name}/theirs")
    deploy(*GHCR)


def test_secrets_of_ones_own_are_refused_with_a_cache(deploy, account):
    """In words that are about them, not about a list of registries that is empty."""
    arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:own-AbCdEf"
    for value in ("all", "ghcr.io"):
        refused = deploy(
            *("--secret-arn", arn, "--default-vpc", "--pull-through-cache", value), status=1
        )
        assert "--pull-through-cache cannot be used with --secret-arn" in refused.stderr


def test_deploy_again_finds_its_own_rule_in_order(deploy, account):
    """And a new prefix makes new rules before the old ones go."""
    deploy(*GHCR)
    assert "nothing to change" in deploy(BATCHREG_PASSWORD="", BATCHREG_USERNAME="").stderr
    deploy("--cache-prefix", f"{account.name}c", "--cache-days", "7")
    assert account.outputs["CacheRepositoryPrefix"] == f"{account.name}c/ghcr"
    assert account.secret.keys() == {"username", "accessToken"}


def test_secret_that_was_changed_by_hand_is_repaired_in_ecrs_form(deploy, account, batchreg):
    """Rotate writes it as the template does; ECR does not read the form of the instances."""
    deploy(*GHCR)
    instances = {"username": "lab", "password": LOGIN["BATCHREG_PASSWORD"]}
    instances["registry_url"] = "ghcr.io"
    account.aws.client("secretsmanager").put_secret_value(
        SecretId=account.outputs["RegistrySecretArn"], SecretString=json.dumps(instances)
    )
    rotated = batchreg(
        *("rotate", "--stack-name", account.name, "--yes", "--no-check"),
        environ={**account.aws.environ, **LOGIN},
    )
    assert rotated.returncode == 0, rotated.stderr
    assert "a working secret again. ECR uses it with its next pull" in rotated.stderr
    assert account.secret == {"username": "lab", "accessToken": LOGIN["BATCHREG_PASSWORD"]}


def test_regions_without_a_cache_are_refused(deploy, account):
    """Before anything is created, in the region that is meant."""
    refused = deploy(*GHCR, "--region", "cn-north-1", status=1)
    assert "cannot pull from ghcr.io in cn-north-1" in refused.stderr


def test_destroy_says_how_to_delete_what_ecr_has_cached(deploy, account, batchreg, ecr):
    """The command that it prints does that, and no more."""
    deploy(*GHCR)
    names = [f"{account.name}/ghcr/lab/align", f"{account.name}/own", f"{account.name}x/other"]
    for name in names:
        ecr.create_repository(repositoryName=name)
    gone = batchreg("destroy", "--stack-name", account.name, "--yes", environ=account.aws.environ)
    assert gone.returncode == 0, gone.stderr
    command = gone.stderr.partition("To delete them: ")[2]
    path = f"{AWS_CLI}:/usr/bin:/bin"
    done = subprocess.run(
        ["sh", "-c", command],
        env={**account.aws.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    left = [one["repositoryName"] for one in ecr.describe_repositories()["repositories"]]
    assert [name for name in names if name in left] == names[1:]
