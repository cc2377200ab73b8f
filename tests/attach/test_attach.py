"""Attaching credentials to an environment of any origin, and giving back what was there."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from attach_archives import ACCEPTED, REFUSED, multipart, shell
from attach_lab import KEPT, LOGIN, THEIRS, Lab, without_template
from lab.forwarder import Forwarder

from batchreg.attach.survey import Standing
from batchreg.cli.console import TextScreen
from batchreg.cli.status import lines_of_attachment

SPECIFICATIONS: dict[str, Callable[[Lab], dict[str, Any] | None]] = {
    "none": lambda lab: None,
    "by id": lambda lab: {"launchTemplateId": lab.template("base", THEIRS, KeyName="k")},
    "by name, $Latest": lambda lab: {
        "launchTemplateName": lab.template("base", THEIRS) and f"{lab.name}-base",
        "version": "$Latest",
    },
    "$Default": lambda lab: {
        "launchTemplateId": lab.template("base", THEIRS),
        "version": "$Default",
    },
    "number": lambda lab: {"launchTemplateId": lab.template("base", THEIRS), "version": "1"},
    "without user data": lambda lab: {
        "launchTemplateId": lab.template("base", ImageId="ami-12345678")
    },
    "one override": lambda lab: {
        "launchTemplateId": lab.template("base", THEIRS),
        "version": "$Latest",
        "overrides": [
            {
                "launchTemplateId": lab.template("big", THEIRS, KeyName="big"),
                "version": "1",
                "targetInstanceTypes": ["m7i"],
            }
        ],
    },
    "ten overrides": lambda lab: {
        "launchTemplateId": lab.template("base", THEIRS),
        "overrides": [
            {
                "launchTemplateId": lab.template(f"o{number}", THEIRS, KeyName=f"k{number}"),
                "targetInstanceTypes": [f"m{number}i"],
            }
            for number in range(1, 11)
        ],
    },
}


@pytest.mark.parametrize("name", SPECIFICATIONS)
def test_attach_and_detach_change_the_launch_template_and_nothing_else(lab, run, name):
    """Before, attached, and after, field by field."""
    specification = SPECIFICATIONS[name](lab)
    lab.make(specification)
    before = lab.environment
    theirs = lab.versions_in_use() if specification else [{}]
    run("attach", lab.name, "--yes")
    assert without_template(lab.environment) == without_template(before)
    assert lab.environment["status"] == "VALID"
    for old, new in zip(theirs, lab.versions_in_use(), strict=True):
        assert {**old, "UserData": ""} == {**new, "UserData": ""}
    if b"theirs" in lab.user_data():
        assert lab.user_data().startswith(THEIRS.removesuffix(b"--==MYBOUNDARY==--\n"))
    assert b"/opt/batchreg/registry_login.py" in lab.user_data()
    assert lab.outputs["ComputeEnvironmentArn"] == before["computeEnvironmentArn"]
    run("detach", lab.name, "--yes")
    assert lab.environment == {**before, "statusReason": lab.environment["statusReason"]}
    assert lab.companion is None


def test_attach_again_changes_nothing(lab, run):
    """The same command continues where it was interrupted, and has nothing to do at the end."""
    lab.make({"launchTemplateId": lab.template("base", THEIRS)})
    run("attach", lab.name, "--yes")
    before, stack = lab.environment, lab.companion
    result = run("attach", lab.name, **KEPT)
    assert "has the registry credentials" in result.stderr
    assert (lab.environment, lab.companion) == (before, stack)
    # With credentials, which may have changed, the plan says what stays.
    again = run("attach", lab.name, "--yes").stderr
    assert f"{lab.name} itself does not change, and no instance is replaced" in again
    assert "Launch template" not in again
    assert lab.environment == before
    # A parameter that is part of the user data replaces instances, and the plan says so.
    dry = run("attach", lab.name, "--credential-refresh-minutes", "7", "--dry-run", **KEPT).stderr
    assert "New instances replace the running ones" in dry


def test_new_version_of_the_base_template_is_merged_again(lab, run):
    """$Latest means what it means today."""
    lab.make({"launchTemplateId": lab.template("base", THEIRS), "version": "$Latest"})
    run("attach", lab.name, "--yes")
    newer = multipart(shell("echo newer > /etc/theirs"))
    lab.template("base", newer)
    run("attach", lab.name, "--yes")
    assert b"echo newer" in lab.user_data()
    assert lab.specification["version"] == "2"
    run("detach", lab.name, "--yes")
    assert lab.specification == {"launchTemplateId": lab.templates["base"], "version": "$Latest"}


def test_queue_names_its_environment(lab, run):
    """Most people know their queue."""
    lab.make()
    run("attach", lab.name, "--yes")
    queue = lab.outputs["JobQueueArn"]
    result = run("attach", queue, **KEPT)
    assert "has the registry credentials" in result.stderr
    detached = run("detach", lab.name, "--yes").stderr
    assert f"{lab.name} has no launch template then, as before" in detached
    assert f"Updating {lab.name}: it gives up batchreg's launch template." in detached


def test_queue_with_two_environments_names_them(lab, run, aws):
    """Jobs may run in any: attach each."""
    other = Lab(aws, f"{lab.name}b").make(queue=False)
    lab.make(queue=False)
    lab.batch.create_job_queue(
        jobQueueName=f"{lab.name}q",
        priority=1,
        state="ENABLED",
        computeEnvironmentOrder=[
            {"order": 1, "computeEnvironment": lab.name},
            {"order": 2, "computeEnvironment": other.name},
        ],
    )
    before = [each.environment for each in (lab, other)]
    result = run("attach", f"{lab.name}q", "--yes", status=1)
    assert f"{lab.name}, {other.name}" in result.stderr
    assert lab.companion is None
    status = run("status", "--queue", f"{lab.name}q").stdout
    for each in (lab, other):
        assert f"To add some: batchreg attach {each.name}\n" in status
    for each in (lab, other):
        run("attach", each.name, "--yes")
        assert b"/opt/batchreg/" in each.user_data()
    for each, was in zip((lab, other), before, strict=True):
        run("detach", each.name, "--yes")
        assert {**each.environment, "statusReason": ""} == {**was, "statusReason": ""}
        assert each.companion is None


WRITERS = {
    "a script named zzz.sh that writes ecs.config": multipart(
        shell("echo ECS_CLUSTER=theirs > /etc/ecs/ecs.config", name="zzz.sh")
    ),
    "a runcmd that writes ecs.config": multipart(
        "Content-Type: text/cloud-config\n\n#cloud-config\nruncmd:\n"
        "- [sh, -c, 'echo ECS_CLUSTER=theirs > /etc/ecs/ecs.config']\n"
    ),
    "credentials by hand": multipart(
        shell("echo 'ECS_ENGINE_AUTH_DATA={\"quay.io\": {}}' >> /etc/ecs/ecs.config")
    ),
    "CRLF": ACCEPTED["CRLF in the archive, LF in the script"],
    "another boundary": ACCEPTED["boundary of AWS Batch"],
    "5 KB long": multipart(shell(*["# as somebody's scripts are"] * 180)),
}
KINDS = {
    **{
        name: ACCEPTED[name]
        for name in (
            *("several shell scripts", "cloud-config", "boothook", "base64", "never closed"),
            *("nested", "script without #!"),
        )
    },
    **WRITERS,
}


@pytest.mark.parametrize("name", KINDS)
def test_user_data_of_each_kind_is_attached_and_comes_back(lab, run, name):
    """tests/e2e/test_attach_boot.py shows that it runs."""
    lab.make({"launchTemplateId": lab.template("base", KINDS[name])})
    before = lab.environment
    run("attach", lab.name, "--yes")
    assert b"/opt/batchreg/registry_login.py" in lab.user_data()
    assert without_template(lab.environment) == without_template(before)
    run("detach", lab.name, "--yes")
    assert {**lab.environment, "statusReason": ""} == {**before, "statusReason": ""}
    assert lab.companion is None


def test_user_data_that_leaves_no_room_changes_nothing(lab, run):
    """Of 11 KB, say; the refusal says by how much, and what works without any."""
    data = multipart(shell(*["# as somebody's scripts are"] * 400))
    assert 11_000 < len(data) < 12_000
    lab.make({"launchTemplateId": lab.template("base", data)})
    before = lab.environment
    result = run("attach", lab.name, "--yes", status=1)
    assert "the limit is 15,360. Shorten it by " in result.stderr
    assert "as submit does with --auth job" in result.stderr
    assert (lab.environment, lab.companion) == (before, None)


def test_user_data_that_cannot_be_joined_changes_nothing(lab, run):
    """The refusal names the template and the way that works."""
    template = lab.template("base", THEIRS)
    lab.make({"launchTemplateId": template, "version": "$Latest"})
    lab.template("base", REFUSED["script"][0])
    result = run("attach", lab.name, "--yes", status=1)
    assert "not a MIME archive" in result.stderr
    assert "--auth job" in result.stderr
    assert lab.companion is None


@pytest.mark.parametrize(
    ("choices", "fact"),
    [
        ({"resources": {"allocationStrategy": "BEST_FIT"}}, "allocation strategy is BEST_FIT"),
        (
            {"serviceRole": "arn:aws:iam::123456789012:role/batch"},
            "service role is arn:aws:iam::123456789012:role/batch",
        ),
        ({"type": "UNMANAGED"}, "UNMANAGED"),
    ],
)
def test_environment_that_cannot_be_updated_is_refused_and_not_touched(lab, run, choices, fact):
    """Terraform's defaults among them."""
    lab.make(queue=False, **choices)
    before = lab.environment
    result = run("attach", lab.name, "--yes", status=1)
    assert fact in result.stderr
    assert lab.companion is None
    assert lab.environment == before


