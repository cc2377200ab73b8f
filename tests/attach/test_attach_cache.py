"""Attaching where ECR pulls the images: the environment itself stays as it is."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from attach_lab import KEPT, THEIRS, Lab
from lab.forwarder import Call, Forwarder

GHCR = ("--registry-url", "ghcr.io", "--yes")
CACHE = "--pull-through-cache"


def rules(lab: Lab) -> list[str]:
    found = lab.aws.client("ecr").describe_pull_through_cache_rules()["pullThroughCacheRules"]
    return [one["ecrRepositoryPrefix"] for one in found if lab.name in one["ecrRepositoryPrefix"]]


class CreatesFirst(Forwarder):
    """Creates a rule just before CloudFormation does, after all checks."""

    def __init__(self, target: str, ecr: Any, rule: dict[str, str]) -> None:
        super().__init__(target)
        self._ecr, self._rule = ecr, rule

    def before(self, call: Call) -> None:
        if call.operation == "ExecuteChangeSet":
            self._ecr.create_pull_through_cache_rule(**self._rule)


# What an update in place, or a launch template of ours, could not serve.
ENVIRONMENTS = {
    "plain": {},
    "BEST_FIT": {"resources": {"allocationStrategy": "BEST_FIT"}},
    "a role of its own": {"serviceRole": "arn:aws:iam::123456789012:role/batch"},
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_environment_is_not_touched(lab, run, name):
    """Not by attach, not by a second one, and not by detach."""
    lab.make({"launchTemplateId": lab.template("base", THEIRS)}, **ENVIRONMENTS[name])
    before = lab.environment
    attached = run("attach", lab.name, *GHCR, CACHE)
    assert "itself does not change" in attached.stderr
    assert rules(lab) == [f"batchreg-{lab.name}/ghcr"]
    assert not [name for name in lab.outputs if name.startswith("LaunchTemplate")]
    assert "nothing to change" in run("attach", lab.name, "--yes", **KEPT).stderr
    status = run("status", "--stack-name", lab.stack_name).stdout
    assert f"pulled through ECR as batchreg-{lab.name}/ghcr/..." in status
    assert f"Attached             yes  {lab.name}" in status
    detached = run("detach", lab.name, "--yes")
    assert "stays as it is" in detached.stderr
    assert "xargs" in detached.stderr
    assert (lab.environment, lab.companion, rules(lab)) == (before, None, [])


def test_user_data_that_nothing_can_be_added_to_does_not_matter(lab, run):
    """It need not even be an archive."""
    lab.make({"launchTemplateId": lab.template("base", b"#!/bin/sh\necho theirs\n")})
    run("attach", lab.name, *GHCR, status=1)
    run("attach", lab.name, *GHCR, CACHE)
    run("detach", lab.name, "--yes")


def test_from_the_instances_to_the_cache_and_back(lab, run):
    """The environment has its own launch template before the copy of it is deleted."""
    lab.make({"launchTemplateId": lab.template("base", THEIRS), "version": "$Latest"})
    before = lab.environment
    run("attach", lab.name, *GHCR)
    assert b"/opt/batchreg/" in lab.user_data()
    over = run("attach", lab.name, "--yes", CACHE, **KEPT)
    assert "gets back its own" in over.stderr
    assert "gets back its own launch template" in over.stderr
    assert {**lab.environment, "statusReason": ""} == {**before, "statusReason": ""}
    assert rules(lab) == [f"batchreg-{lab.name}/ghcr"]
    back = run("attach", lab.name, "--yes", CACHE, "none", **KEPT)
    assert "has the registry credentials" in back.stderr
    assert b"/opt/batchreg/" in lab.user_data()
    assert rules(lab) == []
    run("detach", lab.name, "--yes")
    assert {**lab.environment, "statusReason": ""} == {**before, "statusReason": ""}


def test_jobs_get_the_time_that_was_asked_for_on_the_way_to_the_cache(lab, run):
    """Not the environment's own limit, which it has again afterwards, also if a run was killed."""
    lab.make({"launchTemplateId": lab.template("base", THEIRS)})
    before = lab.environment
    own = {"terminateJobsOnUpdate": False, "jobExecutionTimeoutMinutes": 30}
    longer = {**own, "jobExecutionTimeoutMinutes": 600}
    run("attach", lab.name, *GHCR)
    proxy = lab.aws
    with Forwarder(proxy.endpoint) as seen:
        options = ("--job-timeout-minutes", "600", "--yes")
        place = {**KEPT, "AWS_ENDPOINT_URL": seen.url}
        shown = run("attach", lab.name, CACHE, *options, **place)
        updates = [json.loads(call.body) for call in seen.calls if "/v1/update" in call.operation]
    assert "may continue for 600 minutes" in shown.stderr
    assert [one["updatePolicy"] for one in updates] == [longer, own]
    run("attach", lab.name, "--yes", CACHE, "none", **KEPT)
    stand_in = {"computeEnvironment": lab.name, "updatePolicy": longer}
    template = before["computeResources"]["launchTemplate"]
    own_again = {"launchTemplateId": template["launchTemplateId"]}
    lab.batch.update_compute_environment(**stand_in, computeResources={"launchTemplate": own_again})
    run("detach", lab.name, *options)
    after = lab.environment
    assert after["updatePolicy"] == before.get("updatePolicy", own)


