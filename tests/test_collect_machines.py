"""How instance types, machine images and roles become facts."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from stubs import NOW, Stubs, client

from batchreg.doctor.collect import launch_template, machines, network, roles
from batchreg.doctor.collect.calls import Caller
from batchreg.doctor.facts import Denial, Role
from batchreg.doctor.machines import InstanceType, MachineImage

ROLE = "arn:aws:iam::111122223333:role/lab"


def offered(name: str, **more: Any) -> dict[str, Any]:
    return {
        "InstanceType": name,
        "VCpuInfo": {"DefaultVCpus": 4},
        "MemoryInfo": {"SizeInMiB": 16384},
        "ProcessorInfo": {"SupportedArchitectures": ["x86_64"]},
        **more,
    }


class Ec2:
    """A client that answers two calls, in whatever order they come; one may be refused."""

    def __init__(self, refused: str = "", **answers: Any) -> None:
        self.meta, self.asked = client("ec2").meta, dict[str, Any]()
        self._refused, self._answers = refused, answers

    def get_paginator(self, name: str) -> Any:
        def paginate(**request: Any) -> list[Any]:
            if name == self._refused:
                raise client("ec2").exceptions.ClientError(
                    {"Error": {"Code": "UnauthorizedOperation"}}, name
                )
            self.asked[name] = request
            return [self._answers[name]]

        return type("Pages", (), {"paginate": staticmethod(paginate)})()


ANSWERS = {
    "describe_instance_types": {
        "InstanceTypes": [
            offered("m7i.xlarge"),
            offered("g4dn.xlarge", GpuInfo={"Gpus": [{"Count": 1}, {"Count": 1}]}),
            offered("m7i-flex.xlarge"),
        ]
    },
    "describe_instance_type_offerings": {
        "InstanceTypeOfferings": [
            {"InstanceType": "m7i.xlarge", "Location": "eu-central-1b"},
            {"InstanceType": "m7i.xlarge", "Location": "eu-central-1a"},
        ]
    },
}


class TestTypes:
    def test_types_are_those_of_the_environment_with_their_zones(self) -> None:
        """One that no zone has is told so; a family is no prefix of another."""
        ec2 = Ec2(**ANSWERS)
        found = machines.types(Caller(lambda _: ec2), ["m7i", "g4dn.xlarge"])
        assert found == (
            InstanceType(
                name="g4dn.xlarge",
                vcpus=4,
                memory=16384,
                gpus=2,
                architectures=("x86_64",),
                zones=(),
            ),
            InstanceType(
                name="m7i.xlarge",
                vcpus=4,
                memory=16384,
                architectures=("x86_64",),
                zones=("eu-central-1a", "eu-central-1b"),
            ),
        )
        for request in ec2.asked.values():
            assert request["Filters"] == [
                {"Name": "instance-type", "Values": ["m7i.*", "g4dn.xlarge"]}
            ]

    def test_unknown_zones_are_not_taken_for_none(self) -> None:
        """The permission is listed, and the sizes are known all the same."""
        caller = Caller(lambda _: Ec2("describe_instance_type_offerings", **ANSWERS))
        found = machines.types(caller, ["m7i"])
        assert found
        assert [one.zones for one in found] == [None]
        assert [gap.permission for gap in caller.gaps.values()] == [
            "ec2:DescribeInstanceTypeOfferings"
        ]

    @pytest.mark.parametrize("names", [[], ["optimal"], ["m7i", "default_arm64"]])
    def test_types_that_aws_batch_chooses_are_not_known(self, names: list[str]) -> None:
        """Which families that means can change any day; and Fargate has none."""
        assert machines.types(Caller(client), names) is None


class TestImage:
    @pytest.mark.parametrize(
        ("resources", "of_template", "chosen"),
        [
            ({}, "", ""),
            ({}, "ami-t", "ami-t"),
            ({"imageId": "ami-i"}, "", "ami-i"),
            ({"ec2Configuration": [{"imageType": "x", "imageIdOverride": "ami-o"}]}, "t", "ami-o"),
            ({"ec2Configuration": [{"imageType": "x"}]}, "ami-t", "ami-t"),
            ({"ec2Configuration": [{"imageIdOverride": "ami-o"}, {"imageType": "x"}]}, "ami-t", ""),
        ],
    )
    def test_image_is_the_one_that_counts(
        self, resources: dict[str, Any], of_template: str, chosen: str
    ) -> None:
        """Where different instance types start from different images, none is judged."""
        assert machines.chosen_image(resources, of_template) == chosen

    def test_image_is_described(self, stubbed_ec2: Stubs) -> None:
        """Its name tells only of Amazon's images what is in it."""
        image = {"ImageId": "ami-1", "State": "available", "Architecture": "x86_64"}
        for name, alias in (("al2023-ami-2023.9", "amazon"), ("al2023-ami-ours", "")):
            more = {"ImageOwnerAlias": alias} if alias else {}
            stubbed_ec2.ec2.add_response(
                "describe_images", {"Images": [{**image, "Name": name, **more}]}
            )
        found = [machines.image(stubbed_ec2.caller, "ami-1") for _ in range(2)]
        assert [one and one.without_agent for one in found] == [True, False]
        assert found[0] == MachineImage(
            id="ami-1", architecture="x86_64", name="al2023-ami-2023.9", by_amazon=True
        )

    def test_image_that_is_gone_is_a_fact(self, stubbed_ec2: Stubs) -> None:
        """EC2 says the same of one that is not shared; a parameter leads to one that nobody sees."""
        stubbed_ec2.ec2.add_client_error("describe_images", "InvalidAMIID.NotFound", "No.", 400)
        assert machines.image(stubbed_ec2.caller, "ami-1") == MachineImage(id="ami-1", exists=False)
        assert machines.image(stubbed_ec2.caller, "resolve:ssm:/x") is None