def test_dry_run_shows_the_plan_and_changes_nothing(lab, run):
    """And needs no password."""
    lab.make({"launchTemplateId": lab.template("base", THEIRS), "version": "$Latest"})
    before = lab.environment
    result = run("attach", lab.name, "--dry-run", BATCHREG_PASSWORD="")
    assert f"a copy of {lab.templates['base']}, version $Latest, which is 1" in result.stderr
    assert "No job runs now; jobs that start meanwhile may continue for 30 minutes" in result.stderr
    assert "Dry run" in result.stderr
    assert lab.companion is None
    assert lab.environment == before


def test_no_terminal_and_no_yes_changes_nothing(lab, run):
    """Whoever scripts it says so."""
    lab.make()
    run("attach", lab.name, status=2)
    assert lab.companion is None
    assert lab.specification is None


def test_somebody_elses_change_is_taken_for_the_original(lab, run):
    """The next attach starts from what is there, and says so."""
    lab.make({"launchTemplateId": lab.template("base", THEIRS)})
    run("attach", lab.name, "--yes")
    other = {"launchTemplateId": lab.template("other", THEIRS, KeyName="other"), "version": "1"}
    lab.batch.update_compute_environment(
        computeEnvironment=lab.name, computeResources={"launchTemplate": other}
    )
    result = run("attach", lab.name, "--yes")
    assert "Somebody has changed the launch template" in result.stderr
    assert lab.versions_in_use()[0]["KeyName"] == "other"
    run("detach", lab.name, "--yes")
    assert lab.specification == other