def test_failed_switch_says_that_the_instances_lack_credentials(lab, run):
    """CloudFormation rolls back; the command that it prints gives them back."""
    lab.make({"launchTemplateId": lab.template("base", THEIRS)})
    run("attach", lab.name, *GHCR)
    somebodys = {
        "ecrRepositoryPrefix": f"batchreg-{lab.name}/ghcr",
        "upstreamRegistryUrl": "quay.io",
    }
    with CreatesFirst(lab.aws.endpoint, lab.aws.client("ecr"), somebodys) as front:
        options = ("--yes", CACHE)
        failed = run("attach", lab.name, *options, **KEPT, AWS_ENDPOINT_URL=front.url, status=1)
    assert "new instances get no registry credentials" in failed.stderr
    assert b"/opt/batchreg/" not in lab.user_data()
    again = failed.stderr.partition("To give them back: batchreg ")[2].splitlines()[0]
    run(*shlex.split(again), "--yes", **KEPT)
    assert b"/opt/batchreg/" in lab.user_data()
    lab.aws.client("ecr").delete_pull_through_cache_rule(
        ecrRepositoryPrefix=somebodys["ecrRepositoryPrefix"]
    )
    run("detach", lab.name, "--yes")


def test_one_registry_is_cached_and_the_instances_have_the_other(lab, run):
    """A launch template for the one, a rule for the other."""
    lab.make()
    run(
        *("attach", lab.name, "--yes", CACHE, "ghcr.io"),
        *("--registry", "ghcr.io,username=ann,password=env:A"),
        *("--registry", "harbor.example.com,username=ben,password=env:B"),
        **KEPT,
        A="a",
        B="b",
    )
    assert lab.user_data().count(b"--secret-id=") == 1
    assert rules(lab) == [f"batchreg-{lab.name}/ghcr"]
    run("detach", lab.name, "--yes")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--blue-green",), "--blue-green has no effect"),
        (("--image-type", "ECS_AL2023"), "--image-type has no effect"),
        (("--emit", "terraform"), "batchreg render --pull-through-cache"),
    ],
)
def test_options_about_instances_are_refused(lab, run, options, message):
    """They would do nothing, which nobody who gives them expects."""
    lab.make()
    result = run("attach", lab.name, *GHCR, *options, CACHE, status=1)
    assert message in result.stderr
    assert lab.companion is None


def test_name_after_the_option_is_not_taken_for_a_registry_silently(lab, run):
    """`attach --pull-through-cache genomics` is easily written."""
    result = run("attach", *GHCR, CACHE, lab.name, status=2)
    assert "Missing argument 'NAME'" in result.stderr
