"""What doctor looks at: how answers of AWS's become facts, and what a failure costs."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from functools import cache
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import NoCredentialsError
from botocore.stub import Stubber

from batchreg.doctor import collect, facts
from batchreg.doctor.collect import batch, instances, network
from batchreg.doctor.collect import credentials as login
from batchreg.doctor.collect import redact as blot
from batchreg.doctor.collect.calls import Absent, Caller, Unseen, bounded
from batchreg.doctor.facts import Facts
from batchreg.registry import check as registry
from batchreg.render import userdata

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
ARN = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:team/ghcr-AbCdEf"
LOGIN = {"username": "lab", "password": "canary-4711", "registry_url": "ghcr.io"}


@cache
def session() -> Any:
    return botocore.session.get_session()


def client(service: str) -> Any:
    return session().create_client(
        service, region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="y"
    )


class Stubs:
    """Clients whose answers are given beforehand, in the order in which they are asked for."""

    def __init__(self, *services: str) -> None:
        self.clients = {service: client(service) for service in services}
        self.stubs = {service: Stubber(made) for service, made in self.clients.items()}
        for stub in self.stubs.values():
            stub.activate()
        self.asker = Caller(self.clients.__getitem__, seconds=5)

    def __getattr__(self, service: str) -> Stubber:
        return self.stubs[service]


@pytest.fixture
def ec2() -> Iterator[Stubs]:
    stubs = Stubs("ec2")
    yield stubs
    stubs.ec2.assert_no_pending_responses()


class TestAsker:
    def test_failure_is_a_gap_with_the_permission_that_it_takes(self, ec2: Stubs) -> None:
        """The user can ask an administrator for exactly this."""
        ec2.ec2.add_client_error("describe_route_tables", "UnauthorizedOperation", "No.", 403)
        with pytest.raises(Unseen):
            ec2.asker.ask("route tables", "ec2", "describe_route_tables")
        (gap,) = ec2.asker.gaps.values()
        assert (gap.what, gap.permission) == ("route tables", "ec2:DescribeRouteTables")
        assert gap.reason.startswith("AWS refuses DescribeRouteTables: No.")

    def test_permissions_are_named_as_policies_name_them(self) -> None:
        """The client is called service-quotas, and the permission is not."""
        stubs = Stubs("service-quotas")
        stubs.stubs["service-quotas"].add_client_error(
            "get_service_quota", "AccessDeniedException", "No.", 400
        )
        assert instances.quota(stubs.asker, ["m7i"], spot=False) is None
        (gap,) = stubs.asker.gaps.values()
        assert gap.permission == "servicequotas:GetServiceQuota"

    def test_what_aws_does_not_know_is_no_gap(self, ec2: Stubs) -> None:
        """That it is missing is itself a fact."""
        ec2.ec2.add_client_error(
            "describe_launch_template_versions", "InvalidLaunchTemplateId.NotFound", "No.", 400
        )
        with pytest.raises(Absent):
            ec2.asker.ask("launch template", "ec2", "describe_launch_template_versions")
        assert not ec2.asker.gaps

    @pytest.mark.parametrize("code", ["ExpiredTokenException", "UnrecognizedClientException"])
    def test_whoever_has_no_credentials_learns_that(self, ec2: Stubs, code: str) -> None:
        """Not a list of thirty facts that could not be looked at."""
        ec2.ec2.add_client_error("describe_subnets", code, "No.", 403)
        with pytest.raises(Exception, match=code):
            ec2.asker.ask("subnets", "ec2", "describe_subnets")

    def test_all_pages_are_read(self, ec2: Stubs) -> None:
        """A VPC may have more subnets than one answer holds."""
        ec2.ec2.add_response(
            "describe_subnets", {"Subnets": [{"SubnetId": "a"}], "NextToken": "more"}
        )
        ec2.ec2.add_response("describe_subnets", {"Subnets": [{"SubnetId": "b"}]})
        found = ec2.asker.ask("subnets", "ec2", "describe_subnets", items="Subnets")
        assert [one["SubnetId"] for one in found] == ["a", "b"]

    def test_no_call_takes_longer_than_its_time(self) -> None:
        """And the thread that hangs does not keep the program from ending."""
        never = threading.Event()
        started = time.monotonic()
        with pytest.raises(TimeoutError, match=r"no answer within 0\.1 s"):
            bounded(never.wait, 0.1)
        assert time.monotonic() - started < 2
        hung = [thread for thread in threading.enumerate() if "work" in thread.name]
        assert [thread.daemon for thread in hung] == [True]
        never.set()

    def test_unexpected_answer_is_a_gap(self, ec2: Stubs) -> None:
        """A bug there, or an AWS of the future, costs one fact."""
        with pytest.raises(Unseen):
            ec2.asker.run("x", "ec2:DescribeX", lambda: {}["missing"])
        assert [gap.reason for gap in ec2.asker.gaps.values()] == ["KeyError"]


class TestSecret:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (
                json.dumps(LOGIN),
                {"keys": ("username", "password", "registry_url"), "others": 0, "host": "ghcr.io"},
            ),
            (
                json.dumps({**LOGIN, "registry_url": "HTTPS://Registry.Example.com:5050/x"}),
                {
                    "keys": ("username", "password", "registry_url"),
                    "others": 0,
                    "host": "registry.example.com:5050",
                },
            ),
            (None, {"has_value": False}),
            ("ghp_token", {"is_json": False}),
            ('"ghp_token"', {"is_json": False}),
            ("[1]", {"is_json": False}),
            (
                '{"auths": {"ghcr.io": {"auth": "bGFiOmNhbmFyeQ=="}}}',
                {"keys": ("auths",), "others": 0, "problem": "it has no 'username'"},
            ),
            (
                '{"user": "lab", "canary-4711": "x"}',
                {"keys": ("user",), "others": 1, "problem": "it has no 'username'"},
            ),
            (
                json.dumps({**LOGIN, "registry_url": "myhost"}),
                {
                    "keys": ("username", "password", "registry_url"),
                    "others": 0,
                    "problem": "registry_url: myhost/x is Docker Hub's, so add a domain or port to myhost",
                },
            ),
        ],
    )
    def test_shape_is_told_without_values(self, text: str | None, expected: Any) -> None:
        """What people need to mend it, and nothing that an attacker needs."""
        assert login.shape(text) == expected

    def test_words_are_all_that_could_give_it_away(self) -> None:
        """The password, the pair as Docker encodes it, all of a secret of another shape."""
        pair = base64.b64encode(b"lab:canary-4711").decode()
        assert set(blot.words(json.dumps(LOGIN))) == {"canary-4711", pair}
        assert "ghp_token" in blot.words(" ghp_token\n")
        assert {"deep-4711", "list-4711"} <= set(
            blot.words('{"auths": {"ghcr.io": {"auth": "deep-4711"}}, "x": ["list-4711"]}')
        )

    def test_words_are_blotted_out_however_deep(self) -> None:
        """Of AWS's own messages, of a job's reason, of a console line."""
        seen = Facts(
            jobs=(facts.Job(id="1", reasons=("login lab:canary-4711 failed",)),),
            role=facts.Role(name="r", denied=(("a", "canary-4711"),)),
        )
        shown = blot.without(seen, blot.words(json.dumps(LOGIN)))
        assert shown.jobs[0].reasons == ("login lab:******** failed",)
        assert shown.role.denied == (("a", "********"),)

    def test_secret_that_may_not_be_read_is_there_all_the_same(self) -> None:
        """Whoever may describe it and no more gets the facts but its shape."""
        stubs = Stubs("secretsmanager")
        stubs.secretsmanager.add_response(
            "describe_secret", {"ARN": ARN, "Name": "team/ghcr", "LastChangedDate": NOW}
        )
        stubs.secretsmanager.add_client_error(
            "get_secret_value", "AccessDeniedException", "No.", 400
        )
        read = login.secret(stubs.asker, ARN)
        assert read.fact == facts.Secret(
            name="team/ghcr", changed="2026-07-01T12:00:00+00:00", keys=("username", "password")
        )
        assert [gap.permission for gap in stubs.asker.gaps.values()] == [
            "secretsmanager:GetSecretValue"
        ]

    def test_key_of_the_secret_is_looked_at(self) -> None:
        """A key that waits for its deletion makes the secret unreadable."""
        stubs = Stubs("secretsmanager", "kms")
        key = "arn:aws:kms:eu-central-1:111122223333:key/1a2b"
        stubs.secretsmanager.add_response("describe_secret", {"ARN": ARN, "KmsKeyId": key})
        stubs.secretsmanager.add_response("get_secret_value", {"SecretString": json.dumps(LOGIN)})
        stubs.kms.add_response(
            "describe_key",
            {"KeyMetadata": {"KeyId": "1a2b", "KeyState": "PendingDeletion"}},
            {"KeyId": key},
        )
        read = login.secret(stubs.asker, ARN)
        assert (read.fact.key, read.fact.key_state) == (key, "PendingDeletion")
        assert "canary" not in repr(read)


def archive(*scripts: str) -> str:
    parts = MIMEMultipart()
    for script in scripts:
        parts.attach(MIMEText(script, "x-shellscript", "utf-8"))
    return parts.as_string()


class TestUserData:
    OURS = userdata.for_instance([ARN], "eu-central-1")

    def test_ours_is_what_it_should_be(self) -> None:
        """The healthy case."""
        assert login.user_data(base64.b64encode(self.OURS.encode()).decode(), self.OURS) == {
            "mime": True,
            "bytes": len(self.OURS),
            "has_login": True,
            "differs": False,
            "blocks": "",
        }

    @pytest.mark.parametrize(
        ("text", "mime"),
        [
            ("#!/bin/bash\necho\n", False),
            ("#cloud-config\n", False),
            ("", True),
            ("Content-Type: multipart/mixed; boundary=x\n\n--y\n", False),
            (archive("#!/bin/sh\n"), True),
        ],
    )
    def test_what_batch_cannot_merge_is_told(self, text: str, mime: bool) -> None:
        """It wants a MIME archive, or nothing."""
        found = login.user_data(base64.b64encode(text.encode()).decode(), None)
        assert (found["mime"], found["has_login"], found["differs"]) == (mime, False, None)

    @pytest.mark.parametrize(
        ("command", "blocks"),
        [
            ("systemctl restart ecs", True),
            ("sudo systemctl start ecs.service", True),
            ("systemctl restart docker", True),
            ("service docker restart ecs", True),
            ("systemctl enable --now ecs", True),
            ("systemctl enable --now --no-block ecs.service", False),
            ("systemctl --no-block restart ecs", False),
            ("systemctl restart nginx; ls /etc/ecs", False),
            ("# systemctl restart nginx # ecs", False),
            ("echo start ecs", False),
        ],
    )
    def test_command_that_waits_for_the_agent_is_found(self, command: str, blocks: bool) -> None:
        """In any part, in base64 too."""
        text = archive("#!/bin/sh\ntrue\n", f"#!/bin/sh\n{command} && é\n")
        found = login.user_data(base64.b64encode(text.encode()).decode(), None)
        assert bool(found["blocks"]) == blocks

    @pytest.mark.parametrize(
        ("wanted", "number"), [("1", 1), ("$Latest", 3), ("$Default", 2), ("", 2)]
    )
    def test_version_is_the_one_that_the_environment_uses(
        self, ec2: Stubs, wanted: str, number: int
    ) -> None:
        """Not the newest, which may be somebody's experiment."""
        ec2.ec2.add_response(
            "describe_launch_template_versions",
            {
                "LaunchTemplateVersions": [
                    {
                        "VersionNumber": version,
                        "DefaultVersion": version == 2,
                        "LaunchTemplateData": {"ImageId": f"ami-{version}"},
                    }
                    for version in (1, 2, 3)
                ]
            },
        )
        found = login.launch_template(
            ec2.asker, {"launchTemplateId": "lt-1", "version": wanted}, None
        )
        assert (found.version, found.latest, found.machine_image) == (number, 3, f"ami-{number}")

    def test_version_that_is_gone_is_a_fact(self, ec2: Stubs) -> None:
        """EC2 refuses the call as a whole."""
        ec2.ec2.add_client_error(
            "describe_launch_template_versions",
            "InvalidLaunchTemplateId.VersionNotFound",
            "No.",
            400,
        )
        found = login.launch_template(
            ec2.asker, {"launchTemplateName": "lab", "version": "7"}, None
        )
        assert found == facts.LaunchTemplate(id="lab", exists=False, version=7)