def test_detach_leaves_somebody_elses_launch_template(lab, run):
    """Nothing of theirs is overwritten."""
    lab.make()
    run("attach", lab.name, "--yes")
    other = {"launchTemplateId": lab.template("other", THEIRS), "version": "1"}
    lab.batch.update_compute_environment(
        computeEnvironment=lab.name, computeResources={"launchTemplate": other}
    )
    result = run("detach", lab.name, "--yes")
    assert "It keeps what it has now" in result.stderr
    assert lab.specification == other
    assert lab.companion is None


def test_detach_of_a_changed_override_gives_back_only_ours(lab, run):
    """An override that somebody has added stays."""
    base = {"launchTemplateId": lab.template("base", THEIRS), "version": "$Latest"}
    lab.make(base)
    run("attach", lab.name, "--yes")
    added = {
        "launchTemplateId": lab.template("other", THEIRS),
        "version": "1",
        "targetInstanceTypes": ["m7i"],
    }
    lab.batch.update_compute_environment(
        computeEnvironment=lab.name,
        computeResources={"launchTemplate": {**lab.specification, "overrides": [added]}},
    )
    result = run("detach", lab.name, "--yes")
    assert "only batchreg's are replaced" in result.stderr
    assert lab.specification == {**base, "overrides": [added]}
    assert lab.companion is None


