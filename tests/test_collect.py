"""What doctor looks at: how answers of AWS's become facts, and what a failure costs."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError, NoCredentialsError
from botocore.stub import Stubber
from stubs import ARN, NOW, Stubs, client, session

from batchreg.doctor import collect, facts
from batchreg.doctor.collect import batch, instances
from batchreg.doctor.collect.calls import Absent, Caller, Unseen
from batchreg.registry import check as registry
from batchreg.stack.states import Stack


class TestCaller:
    def test_failure_is_a_gap_with_the_permission_that_it_takes(self, stubbed_ec2: Stubs) -> None:
        """The user can ask an administrator for exactly this."""
        stubbed_ec2.ec2.add_client_error(
            "describe_route_tables", "UnauthorizedOperation", "No.", 403
        )
        with pytest.raises(Unseen):
            stubbed_ec2.caller.ask("route tables", "ec2", "describe_route_tables")
        (gap,) = stubbed_ec2.caller.gaps.values()
        assert (gap.what, gap.permission) == ("route tables", "ec2:DescribeRouteTables")
        assert gap.reason.startswith("AWS rejected DescribeRouteTables: No.")

    def test_permissions_are_named_as_policies_name_them(self) -> None:
        """The client is called service-quotas, and the permission is not."""
        stubs = Stubs("service-quotas")
        stubs.stubs["service-quotas"].add_client_error(
            "get_service_quota", "AccessDeniedException", "No.", 400
        )
        assert instances.quota(stubs.caller, ["m7i"], spot=False) is None
        (gap,) = stubs.caller.gaps.values()
        assert gap.permission == "servicequotas:GetServiceQuota"

    def test_what_aws_does_not_know_is_no_gap(self, stubbed_ec2: Stubs) -> None:
        """That it is missing is itself a fact."""
        stubbed_ec2.ec2.add_client_error(
            "describe_launch_template_versions", "InvalidLaunchTemplateId.NotFound", "No.", 400
        )
        with pytest.raises(Absent):
            stubbed_ec2.caller.ask("launch template", "ec2", "describe_launch_template_versions")
        assert not stubbed_ec2.caller.gaps

    @pytest.mark.parametrize("code", ["ExpiredTokenException", "UnrecognizedClientException"])
    def test_whoever_has_no_credentials_learns_that(self, stubbed_ec2: Stubs, code: str) -> None:
        """Not a list of thirty facts that could not be looked at."""
        stubbed_ec2.ec2.add_client_error("describe_subnets", code, "No.", 403)
        with pytest.raises(Exception, match=code):
            stubbed_ec2.caller.ask("subnets", "ec2", "describe_subnets")

    def test_all_pages_are_read(self, stubbed_ec2: Stubs) -> None:
        """A VPC may have more subnets than one answer holds."""
        stubbed_ec2.ec2.add_response(
            "describe_subnets", {"Subnets": [{"SubnetId": "a"}], "NextToken": "more"}
        )
        stubbed_ec2.ec2.add_response("describe_subnets", {"Subnets": [{"SubnetId": "b"}]})
        found = stubbed_ec2.caller.ask("subnets", "ec2", "describe_subnets", items="Subnets")
        assert [one["SubnetId"] for one in found] == ["a", "b"]

    def test_no_call_outlasts_the_deadline_of_all(self) -> None:
        """One begun late has what is left; the thread that hangs does not keep the program."""
        never = threading.Event()
        started = time.monotonic()
        caller = Caller(client, seconds=0.2)
        for what in ("first", "second"):
            with pytest.raises(Unseen):
                caller.run(what, "ec2:DescribeX", never.wait)
        assert time.monotonic() - started < 2
        assert [gap.reason for gap in caller.gaps.values()] == ["no answer within 0.2 s"] * 2
        hung = [thread for thread in threading.enumerate() if "work" in thread.name]
        assert [thread.daemon for thread in hung] == [True]
        never.set()

    def test_unexpected_answer_is_a_gap(self, stubbed_ec2: Stubs) -> None:
        """A bug there, or an AWS of the future, costs one fact."""
        with pytest.raises(Unseen):
            stubbed_ec2.caller.run("x", "ec2:DescribeX", lambda: {}["missing"])
        assert [gap.reason for gap in stubbed_ec2.caller.gaps.values()] == ["KeyError"]


def test_job_is_told_without_its_command_and_variables() -> None:
    """They may hold anything."""
    found = batch.job(
        {
            "jobId": "1",
            "jobName": "align",
            "jobQueue": "arn:aws:batch:r:1:job-queue/q",
            "status": "FAILED",
            "statusReason": "Task failed to start",
            "createdAt": 1782907200000,
            "platformCapabilities": ["FARGATE"],
            "container": {
                "image": "ghcr.io/lab/align:3",
                "command": ["canary"],
                "reason": "CannotPull: no",
                "environment": [{"name": "TOKEN", "value": "canary"}],
                "exitCode": 1,
                "repositoryCredentials": {"credentialsParameter": ARN},
                "executionRoleArn": "arn:aws:iam::111122223333:role/jobs",
                "resourceRequirements": [
                    {"type": "VCPU", "value": "0.25"},
                    {"type": "MEMORY", "value": "512"},
                    {"type": "GPU", "value": "1"},
                ],
            },
            "attempts": [
                {"container": {"reason": "first"}},
                {"container": {"reason": "second"}, "statusReason": "Host EC2 terminated"},
            ],
        },
        asked=True,
    )
    assert found == facts.Job(
        id="1",
        name="align",
        asked=True,
        queue="q",
        status="FAILED",
        exit_code=1,
        reasons=(
            "CannotPull: no",
            "Task failed to start",
            "second",
            "Host EC2 terminated",
            "first",
        ),
        image="ghcr.io/lab/align:3",
        vcpus=0.25,
        memory=512,
        gpus=1,
        fargate=True,
        own_credentials=True,
        execution_role="arn:aws:iam::111122223333:role/jobs",
        created="2026-07-01T12:00:00+00:00",
    )


class Queue:
    """A client of AWS Batch with jobs in a queue; a state in `refused` is not listed."""

    def __init__(self, jobs: list[dict[str, Any]], refused: str = "") -> None:
        self.meta, self._jobs, self._refused = client("batch").meta, jobs, refused

    def list_jobs(self, *, jobStatus: str, **_: Any) -> Any:
        if jobStatus == self._refused:
            raise ClientError({"Error": {"Code": "AccessDenied"}}, "ListJobs")
        return {"jobSummaryList": [job for job in self._jobs if job["status"] == jobStatus]}

    def describe_jobs(self, *, jobs: list[str]) -> Any:
        return {"jobs": [job for job in self._jobs if job["jobId"] in jobs]}


def job(number: int, status: str, minutes: float, **container: Any) -> dict[str, Any]:
    """Return a job that ended, or was submitted, so many minutes ago."""
    then = int((NOW - timedelta(minutes=minutes)).timestamp() * 1000)
    return {
        "jobId": str(number),
        "status": status,
        "createdAt": then,
        "stoppedAt": then,
        "container": {"image": f"ghcr.io/lab/{number}", **container},
    }


class TestJobs:
    JOBS = (
        job(1, "RUNNABLE", 90),
        job(2, "STARTING", 5),
        job(3, "FAILED", 5, exitCode=1, reason="exec format error"),
        job(4, "FAILED", 59),
        job(5, "FAILED", 61),
        job(6, "RUNNING", 600),
        job(7, "SUCCEEDED", 1),
    )
    PULL = "CannotPullImageManifestError: Error response from daemon: no basic auth credentials"

    def test_jobs_that_wait_or_failed_within_the_hour_are_found(self) -> None:
        """With an exit code too, which AWS's summaries have: it says nothing of the cause."""
        found = batch.jobs(Caller(lambda _: Queue([*self.JOBS])), "q", NOW)
        assert [one["jobId"] for one in found.stuck] == ["1", "2", "3", "4"]
        assert (found.running, found.running_images, found.whole) == (1, ("ghcr.io/lab/6",), True)

    @pytest.mark.parametrize(
        ("status", "minutes", "changes", "left"),
        [
            ("SUCCEEDED", 5, {}, []),
            ("RUNNING", 5, {}, []),
            ("SUCCEEDED", 15, {}, ["1"]),  # it was before
            ("SUCCEEDED", 5, {"image": "ghcr.io/lab/2"}, ["1"]),
            ("SUCCEEDED", 5, {"repositoryCredentials": {"credentialsParameter": "x"}}, ["1"]),
        ],
    )
    def test_image_that_has_been_pulled_since_is_no_failure_any_more(
        self, status: str, minutes: float, changes: dict[str, Any], left: list[str]
    ) -> None:
        """After attach, say: the job of before still stands in the list for an hour."""
        failed = job(1, "FAILED", 10, reason=self.PULL)
        other = job(2, status, minutes, **{"image": "ghcr.io/lab/1", **changes})
        other["startedAt"] = other["createdAt"]
        found = batch.jobs(Caller(lambda _: Queue([failed, other])), "q", NOW)
        assert [one["jobId"] for one in found.stuck] == left

    def test_other_failures_stay_whatever_has_succeeded_since(self) -> None:
        """The same image may have run another command."""
        failed = job(1, "FAILED", 10, reason="OutOfMemoryError", exitCode=137)
        other = {
            **job(2, "SUCCEEDED", 5, image="ghcr.io/lab/1"),
            "startedAt": NOW.timestamp() * 1e3,
        }
        found = batch.jobs(Caller(lambda _: Queue([failed, other])), "q", NOW)
        assert [one["jobId"] for one in found.stuck] == ["1"]

    @pytest.mark.parametrize(
        ("refused", "running", "whole"), [("RUNNING", None, True), ("FAILED", 1, False)]
    )
    def test_state_that_could_not_be_listed_is_not_taken_for_empty(
        self, refused: str, running: int | None, whole: bool
    ) -> None:
        """Else doctor would say that no job has failed."""
        caller = Caller(lambda _: Queue([*self.JOBS], refused))
        found = batch.jobs(caller, "q", NOW)
        assert (found.running, found.whole) == (running, whole)
        assert [gap.permission for gap in caller.gaps.values()] == ["batch:ListJobs"]


