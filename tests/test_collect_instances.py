"""How the instances become facts."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

import pytest
from stubs import NOW, Stubs

from batchreg.doctor import facts
from batchreg.doctor.collect import instances
from batchreg.doctor.collect.calls import Absent
from batchreg.doctor.collect.instances import Agent
from batchreg.stack.console_lines import State, lines, state_of


class TestInstances:
    def test_console_is_read_as_far_as_it_is_registry_logins(self, stubbed_ec2: Stubs) -> None:
        """Behind time stamps and process names; nobody else's lines."""
        text = (
            "[  12.1] cloud-init[1312]: batchreg: waiting for s: HTTP 400 Throttling\r\n"
            "Password: canary\nsystemd[1]: batchreg.service: Succeeded.\n"
            "batchreg: waiting for s: HTTP 400 Throttling\n"
            "batchreg: no registry credentials: powering off\n"
        )
        encoded = base64.b64encode(text.encode()).decode()
        stubbed_ec2.ec2.add_client_error(
            "get_console_output", "UnsupportedOperation", "Only Nitro.", 400
        )
        stubbed_ec2.ec2.add_response("get_console_output", {"Output": encoded})
        assert instances.console(stubbed_ec2.caller, "i-1") == (
            "waiting for s: HTTP 400 Throttling",
            "no registry credentials: powering off",
        )

    @pytest.mark.parametrize(
        ("said", "state", "why"),
        [
            ([], State.UNKNOWN, ""),
            (["waiting for s: HTTP 400"], State.WAITING, "waiting for s: HTTP 400"),
            (["waiting for s", "parked: s: HTTP 400"], State.PARKED, "s: HTTP 400"),
            (["parked: s: HTTP 400", "waiting for s: x"], State.PARKED, "s: HTTP 400"),
            (["parked: s: HTTP 400", "released"], State.READY, "released"),
            (["parked: s", "released: ghcr.io", "parked: again"], State.PARKED, "again"),
            (
                ["f has the credentials for ghcr.io", "s: no"],
                State.READY,
                "f has the credentials for ghcr.io",
            ),
            (
                ["f has the credentials for ghcr.io"],
                State.READY,
                "f has the credentials for ghcr.io",
            ),
            (["continuing without credentials: s: x"], State.WITHOUT, "s: x"),
            (["continuing without credentials: s: x", "released"], State.READY, "released"),
            (["parked: s: x", "no registry credentials: powering off"], State.POWERED_OFF, "s: x"),
            (["s: HTTP 400", "no credentials: powering off"], State.POWERED_OFF, "s: HTTP 400"),
        ],
    )
    def test_console_tells_the_state_of_an_instance(
        self, said: list[str], state: State, why: str
    ) -> None:
        """The last word counts; a failed refresh costs no credentials."""
        output = "".join(f"[ 1.0] x[1]: batchreg: {line}\r\n" for line in said)
        assert state_of(lines(output)) == (state, why)

    def test_instances_are_those_with_the_profile(self, stubbed_ec2: Stubs) -> None:
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

        stubbed_ec2.ec2.add_response(
            "describe_instances",
            {
                "Reservations": [
                    {"Instances": [raw("i-1", "p", 2), raw("i-2", "other", 1)]},
                    {"Instances": [raw("i-3", "p", 1)]},
                ]
            },
        )
        found = instances.running(stubbed_ec2.caller, "p")
        assert [one["InstanceId"] for one in found] == ["i-3", "i-1"]
        shown = instances.instance(found[0], {"i-1": Agent(connected=True)}, ())
        assert (shown.agent, shown.launched) == (None, "2026-07-01T11:00:00+00:00")

    def test_instances_that_share_a_profile_are_told_apart(self) -> None:
        """By their Auto Scaling group, or else by the cluster that they have joined."""

        def raw(name: str, group: str = "") -> dict[str, Any]:
            tags = [{"Key": "aws:autoscaling:groupName", "Value": group}] if group else []
            return {"InstanceId": name, "Tags": tags}

        machines = [raw("i-1", "AWSBatch-lab-asg-1"), raw("i-2", "other-asg"), raw("i-3")]
        assert [one["InstanceId"] for one in instances.of(machines, "lab", None)] == ["i-1"]
        joined = instances.of(machines, "lab", {"i-3": Agent(connected=True)})
        assert [one["InstanceId"] for one in joined] == ["i-1", "i-3"]

    def test_agent_is_unknown_where_ecs_was_not_asked(self) -> None:
        """A connected agent that nobody has seen must not be counted."""
        raw = {"InstanceId": "i-1", "State": {"Name": "running"}}
        seen = instances.instance(raw, None, None)
        assert seen.agent_seen is False
        assert ("Instances", "1 running") in facts.Facts(instances=(seen,)).rows()

    def test_agents_are_ecs_words(self) -> None:
        """Connected, not connected, or no cluster any more."""
        stubs = Stubs("ecs")
        stubs.ecs.add_response("list_container_instances", {"containerInstanceArns": ["a", "b"]})
        stubs.ecs.add_response(
            "describe_container_instances",
            {
                "containerInstances": [
                    {
                        "ec2InstanceId": "i-1",
                        "agentConnected": True,
                        "status": "DRAINING",
                        "registeredResources": [{"name": "MEMORY", "integerValue": 15640}],
                        "attributes": [
                            {"name": "com.amazonaws.ecs.capability.logging-driver.json-file"}
                        ],
                    },
                    {"ec2InstanceId": "i-2", "agentConnected": False},
                ]
            },
        )
        assert instances.agents(stubs.caller, "cluster") == {
            "i-1": Agent(connected=True, status="DRAINING", memory=15640, awslogs=False),
            "i-2": Agent(connected=False),
        }
        stubs.ecs.add_client_error("list_container_instances", "ClusterNotFoundException", "", 400)
        with pytest.raises(Absent):
            instances.agents(stubs.caller, "cluster")

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
        assert instances.launch_failures(stubs.caller, ["lab-CE"], NOW) == ["vCPU limit of 0"]

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
        found = instances.quota(stubs.caller, [kind], spot=spot)
        assert (found and (found.code, found.value)) == (code and (code, 32.0))
        assert not stubs.caller.gaps

    def test_mixed_instance_types_have_no_single_quota(self) -> None:
        """What one quota forbids, another may allow."""
        assert instances.quota(Stubs("service-quotas").caller, ["g4dn", "m7i"], spot=False) is None

    def test_spot_fleet_of_the_environment_is_heard(self, stubbed_ec2: Stubs) -> None:
        """Requests that are over, and those of other roles, subnets and profiles, are not."""
        resources = {
            "spotIamFleetRole": "arn:aws:iam::1:role/fleet",
            "instanceRole": "arn:aws:iam::1:instance-profile/lab",
            "subnets": ["subnet-a", "subnet-b"],
        }

        def request(number: int, **more: Any) -> dict[str, Any]:
            profile = {"Arn": more.pop("profile", "arn:aws:iam::1:instance-profile/lab")}
            specification = {
                "IamInstanceProfile": profile,
                "SubnetId": more.pop("subnets", "subnet-a, subnet-b"),
            }
            return {
                "SpotFleetRequestId": f"sfr-{number}",
                "SpotFleetRequestState": more.pop("state", "active"),
                "SpotFleetRequestConfig": {
                    "IamFleetRole": "arn:aws:iam::1:role/fleet",
                    "TargetCapacity": 1,
                    "LaunchSpecifications": [specification],
                    **more,
                },
            }

        stubbed_ec2.ec2.add_response(
            "describe_spot_fleet_requests",
            {
                "SpotFleetRequestConfigs": [
                    request(1),
                    request(2, state="cancelled"),
                    request(3, IamFleetRole="arn:aws:iam::1:role/other"),
                    request(4, subnets="subnet-c"),
                    request(5, profile="arn:aws:iam::1:instance-profile/other"),
                ]
            },
        )

        def record(kind: str, name: str, text: str) -> dict[str, Any]:
            event = {"EventSubType": name, "EventDescription": text}
            return {"EventType": kind, "Timestamp": NOW, "EventInformation": event}

        stubbed_ec2.ec2.add_response(
            "describe_spot_fleet_request_history",
            {
                "HistoryRecords": [
                    record("fleetRequestChange", "active", ""),
                    record("error", "iamFleetRoleInvalid", "It cannot\n be assumed."),
                    record("information", "launchSpecUnusable", "Spot bid price is less"),
                    record("information", "fleetProgressHalted", "No."),
                ]
            },
            {"SpotFleetRequestId": "sfr-1", "StartTime": NOW - timedelta(hours=1)},
        )
        assert instances.spot_failures(stubbed_ec2.caller, resources, NOW) == [
            "iamFleetRoleInvalid: It cannot be assumed.",
            "launchSpecUnusable: Spot bid price is less",
        ]
