"""How a subnet reaches the internet, from its routes: what the list to choose from says."""

from __future__ import annotations

from typing import Any

import botocore.session
import pytest
from botocore.stub import Stubber

from batchreg.errors import BatchregError
from batchreg.stack import network


@pytest.fixture
def ec2():
    """A client whose answers a test gives."""
    client = botocore.session.get_session().create_client(
        "ec2", region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="x"
    )
    with Stubber(client) as stub:
        client.stub = stub
        yield client


def table(*routes: dict[str, str], vpc: str = "vpc-1", **association: Any) -> dict[str, Any]:
    return {
        "VpcId": vpc,
        "Associations": [association or {"Main": True}],
        "Routes": [{"DestinationCidrBlock": "172.31.0.0/16", "GatewayId": "local"}, *routes],
    }


def to(**target: str) -> dict[str, str]:
    return {"DestinationCidrBlock": "0.0.0.0/0", **target}


PUBLIC = to(GatewayId="igw-1")
NAT = to(NatGatewayId="nat-1")


@pytest.mark.parametrize(
    ("tables", "public", "answer"),
    [
        ([table(PUBLIC)], True, "yes"),
        ([table(PUBLIC)], False, "no public IP"),
        ([table(NAT)], False, "by NAT"),
        ([table(to(TransitGatewayId="tgw-1"))], False, "by a gateway"),
        ([table()], True, "no"),
        ([table({**NAT, "State": "blackhole"})], False, "no"),
        ([table(PUBLIC), table(NAT, SubnetId="subnet-1")], True, "by NAT"),
        ([table(PUBLIC), table(SubnetId="subnet-1")], True, "no"),
        ([table(PUBLIC), table(NAT, SubnetId="subnet-2")], True, "yes"),
        ([table(PUBLIC, vpc="vpc-2")], True, "no"),
        ([], True, "no"),
    ],
)
def test_way_to_the_internet_is_the_default_route_of_the_subnets_own_table(
    ec2, tables, public, answer
):
    """A subnet without one is the commonest cause of jobs that wait for ever."""
    ec2.stub.add_response("describe_route_tables", {"RouteTables": tables})
    ec2.stub.add_response(
        "describe_subnets",
        {"Subnets": [{"SubnetId": "subnet-1", "VpcId": "vpc-1", "MapPublicIpOnLaunch": public}]},
    )
    assert [subnet.internet for subnet in network.subnets(ec2)] == [answer]


def test_region_without_a_default_vpc_is_one_line(ec2):
    """Many organisations delete it."""
    ec2.stub.add_response("describe_vpcs", {"Vpcs": []})
    with pytest.raises(BatchregError, match=r"no default VPC\. Give --subnet-id"):
        network.default_vpc(ec2)


def test_default_security_group_comes_first(ec2):
    """--default-vpc takes the first."""
    ec2.stub.add_response(
        "describe_security_groups",
        {
            "SecurityGroups": [
                {"GroupId": "sg-1", "GroupName": "alpha"},
                {"GroupId": "sg-2", "GroupName": "default"},
            ]
        },
    )
    assert [group.id for group in network.security_groups(ec2, "vpc-1")] == ["sg-2", "sg-1"]