class TestRole:
    @pytest.mark.parametrize(
        ("service", "trusted"),
        [
            ("ec2.amazonaws.com", True),
            (["ecs-tasks.amazonaws.com", "ec2.amazonaws.com"], True),
            ("ec2.amazonaws.com.cn", True),
            ("ecs-tasks.amazonaws.com", False),
        ],
    )
    def test_role_is_asked_what_it_may(self, service: Any, trusted: bool) -> None:
        """By IAM's own simulation, with the condition that the key's policy has."""
        stubs = Stubs("iam")
        arn, when = "arn:aws:iam::111122223333:role/lab", {"CreateDate": NOW, "Path": "/"}
        key = "arn:aws:kms:eu-central-1:111122223333:key/1a2b"
        document = json.dumps({"Statement": {"Effect": "Allow", "Principal": {"Service": service}}})
        role = {
            "RoleName": "lab",
            "RoleId": "AROA0000000000000000",
            "Arn": arn,
            "AssumeRolePolicyDocument": document,
            **when,
        }
        stubs.iam.add_response(
            "get_instance_profile",
            {
                "InstanceProfile": {
                    "InstanceProfileName": "p",
                    "InstanceProfileId": "AIPA0000000000000000",
                    "Roles": [dict(role)],
                    "Arn": "arn:aws:iam::111122223333:instance-profile/p",
                    **when,
                }
            },
        )
        stubs.iam.add_response("get_role", {"Role": dict(role)})
        for actions, resource in (
            (list(login.ECS), "*"),
            (["secretsmanager:GetSecretValue"], ARN),
            (["kms:Decrypt"], key),
        ):
            stubs.iam.add_response(
                "simulate_principal_policy",
                {
                    "EvaluationResults": [
                        {
                            "EvalActionName": action,
                            "EvalResourceName": resource,
                            "EvalDecision": "implicitDeny" if resource == key else "allowed",
                        }
                        for action in actions
                    ]
                },
            )
        read = login.Read(facts.Secret(name="s", key=key), ARN)
        found = login.role(
            stubs.asker, "arn:aws:iam::111122223333:instance-profile/p", "", "eu-central-1", [read]
        )
        assert found == facts.Role(
            name="lab", profile="p", trusted=trusted, denied=(("kms:Decrypt", key),)
        )