def test_detach_of_an_environment_that_is_gone_deletes_the_stack(lab, run):
    """By the name of the stack, as the environment's is not known any more."""
    lab.make()
    run("attach", lab.name, "--yes")
    lab.batch.update_job_queue(jobQueue=lab.name, state="DISABLED")
    lab.batch.delete_job_queue(jobQueue=lab.name)
    lab.batch.update_compute_environment(computeEnvironment=lab.name, state="DISABLED")
    lab.batch.delete_compute_environment(computeEnvironment=lab.name)
    run("detach", "--stack-name", lab.stack_name, "--yes")
    assert lab.companion is None


def test_detach_of_what_was_never_attached_says_so(lab, run):
    """It is no failure."""
    lab.make()
    assert "nothing to detach" in run("detach", lab.name, "--yes").stderr


def test_update_policy_of_the_environment_comes_back(lab, run):
    """It was somebody's decision."""
    lab.make()
    lab.batch.update_compute_environment(
        computeEnvironment=lab.name,
        updatePolicy={"terminateJobsOnUpdate": False, "jobExecutionTimeoutMinutes": 90},
    )
    before = lab.environment
    result = run("attach", lab.name, "--yes", "--job-timeout-minutes", "5")
    assert "may continue for 5 minutes" in result.stderr
    run("detach", lab.name, "--yes", "--terminate-jobs")
    assert lab.environment["updatePolicy"] == before["updatePolicy"]


def test_secret_holds_the_credentials_and_lets_the_role_read_it(lab, run, aws):
    """The role itself is as it was."""
    lab.make()
    run("attach", lab.name, "--yes", "--registry-url", "ghcr.io")
    manager = aws.client("secretsmanager")
    arn = lab.outputs["RegistrySecretArn"]
    secret = json.loads(manager.get_secret_value(SecretId=arn)["SecretString"])
    assert secret == {
        "username": "lab",
        "password": LOGIN["BATCHREG_PASSWORD"],
        "registry_url": "ghcr.io",
    }
    policy = json.loads(manager.get_resource_policy(SecretId=arn)["ResourcePolicy"])
    (statement,) = policy["Statement"]
    assert statement["Principal"]["AWS"].endswith(f":role/{lab.name}-ecs")
    assert lab.iam.list_role_policies(RoleName=f"{lab.name}-ecs")["PolicyNames"] == []


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"resources": {"allocationStrategy": "BEST_FIT"}},
        {"serviceRole": "arn:aws:iam::123456789012:role/batch"},
    ],
    ids=["updatable", "best fit", "service role"],
)
def test_emit_changes_nothing_and_needs_no_password(lab, run, choices):
    """It goes to stdout, for one's own code: also where no update in place is possible."""
    lab.make({"launchTemplateId": lab.template("base", THEIRS)}, **choices)
    before = lab.environment
    for form, word in {
        "terraform": 'resource "aws_launch_template"',
        "cdk": "addRegistryCredentials",
        "cloudformation": "AWS::EC2::LaunchTemplate",
    }.items():
        result = run("attach", lab.name, "--emit", form)
        assert word in result.stdout
        assert LOGIN["BATCHREG_PASSWORD"] not in result.stdout
    assert lab.companion is None
    assert lab.environment == before


def test_other_commands_work_on_a_companion_stack_or_name_the_one_that_does(lab, run):
    """It has the outputs of a stack that batchreg deploys."""
    lab.make({"launchTemplateId": lab.template("base", THEIRS), "version": "$Latest"})
    run("attach", lab.name, "--yes")
    stack = ("--stack-name", lab.stack_name)
    text = run("status", *stack).stdout
    assert f"Attached             yes  {lab.name}, created by" in text
    rotated = run("rotate", *stack, "--no-check", "--yes", BATCHREG_PASSWORD="next")
    assert "has a new password" in rotated.stderr
    assert "SUCCEEDED" in run("submit", *stack, "ghcr.io/lab/align:3").stderr
    (queue,) = lab.batch.describe_job_queues(jobQueues=[lab.name])["jobQueues"]
    assert f"'{queue['jobQueueArn']}'" in run("engine", "nextflow", *stack).stdout
    assert "SUCCEEDED" in run("submit", *stack, "--auth", "job", "ghcr.io/lab/align:3").stderr
    refused = run("deploy", *stack, "--yes", status=1)
    assert f"To change it: batchreg attach {lab.name}" in refused.stderr
    assert "role-denied" not in run("doctor", *stack).stdout
    run("destroy", *stack, "--yes")
    assert lab.companion is None
    assert lab.specification == {"launchTemplateId": lab.templates["base"], "version": "$Latest"}