class TestRoleOfAService:
    def look(self, stubs: Stubs, *results: dict[str, Any]) -> Role:
        document = {"Statement": {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}}}
        role = {
            "RoleName": "lab",
            "RoleId": "AROA0000000000000000",
            "Arn": ROLE,
            "Path": "/",
            "CreateDate": NOW,
            "AssumeRolePolicyDocument": json.dumps(document),
        }
        stubs.iam.add_response("get_role", {"Role": role})
        stubs.iam.add_response("simulate_principal_policy", {"EvaluationResults": [*results]})

        def at_once(function: Any, *arguments: Any) -> Any:
            done = roles.Future[Any]()
            done.set_result(function(*arguments))
            return done

        question = {"ActionNames": ["ec2:RunInstances"]}
        return roles.of(stubs.caller, ROLE, "batch", "eu-central-1", question, begin=at_once)

    def test_service_that_may_not_take_it_is_told(self) -> None:
        """A role that trusts EC2 alone is none for AWS Batch."""
        denied = {"EvalActionName": "ec2:RunInstances", "EvalDecision": "implicitDeny"}
        found = self.look(Stubs("iam"), denied)
        assert (found.trusted, found.denied) == (False, (Denial(action="ec2:RunInstances"),))
        assert found.row == ("Role lab", "1 permissions missing")

    def test_condition_that_was_not_simulated_denies_nothing(self) -> None:
        """IAM names what it would have to know."""
        undecided = {
            "EvalActionName": "ec2:RunInstances",
            "EvalDecision": "implicitDeny",
            "MissingContextValues": ["aws:RequestTag/team"],
        }
        found = self.look(Stubs("iam"), undecided)
        assert (found.denied, found.simulated) == ((), False)


@pytest.mark.parametrize(
    ("script", "cluster", "stops"),
    [
        ("echo ECS_CLUSTER=other >> /etc/ecs/ecs.config", "other", ""),
        ("echo 'ECS_CLUSTER=\"other\"'", "other", ""),
        ("# ECS_CLUSTER=other", "", ""),
        ("echo ECS_CLUSTER=$CLUSTER", "", ""),
        ("systemctl stop ecs", "", "systemctl stop ecs"),
        ("systemctl disable --now ecs.service", "", "systemctl disable --now ecs"),
        ("systemctl stop ecs\nsystemctl start --no-block ecs", "", ""),
        ("# systemctl stop ecs", "", ""),
        ("systemctl stop nginx; echo ecs", "", ""),
    ],
)
def test_user_data_is_read_for_what_keeps_agents_away(
    script: str, cluster: str, stops: str
) -> None:
    """The last word counts, and a comment is none."""
    encoded = base64.b64encode(f"#!/bin/sh\n{script}\n".encode()).decode()
    found = launch_template.user_data(encoded, None)
    assert (found["cluster"], found["stops"]) == (cluster, stops)


@pytest.mark.parametrize(
    ("options", "servers", "resolvers", "name_servers"),
    [
        ("dopt-1", ["AmazonProvidedDNS"], (), True),
        ("dopt-1", ["10.0.0.9"], ("10.0.0.9",), True),
        ("dopt-1", [], (), False),
        ("default", ["AmazonProvidedDNS"], (), False),
        ("dopt-2", ["AmazonProvidedDNS"], (), None),
    ],
)
def test_name_servers_are_those_of_the_dhcp_options(
    options: str, servers: list[str], resolvers: tuple[str, ...], name_servers: bool | None
) -> None:
    """The set called "default" is no options at all; one that is not shown says nothing."""
    settings = [{"Key": "domain-name-servers", "Values": [{"Value": one} for one in servers]}]
    ec2 = Ec2(
        describe_vpcs={"Vpcs": [{"VpcId": "vpc-1", "DhcpOptionsId": options}]},
        describe_dhcp_options={
            "DhcpOptions": [{"DhcpOptionsId": "dopt-1", "DhcpConfigurations": settings}]
        },
    )
    assert network.resolvers(Caller(lambda _: ec2), ["vpc-1"]) == {
        "resolvers": resolvers,
        "name_servers": name_servers,
    }