class TestNetwork:
    def test_rules_are_read_as_they_are(self) -> None:
        """All ports, one port, a prefix list, a group; a network ACL's denial."""
        found = network.egress(
            {
                "sg-1": {
                    "IpPermissionsEgress": [
                        {
                            "IpProtocol": "-1",
                            "IpRanges": [{"CidrIp": "0.0.0.0/0"}],
                            "Ipv6Ranges": [{"CidrIpv6": "::/0"}],
                        },
                        {
                            "IpProtocol": "tcp",
                            "FromPort": 443,
                            "ToPort": 443,
                            "PrefixListIds": [{"PrefixListId": "pl-1"}],
                            "UserIdGroupPairs": [{"GroupId": "sg-2"}],
                        },
                    ]
                }
            }
        )
        assert [(one.protocol, one.first, one.last, one.target) for one in found] == [
            ("-1", 0, 65535, "0.0.0.0/0"),
            ("-1", 0, 65535, "::/0"),
            ("tcp", 443, 443, "pl-1"),
            ("tcp", 443, 443, "sg-2"),
        ]
        subnet = network.subnet(
            "s",
            {"SubnetId": "s", "VpcId": "v"},
            [],
            [
                {"VpcId": "v", "NetworkAclId": "acl-1", "IsDefault": True, "Entries": []},
                {
                    "VpcId": "v",
                    "NetworkAclId": "acl-2",
                    "Associations": [{"SubnetId": "s"}],
                    "Entries": [
                        {
                            "RuleNumber": 100,
                            "Egress": True,
                            "RuleAction": "deny",
                            "Protocol": "6",
                            "PortRange": {"From": 443, "To": 443},
                            "CidrBlock": "0.0.0.0/0",
                        }
                    ],
                },
            ],
        )
        assert (subnet.acl, subnet.acl_rules) == (
            "acl-2",
            (
                facts.AclRule(
                    number=100, egress=True, allows=False, protocol="6", first=443, last=443
                ),
            ),
        )

    @pytest.mark.parametrize(
        ("routes", "route", "works"),
        [
            ([], "", True),
            (
                [{"DestinationCidrBlock": "0.0.0.0/0", "NatGatewayId": "nat-1", "State": "active"}],
                "nat-1",
                True,
            ),
            (
                [
                    {
                        "DestinationCidrBlock": "0.0.0.0/0",
                        "NatGatewayId": "nat-1",
                        "State": "blackhole",
                    }
                ],
                "nat-1",
                False,
            ),
            ([{"DestinationCidrBlock": "10.0.0.0/8", "TransitGatewayId": "tgw-1"}], "", True),
        ],
    )
    def test_default_route_is_of_the_subnets_own_table(
        self, routes: Any, route: str, works: bool
    ) -> None:
        """The main table counts where it has none."""
        main = {
            "VpcId": "v",
            "Associations": [{"Main": True}],
            "Routes": [{"DestinationCidrBlock": "0.0.0.0/0", "GatewayId": "igw-1"}],
        }
        own = {"VpcId": "v", "Associations": [{"SubnetId": "s"}], "Routes": routes}
        raw = {"SubnetId": "s", "VpcId": "v"}
        found = network.subnet("s", raw, [main, own], None)
        assert (found.route, found.route_works) == (route, works)
        assert network.subnet("s", raw, [main], None).route == "igw-1"
        assert network.subnet("s", raw, None, None).route == "unknown"