def test_status_shows_a_newer_base_template_and_a_reverted_one(lab, run):
    """What the environment's owner does later."""
    base = {"launchTemplateId": lab.template("base", THEIRS), "version": "$Latest"}
    lab.make(base)
    run("attach", lab.name, "--yes")
    lab.template("base", THEIRS, KeyName="newer")
    stack = ("--stack-name", lab.stack_name)
    text = run("status", *stack).stdout
    assert f"Launch template      newer  {lab.templates['base']}: 1 → 2" in text
    standing = json.loads(run("status", *stack, "--json").stdout)["attached"]
    assert standing["uses"] == "ours"
    lab.batch.update_compute_environment(
        computeEnvironment=lab.name, computeResources={"launchTemplate": base}
    )
    text = run("status", *stack).stdout
    assert f"Attached             reverted  {lab.name}" in text
    assert f"batchreg attach {lab.name}" in text
    run("attach", lab.name, "--yes", **KEPT)
    assert "Attached             yes" in run("status", *stack).stdout


def test_status_of_an_attachment_that_begins_does_not_call_it_reverted():
    """The environment has its own launch template until the companion stack is complete."""
    seen = Standing(environment="theirs", created_by="a script", uses="theirs", newer=())
    for stack, state in (("CREATE_IN_PROGRESS", "not yet"), ("CREATE_COMPLETE", "reverted")):
        first, second = lines_of_attachment(seen, stack, TextScreen())
        assert first == f"Attached             {state}  theirs, created by a script"
        assert "batchreg attach theirs" in second


def test_dry_run_takes_at_most_eight_round_trips_one_after_another(lab, batchreg, aws):
    """On AWS each takes a tenth of a second."""
    lab.make(SPECIFICATIONS["one override"](lab))
    with Forwarder(aws.endpoint) as calls:
        environ = {**aws.environ, **LOGIN, "AWS_ENDPOINT_URL": calls.url}
        assert batchreg("attach", lab.name, "--dry-run", environ=environ).returncode == 0
    longest: list[int] = []
    found = sorted(calls.calls, key=lambda call: call.began)
    for call in found:
        before = [
            length
            for length, earlier in zip(longest, found, strict=False)
            if earlier.ended <= call.began
        ]
        longest.append(1 + max(before, default=0))
    assert max(longest) <= 8


def test_wrong_password_is_refused_before_anything_is_created(lab, run, serve):
    """The registry is asked first; --no-check skips that."""
    lab.make()
    address = f"http://{serve().host}"
    arguments = ("attach", lab.name, "--yes", "--registry-url", address, "--username", "ada")
    result = run(*arguments, status=1, BATCHREG_PASSWORD="wrong", BATCHREG_NO_CHECK="")
    assert "No changes were made" in result.stderr
    assert lab.companion is None
    run(*arguments, "--no-check", BATCHREG_PASSWORD="wrong")
    assert lab.companion


def test_secret_of_ones_own_is_read_through_the_role(lab, run, aws):
    """Their secret's policy is theirs."""
    lab.make()
    secret = {"username": "u", "password": "p", "registry_url": "ghcr.io"}
    arn = aws.client("secretsmanager").create_secret(
        Name=lab.name, SecretString=json.dumps(secret)
    )["ARN"]
    given = ("--secret-arn", arn)
    result = run("attach", lab.name, "--yes", *given, **KEPT)
    assert "gets an inline policy" in result.stderr
    (policy,) = lab.iam.list_role_policies(RoleName=f"{lab.name}-ecs")["PolicyNames"]
    document = lab.iam.get_role_policy(RoleName=f"{lab.name}-ecs", PolicyName=policy)
    assert arn in json.dumps(document["PolicyDocument"])
    run("detach", lab.name, "--yes")
    assert lab.iam.list_role_policies(RoleName=f"{lab.name}-ecs")["PolicyNames"] == []
