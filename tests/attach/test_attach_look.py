"""What attach sees of an environment, and what it refuses before it changes anything."""

from __future__ import annotations

from typing import Any

import attach_archives
import botocore.session
import pytest
from attach_archives import multipart, shell
from attach_environments import ARN, answer, bases, env, version
from botocore.validate import validate_parameters

from batchreg.attach import environment, look, update
from batchreg.attach.environment import Environment, TemplateReference, UpdatePolicy
from batchreg.attach.update import TemplateVersion
from batchreg.errors import BatchregError


def refused(found: Environment, **options: Any) -> str:
    return " ".join(
        str(BatchregError(one.fact, one.step, one.command))
        for one in look.refusals(found, **options)
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"resources": {"type": "SPOT", "allocationStrategy": "SPOT_PRICE_CAPACITY_OPTIMIZED"}},
        {"resources": {"ec2Configuration": []}},
        {"resources": {"imageId": "ami-1"}},
        {"state": "DISABLED"},
        {"status": "UPDATING"},
    ],
)
def test_what_can_be_updated_in_place_is_not_refused(changes):
    """Most environments that the console or the CDK made."""
    assert refused(env(**changes)) == ""


@pytest.mark.parametrize(
    ("changes", "fact", "step"),
    [
        ({"type": "UNMANAGED", "computeResources": {}}, "UNMANAGED", "batchreg user-data"),
        ({"resources": {"type": "FARGATE"}}, "Fargate", "batchreg deploy --fargate"),
        ({"resources": {"type": "FARGATE_SPOT"}}, "Fargate", "batchreg deploy --fargate"),
        ({"resources": {"type": "ECS_MANAGED_INSTANCES"}}, "Managed Instances", "--auth job"),
        ({"containerOrchestrationType": "EKS"}, "EKS", "imagePullSecrets"),
        (
            {"eksConfiguration": {"eksClusterArn": "a"}, "containerOrchestrationType": "EKS"},
            "EKS",
            "",
        ),
        ({"status": "DELETING"}, "being deleted", "another"),
    ],
)
def test_environments_that_no_update_helps_are_refused_with_the_way_that_works(changes, fact, step):
    """And blue/green does not change that."""
    for options in ({}, {"updates": False}):
        text = refused(env(**changes), **options)
        assert fact in text
        assert step in text
        assert "--blue-green" not in text


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        ({"status": "INVALID", "statusReason": "CLIENT_ERROR - INVALIDATED."}, "INVALID: CLIENT"),
        ({"status": "INVALID", "statusReason": ""}, "genomics is INVALID. "),
        ({"serviceRole": "arn:aws:iam::1:role/batch"}, "service role is arn:aws:iam::1:role/batch"),
        ({"resources": {"allocationStrategy": "BEST_FIT"}}, "strategy is BEST_FIT."),
    ],
)
def test_environments_that_cannot_be_updated_in_place_name_blue_green(changes, fact):
    """With it they are attached."""
    text = refused(env(**changes))
    assert fact in text
    assert "--blue-green" in text
    assert refused(env(**changes), updates=False) == ""


def test_missing_allocation_strategy_is_best_fit():
    """Describe leaves the default out."""
    without = answer()
    del without["computeResources"]["allocationStrategy"]
    assert "BEST_FIT" in refused(environment.read(without))


def test_every_kind_and_status_of_botocore_is_judged():
    """A new one must not be attached without a decision."""
    model = botocore.session.get_session().get_service_model("batch")
    assert set(model.shape_for("CRType").enum) == {
        "EC2",
        "SPOT",
        "FARGATE",
        "FARGATE_SPOT",
        "ECS_MANAGED_INSTANCES",
    }
    assert set(model.shape_for("OrchestrationType").enum) == {"ECS", "EKS"}
    strategies = set(model.shape_for("CRUpdateAllocationStrategy").enum)
    assert strategies == set(environment.UPDATABLE_STRATEGIES)


@pytest.mark.parametrize(
    ("name", "tags", "creator"),
    [
        ("TowerForge-3skcexigeJwK0Jb71pThbJ", {}, "Seqera Forge"),
        ("BatchEnv5A5F9F1C-Zq2ABCDEFGHIJKL", {}, "AWS CDK"),
        ("e", {"aws:cloudformation:logical-id": "EnvironmentABCDEF12"}, "AWS CDK"),
        ("e", {"aws:cloudformation:stack-name": "lab"}, "CloudFormation"),
        ("lab-20231105123456789000000001", {}, "Terraform"),
        ("e", {"ManagedBy": "terraform"}, "Terraform"),
        ("genomics", {"team": "lab"}, environment.UNKNOWN.name),
    ],
)
def test_creator_is_guessed_from_names_and_tags(name, tags, creator):
    """It decides what happens to the change later."""
    assert environment.created_by(env(computeEnvironmentName=name, tags=tags)).name == creator