def test_first_failure_is_the_one_that_deploy_names() -> None:
    """What was cancelled in consequence of a failure is not it, however that is spelled."""
    stubs = Stubs("cloudformation")

    def event(number: int, resource: str, reason: str) -> dict[str, Any]:
        return {
            "StackId": "stack/lab/1",
            "EventId": str(number),
            "StackName": "lab",
            "LogicalResourceId": resource,
            "PhysicalResourceId": resource,
            "ResourceType": "AWS::X::Y",
            "Timestamp": NOW + timedelta(seconds=number),
            "ResourceStatus": "CREATE_FAILED",
            "ResourceStatusReason": reason,
            "ClientRequestToken": "t",
        }

    happened = [
        event(1, "InstanceRole", "Resource creation Cancelled"),
        event(2, "ComputeEnvironment", "The Spot request was cancelled by its owner"),
    ]
    newest_first = {"StackEvents": happened[::-1]}
    stubs.cloudformation.add_response("describe_stack_events", newest_first)
    stubs.cloudformation.add_response("describe_stack_events", newest_first)
    present = Stack(
        name="lab",
        id="stack/lab/1",
        status="ROLLBACK_COMPLETE",
        reason="",
        parameters={},
        outputs={},
        tags={},
        role_arn=None,
        protected=False,
    )
    assert batch.cause(stubs.caller, present) == (
        "ComputeEnvironment (AWS::X::Y): The Spot request was cancelled by its owner."
    )