class TestInstances:
    def test_console_is_read_as_far_as_it_is_registry_logins(self, ec2: Stubs) -> None:
        """Behind time stamps and process names; nobody else's lines."""
        text = (
            "[  12.1] cloud-init[1312]: batchreg: waiting for s: HTTP 400 Throttling\r\n"
            "Password: canary\nsystemd[1]: batchreg.service: Succeeded.\n"
            "batchreg: waiting for s: HTTP 400 Throttling\n"
            "batchreg: no registry login at all: powering off\n"
        )
        encoded = base64.b64encode(text.encode()).decode()
        ec2.ec2.add_client_error("get_console_output", "UnsupportedOperation", "Only Nitro.", 400)
        ec2.ec2.add_response("get_console_output", {"Output": encoded})
        assert instances.console(ec2.asker, "i-1") == (
            "waiting for s: HTTP 400 Throttling",
            "no registry login at all: powering off",
        )

    def test_instances_are_those_with_the_profile(self, ec2: Stubs) -> None:
        """AWS Batch starts them from a launch template of its own."""

        def raw(name: str, profile: str, hour: int) -> dict[str, Any]:
            return {
                "InstanceId": name,
                "State": {"Name": "running"},
                "LaunchTime": NOW - timedelta(hours=hour),
                "IamInstanceProfile": {
                    "Arn": f"arn:aws:iam::111122223333:instance-profile/{profile}"
                },
            }

        ec2.ec2.add_response(
            "describe_instances",
            {
                "Reservations": [
                    {"Instances": [raw("i-1", "p", 2), raw("i-2", "other", 1)]},
                    {"Instances": [raw("i-3", "p", 1)]},
                ]
            },
        )
        found = instances.running(ec2.asker, "p")
        assert [one["InstanceId"] for one in found] == ["i-3", "i-1"]
        shown = instances.instance(found[0], {"i-1": True}, ())
        assert (shown.agent, shown.launched) == (None, "2026-07-01T11:00:00+00:00")

    def test_agents_are_ecs_words(self) -> None:
        """Connected, not connected, or no cluster any more."""
        stubs = Stubs("ecs")
        stubs.ecs.add_response("list_container_instances", {"containerInstanceArns": ["a", "b"]})
        stubs.ecs.add_response(
            "describe_container_instances",
            {
                "containerInstances": [
                    {"ec2InstanceId": "i-1", "agentConnected": True},
                    {"ec2InstanceId": "i-2", "agentConnected": False},
                ]
            },
        )
        assert instances.agents(stubs.asker, "cluster") == {"i-1": True, "i-2": False}
        stubs.ecs.add_client_error("list_container_instances", "ClusterNotFoundException", "", 400)
        with pytest.raises(Absent):
            instances.agents(stubs.asker, "cluster")

    def test_launch_failures_are_ours_and_of_this_hour(self) -> None:
        """Other groups' failures, and last week's, explain nothing."""
        stubs = Stubs("autoscaling")

        def activity(group: str, minutes: int, text: str, code: str = "Failed") -> dict[str, Any]:
            return {
                "ActivityId": "1",
                "AutoScalingGroupName": group,
                "Cause": "c",
                "StartTime": NOW - timedelta(minutes=minutes),
                "StatusCode": code,
                "StatusMessage": text,
            }

        stubs.autoscaling.add_response(
            "describe_scaling_activities",
            {
                "Activities": [
                    activity("AWSBatch-lab-CE-asg-1", 5, "vCPU limit\n of 0"),
                    activity("AWSBatch-lab-CE-asg-1", 9, "vCPU limit of 0"),
                    activity("AWSBatch-lab-CE-asg-1", 90, "long ago"),
                    activity("AWSBatch-lab-CE-asg-1", 1, "fine", "Successful"),
                    activity("web", 5, "theirs"),
                ]
            },
        )
        assert instances.launch_failures(stubs.asker, ["lab-CE"], NOW) == ["vCPU limit of 0"]

    @pytest.mark.parametrize(
        ("kind", "spot", "code"),
        [
            ("m7i.large", False, "L-1216C47A"),
            ("optimal", True, "L-34B43A08"),
            ("g4dn", False, "L-DB2E81BA"),
            ("p4d.24xlarge", True, "L-7212CCBC"),
            ("c7g", False, "L-1216C47A"),
            ("t3", False, "L-1216C47A"),
            ("inf2", False, None),
            ("trn1", False, None),
            ("x2gd", False, None),
            ("u-6tb1", False, None),
            ("hpc7g", False, None),
            ("f2", False, None),
        ],
    )
    def test_quota_is_that_of_the_instance_types(
        self, kind: str, spot: bool, code: str | None
    ) -> None:
        """On-Demand and Spot are counted apart; what is rare is left alone."""
        stubs = Stubs("service-quotas")
        if code:
            stubs.stubs["service-quotas"].add_response(
                "get_service_quota",
                {"Quota": {"Value": 32.0}},
                {"ServiceCode": "ec2", "QuotaCode": code},
            )
        found = instances.quota(stubs.asker, [kind], spot=spot)
        assert (found and (found.code, found.value)) == (code and (code, 32.0))
        assert not stubs.asker.gaps


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
        own_login=True,
        created="2026-07-01T12:00:00+00:00",
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
        made.__getitem__, collect.Subject(stack="lab", region="eu-central-1", job="1"), now=NOW
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
            collect.Subject(stack="lab", region="eu-central-1"),
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
        collect.Subject(stack="lab", region="us-east-1", job=job),
        check=check,
    )
    assert found.stack is None
    assert found.environments
    assert found.environments[0].name in made.outputs["ComputeEnvironmentArn"]
    assert found.launch_template
    assert found.launch_template.has_login
    assert found.role
    assert found.role.in_profile
    assert found.subnets
    assert len(found.subnets) == 3
    assert asked == [("ghcr.io/lab/align:3", None)]