def test_queues_are_found_by_arn_and_by_name():
    """computeEnvironmentOrder may hold either."""

    def queue(name: str, *environments: str) -> dict[str, Any]:
        return {
            "jobQueueName": name,
            "jobQueueArn": f"arn:{name}",
            "state": "ENABLED",
            "status": "VALID",
            "computeEnvironmentOrder": [
                {"order": len(environments) - i, "computeEnvironment": environment}
                for i, environment in enumerate(environments)
            ],
        }

    answers = [queue("a", ARN), queue("b", "other"), queue("c", "other", "genomics")]
    a, c = environment.queues(answers, env())
    assert (a.name, c.name) == ("a", "c")
    assert c.environments == ("genomics", "other")


def test_only_jobs_on_instances_count_as_running():
    """An update may end them; a waiting job waits on."""
    summaries = [{"status": status} for status in ("RUNNABLE", "STARTING", "RUNNING", "SUBMITTED")]
    assert environment.running_jobs(summaries) == 2


def test_amazon_linux_2_is_recognised():
    """A custom image is nobody's guess."""
    for kind, expected in [("ECS_AL2", True), ("ECS_AL2_NVIDIA", True), ("ECS_AL2023", False)]:
        assert env(resources={"ec2Configuration": [{"imageType": kind}]}).amazon_linux_2 is expected
    assert env(resources={"ec2Configuration": []}).amazon_linux_2 is False


SPECIFICATION = {
    "launchTemplateId": "lt-1",
    "version": "$Latest",
    "overrides": [
        {"launchTemplateName": "gpu", "version": "3", "targetInstanceTypes": ["g4dn"]},
        {"launchTemplateId": "lt-3", "targetInstanceTypes": ["c7g.large", "m7g"]},
    ],
}


def test_references_are_the_template_and_its_overrides_in_order():
    """A version that is not given is $Default."""
    found = env(resources={"launchTemplate": SPECIFICATION})
    assert found.template == TemplateReference(id="lt-1", version="$Latest")
    assert found.overrides == (
        TemplateReference(name="gpu", version="3", targets=("g4dn",)),
        TemplateReference(id="lt-3", version="$Default", targets=("c7g.large", "m7g")),
    )
    assert [reference.moves for reference in (found.template, *found.overrides)] == [
        True,
        False,
        True,
    ]
    assert not env().template


def test_environment_without_a_template_gets_one_with_nothing_but_ours():
    """The rest stays Batch's default."""
    (base,) = bases(env())
    (copied,), refusals = look.judge([base])
    assert refusals == ()
    assert (copied.copy.data, copied.archive.parts) == ({}, ())


def test_all_that_cannot_be_copied_is_listed_at_once():
    """Nobody should find out one by one."""
    found = env(resources={"launchTemplate": SPECIFICATION})
    three = bases(
        found,
        version("base", 7, b"#!/bin/sh\n"),
        version("gpu", 3, None, SecondaryInterfaces=[{"DeviceIndex": 1}]),
        version("Batch-lt-4711", 1, multipart(shell("true"))),
    )
    copies, refusals = look.judge(three)
    assert copies == ()
    assert [refusal.fact.split(" which")[0] for refusal in refusals] == [
        "The user data of base (version 7) is not a MIME archive.",
        "CloudFormation cannot set SecondaryInterfaces,",
        "Batch-lt-4711 is a launch template that AWS Batch made for itself.",
    ]
    assert all(refusal.step.endswith(".") for refusal in refusals)


def test_notes_name_the_template_and_the_line():
    """What the owner should know before our part runs beside theirs."""
    scripts = shell(
        "systemctl start ecs",
        "echo ECS_ENGINE_AUTH_TYPE=docker >> /etc/ecs/ecs.config",
        "amazon-linux-extras install docker",
    )
    found = env(resources={"launchTemplate": {"launchTemplateName": "base"}})
    data = multipart(scripts)
    copies, _ = look.judge(
        bases(found, version("base", 7, data, ElasticGpuSpecifications=[{"Type": "x"}]))
    )
    gpu, blocking, own = look.notes(copies)
    assert gpu.startswith("base: ElasticGpuSpecifications is left out")
    assert blocking.startswith("base: part 1, line 2 starts the ECS agent")
    assert own.startswith("base: part 1, line 3 sets registry credentials by hand")
    assert look.amazon_linux_2_lines(copies) == ("base, part 1, line 4: amazon-linux-extras",)