class Refusing:
    """A client that is allowed nothing, or answers what one test wants."""

    def __init__(self, service: str, code: str) -> None:
        self._client, self._code = client(service), code
        self.meta = self._client.meta

    def __getattr__(self, name: str) -> Any:
        if name not in self.meta.method_to_api_mapping:
            return getattr(self._client, name)

        def call(**_: Any) -> Any:
            stub = Stubber(self._client)
            stub.add_client_error(name, self._code, "No.", 403)
            with stub:
                return getattr(self._client, name)()

        return call

    def get_paginator(self, name: str) -> Any:
        return type("Pages", (), {"paginate": lambda _, **request: [getattr(self, name)()]})()


def test_user_without_any_permission_gets_a_list_of_them() -> None:
    """Nothing is known, nothing is claimed, and nothing fails."""
    made = {
        service: Refusing(service, "AccessDenied") for service in ("cloudformation", "batch", "iam")
    }
    found = collect.collect(
        made.__getitem__, collect.Scope(stack="lab", region="eu-central-1", job="1"), now=NOW
    )
    assert {gap.permission for gap in found.not_looked_at} == {
        "cloudformation:DescribeStacks",
        "batch:DescribeJobs",
        "iam:GetRole",
    }
    assert (found.stack, found.jobs, found.service_linked_role) == (None, None, None)


def test_missing_credentials_are_an_error_and_not_a_gap() -> None:
    """The command then says how to log in."""
    bare = session().create_client("cloudformation", region_name="eu-central-1")
    bare._request_signer._credentials = None
    with pytest.raises(NoCredentialsError):
        collect.collect(
            lambda service: (
                bare if service == "cloudformation" else Refusing(service, "AccessDenied")
            ),
            collect.Scope(stack="lab", region="eu-central-1"),
            now=NOW,
        )


def test_job_alone_leads_to_its_queue_and_compute_environment(made: Any) -> None:
    """Where CloudFormation may not be asked, or the stack is not batchreg's."""
    made.aws.client("batch").register_job_definition(
        jobDefinitionName="x",
        type="container",
        containerProperties={
            "image": "ghcr.io/lab/align:3",
            "resourceRequirements": [
                {"type": "VCPU", "value": "1"},
                {"type": "MEMORY", "value": "512"},
            ],
        },
    )
    job = made.aws.client("batch").submit_job(
        jobName="x", jobQueue=made.outputs["JobQueueArn"], jobDefinition="x"
    )["jobId"]
    asked = []

    def check(image: Any, login: Any, **_: Any) -> registry.Verdict:
        asked.append((image.name, login))
        return registry.Verdict(image.name, True, "ok", "", "", {})

    found = collect.collect(
        lambda service: (
            Refusing(service, "AccessDenied")
            if service == "cloudformation"
            else made.aws.client(service)
        ),
        collect.Scope(stack="lab", region="us-east-1", job=job),
        check=check,
        seconds=30,  # the embedded AWS takes its time to load a service
    )
    assert found.stack is None
    assert found.environments
    assert found.environments[0].name in made.outputs["ComputeEnvironmentArn"]
    assert found.launch_template
    assert found.launch_template.fetches_credentials
    assert found.role
    assert found.role.in_profile
    assert found.subnets
    assert len(found.subnets) == 3
    assert asked == [("ghcr.io/lab/align:3", None)]
