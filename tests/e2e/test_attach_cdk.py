"""The CDK's own synthesis: of what `--emit cdk` writes, and of an app that attach meets."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from attach_lab import LOGIN, Lab, without_template
from attach_shapes import SHAPES, VALUES, expected

from batchreg.attach import emit
from batchreg.render import userdata

PACKAGES = ("aws-cdk-lib@2.276.0", "constructs@10.6.0", "typescript@5.9.3")
# Kept between runs, in the virtual environment of the tests.
FOLDER = Path(os.environ.get("VIRTUAL_ENV", Path(__file__).parents[2] / ".venv")) / "cdk"

NAMES = ("one", "overrides", "own secret")

APP = """\
import { App, Stack } from "aws-cdk-lib";
import { CfnComputeEnvironment, ManagedEc2EcsComputeEnvironment } from "aws-cdk-lib/aws-batch";
import { LaunchTemplate, Vpc } from "aws-cdk-lib/aws-ec2";
import { addRegistryCredentials } from "./registry-credentials";

const app = new App();
const stack = new Stack(app, "Lab");
const environment = new ManagedEc2EcsComputeEnvironment(stack, "Environment", {
  vpc: new Vpc(stack, "Vpc"),
  launchTemplate: LaunchTemplate.fromLaunchTemplateAttributes(stack, "Theirs", {
    launchTemplateName: "base",
  }),
});
addRegistryCredentials(stack, environment.node.defaultChild as CfnComputeEnvironment);
console.log(JSON.stringify(app.synth().getStackByName("Lab").template));
"""

# The usual app, in the network that is there. The template has no rule of the CDK's bootstrapping.
THEIRS = """\
const { App, DefaultStackSynthesizer, Stack } = require("aws-cdk-lib");
const batch = require("aws-cdk-lib/aws-batch");
const { Vpc } = require("aws-cdk-lib/aws-ec2");

const app = new App();
const stack = new Stack(app, "Theirs", {
  synthesizer: new DefaultStackSynthesizer({ generateBootstrapVersionRule: false }),
});
const [vpcId, ...publicSubnetIds] = process.argv.slice(2);
const vpc = Vpc.fromVpcAttributes(stack, "Vpc", {
  vpcId, publicSubnetIds, availabilityZones: publicSubnetIds.map((_, index) => `zone-${index}`),
});
const environment = new batch.ManagedEc2EcsComputeEnvironment(stack, "Environment", {
  vpc, vpcSubnets: { subnets: vpc.publicSubnets }, maxvCpus: 16,
});
new batch.JobQueue(stack, "Queue", {
  computeEnvironments: [{ computeEnvironment: environment, order: 1 }],
});
console.log(JSON.stringify(app.synth().getStackByName("Theirs").template));
"""


def run(*command: str, folder: Path) -> str:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def packages() -> Path:
    """Install the CDK, once."""
    if not shutil.which("npm"):
        if os.environ.get("CI") == "true":
            pytest.fail("no npm: apt-get install nodejs npm")
        pytest.skip("no npm: apt-get install nodejs npm")
    marker = FOLDER / "installed"
    if not marker.exists() or marker.read_text() != " ".join(PACKAGES):
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / "package.json").write_text("{}")
        run("npm", "install", "--no-audit", "--no-fund", *PACKAGES, folder=FOLDER)
        marker.write_text(" ".join(PACKAGES))
    return FOLDER


@pytest.fixture(scope="module")
def templates(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Compile a module and an app for each shape, strictly, and return the stacks' templates."""
    folder = tmp_path_factory.mktemp("cdk")
    (folder / "node_modules").symlink_to(packages / "node_modules")
    for name in NAMES:
        code = emit.emit("cdk", SHAPES[name], refresh_minutes=45)
        (folder / f"{name}-credentials.ts").write_text(code)
        (folder / f"{name}.ts").write_text(
            APP.replace("registry-credentials", f"{name}-credentials")
        )
    run(
        "node_modules/.bin/tsc",
        *("--strict", "--noUnusedLocals", "--skipLibCheck", "--target", "es2022"),
        *("--module", "commonjs", "--lib", "es2022,dom"),
        *(f"{name}.ts" for name in NAMES),
        folder=folder,
    )
    return {name: json.loads(run("node", f"{name}.js", folder=folder)) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_synthesized_stack_gives_the_environment_our_launch_template(templates, name):
    """The CDK reads the code, and its template has the same user data as attach."""
    shape = SHAPES[name]
    resources = templates[name]["Resources"]
    (environment,) = (
        resource
        for resource in resources.values()
        if resource["Type"] == "AWS::Batch::ComputeEnvironment"
    )
    used = environment["Properties"]["ComputeResources"]["LaunchTemplate"]
    assert {**used, "Overrides": None} == {
        "LaunchTemplateId": {"Ref": "RegistryLaunchTemplate"},
        "Version": {"Fn::GetAtt": ["RegistryLaunchTemplate", "LatestVersionNumber"]},
        "Overrides": None,
    }
    assert len(used.get("Overrides", [])) == len(shape.environment.overrides)
    data = resources["RegistryLaunchTemplate"]["Properties"]["LaunchTemplateData"]
    theirs, ours = data.pop("UserData")["Fn::Join"][1]
    assert data == shape.copies[0].copy.data
    text = ours["Fn::Base64"]
    if not isinstance(text, str):
        text, variables = text["Fn::Sub"]
        assert variables == {"RegistrySecret": {"Ref": "RegistrySecret"}}
        text = userdata.resolve(text, VALUES)
    assert base64.b64decode(theirs) + text.encode() == expected(shape)


def test_environment_of_a_cdk_app_is_attached_and_comes_back(packages, aws, batchreg, tmp_path):
    """Nothing but its launch template changes, although the app knows nothing of it."""
    (tmp_path / "node_modules").symlink_to(packages / "node_modules")
    (tmp_path / "theirs.js").write_text(THEIRS)
    body = run("node", "theirs.js", aws.vpc_id, *aws.subnet_ids, folder=tmp_path)
    cloudformation = aws.client("cloudformation")
    cloudformation.create_stack(
        StackName="Theirs", TemplateBody=body, Capabilities=["CAPABILITY_IAM"]
    )
    cloudformation.get_waiter("stack_create_complete").wait(
        StackName="Theirs", WaiterConfig={"Delay": 0.05}
    )
    (arn,) = (
        resource["PhysicalResourceId"]
        for resource in cloudformation.describe_stack_resources(StackName="Theirs")[
            "StackResources"
        ]
        if resource["ResourceType"] == "AWS::Batch::ComputeEnvironment"
    )
    lab = Lab(aws, arn.rpartition("/")[2])
    before = lab.environment
    environ = {**aws.environ, **LOGIN}
    attached = batchreg("attach", arn, "--yes", environ=environ)
    assert attached.returncode == 0, attached.stderr
    assert "created by AWS CDK" in attached.stderr
    assert b"/opt/batchreg/" in lab.user_data()
    assert without_template(lab.environment) == without_template(before)
    detached = batchreg("detach", arn, "--yes", environ=environ)
    assert detached.returncode == 0, detached.stderr
    assert {**lab.environment, "statusReason": ""} == {**before, "statusReason": ""}
    assert lab.companion is None