COPIES = (TemplateVersion("lt-a", "1"), TemplateVersion("lt-b", "2"), TemplateVersion("lt-b", "2"))


def valid(request: dict[str, Any]) -> dict[str, Any]:
    """Check a request as botocore does, and return it."""
    model = botocore.session.get_session().get_service_model("batch")
    shape = model.operation_model("UpdateComputeEnvironment").input_shape
    validate_parameters(request, shape)
    return request


def test_update_sends_all_overrides_and_no_role():
    """Without overrides Batch would take all away; a role would ask for iam:PassRole."""
    found = env(resources={"launchTemplate": SPECIFICATION})
    request = valid(update.attach_request(found, COPIES, UpdatePolicy(job_timeout_minutes=60)))
    assert request == {
        "computeEnvironment": ARN,
        "computeResources": {
            "launchTemplate": {
                "launchTemplateId": "lt-a",
                "version": "1",
                "overrides": [
                    {"launchTemplateId": "lt-b", "version": "2", "targetInstanceTypes": ["g4dn"]},
                    {
                        "launchTemplateId": "lt-b",
                        "version": "2",
                        "targetInstanceTypes": ["c7g.large", "m7g"],
                    },
                ],
            }
        },
        "updatePolicy": {"terminateJobsOnUpdate": False, "jobExecutionTimeoutMinutes": 60},
    }


def test_update_of_an_environment_without_overrides_sends_none():
    """And the image type only where somebody asked for another."""
    request = valid(update.attach_request(env(), COPIES[:1], UpdatePolicy()))
    assert request["computeResources"] == {
        "launchTemplate": {"launchTemplateId": "lt-a", "version": "1"}
    }
    request = valid(
        update.attach_request(env(), COPIES[:1], UpdatePolicy(), image_type="ECS_AL2023")
    )
    assert request["computeResources"]["ec2Configuration"] == [{"imageType": "ECS_AL2023"}]


def test_update_keeps_the_type_of_user_data():
    """It belongs to the reference, not to the template."""
    specification = {"launchTemplateId": "lt-1", "userdataType": "EKS_NODEADM"}
    found = env(resources={"launchTemplate": specification})
    request = valid(update.attach_request(found, COPIES[:1], UpdatePolicy()))
    assert request["computeResources"]["launchTemplate"]["userdataType"] == "EKS_NODEADM"


@pytest.mark.parametrize(
    "specification",
    [
        SPECIFICATION,
        {"launchTemplateName": "base", "version": "$Default"},
        {"launchTemplateId": "lt-1", "version": "4"},
        {"launchTemplateId": "lt-1"},
    ],
)
def test_restoring_sends_exactly_what_was_there(specification):
    """`$Latest` stays `$Latest`."""
    request = valid(update.restore_request(ARN, specification, UpdatePolicy()))
    assert request["computeResources"] == {"launchTemplate": specification}


def test_restoring_nothing_takes_the_template_away():
    """An empty id does that."""
    request = valid(update.restore_request(ARN, None, UpdatePolicy()))
    assert request["computeResources"] == {"launchTemplate": {"launchTemplateId": ""}}


def test_restoring_sends_an_id_or_a_name_and_never_both():
    """AWS Batch refuses both."""
    both = {"launchTemplateId": "lt-1", "launchTemplateName": "base", "version": "1"}
    request = update.restore_request(ARN, {**both, "overrides": [both]}, UpdatePolicy())
    sent = request["computeResources"]["launchTemplate"]
    assert sent == {
        "launchTemplateId": "lt-1",
        "version": "1",
        "overrides": [{"launchTemplateId": "lt-1", "version": "1"}],
    }


def test_specifications_that_mean_the_same_are_the_same():
    """Whoever changed something in between must be noticed, and nobody else."""
    same = update.same_templates
    assert same(None, {})
    assert same(None, {"overrides": []})
    assert same({"launchTemplateId": "lt-1"}, {"launchTemplateId": "lt-1", "version": "$Default"})
    assert same(SPECIFICATION, {**SPECIFICATION, "userdataType": ""})
    assert not same(SPECIFICATION, {**SPECIFICATION, "overrides": SPECIFICATION["overrides"][:1]})
    assert not same({"launchTemplateId": "lt-1", "version": "1"}, {"launchTemplateId": "lt-1"})
    assert not same(SPECIFICATION, None)


def test_every_accepted_archive_can_be_judged():
    """No structure makes the review stumble."""
    for data in attach_archives.ACCEPTED.values():
        found = env(resources={"launchTemplate": {"launchTemplateName": "base"}})
        copies, refusals = look.judge(bases(found, version("base", 1, data)))
        assert (len(copies), refusals) == (1, ())
