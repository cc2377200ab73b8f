"""The main job, step by step, on an embedded AWS: from a template to a pulled private image."""

from __future__ import annotations

import base64
import re
import secrets
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from lab.agent import auth_for, read_ecs_config
from lab.environ import clean
from lab.instance import Instance
from lab.parts import Engine, PullError, Registry, missing
from lint_templates import batch_regions, lint
from local_aws import LocalAws

BATCHREG = Path(sys.executable).with_name("batchreg")
STACK = "demo"


def say(text: str) -> None:
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    print(f"\n{bold}{text}{plain}", flush=True)


def show(text: str) -> None:
    for line in text.rstrip().splitlines():
        print(f"    {line}", flush=True)


def run(arguments: str, environ: dict[str, str], folder: Path) -> str:
    """Run a batchreg command, show it with what it prints, and return its stdout."""
    print(f"  $ batchreg {arguments}", flush=True)
    result = subprocess.run(
        [str(BATCHREG), *arguments.split()], cwd=folder, text=True, capture_output=True, env=environ
    )
    show(result.stderr + (result.stdout if len(result.stdout) < 5000 else ""))
    if result.returncode:
        sys.exit(f"batchreg {arguments} failed with exit status {result.returncode}")
    return result.stdout


def launch_template_user_data(aws: LocalAws) -> bytes:
    """Return what an instance of the deployed launch template would get from EC2."""
    (stack,) = aws.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    (version,) = aws.client("ec2").describe_launch_template_versions(
        LaunchTemplateId=outputs["LaunchTemplateId"], Versions=["$Latest"]
    )["LaunchTemplateVersions"]
    return base64.b64decode(version["LaunchTemplateData"]["UserData"])


def main() -> None:
    began = time.monotonic()
    bare = clean()
    password = secrets.token_urlsafe(12) + "\"\\$'{}"
    left_out = missing(["registry", "engine", "instance"])
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="batchreg-demo-")))
        aws = stack.enter_context(LocalAws())
        environ = {**bare, **aws.environ, "BATCHREG_PASSWORD": password}
        print(f"An embedded AWS listens at {aws.endpoint}; nothing leaves this machine.")
        host = "registry.example.com"
        if not left_out:
            registry = stack.enter_context(Registry("lab", password, directory=folder / "registry"))
            engine = stack.enter_context(Engine(folder / "engine"))
            host, image = registry.host, registry.push("lab/align", "3")
            print(f"A private registry listens at {host}; a Docker Engine runs beside it.")

        say("1. The CloudFormation template, linted for every region that has AWS Batch")
        (folder / "template.yaml").write_text(run("render", bare, folder))
        findings = lint(str(folder / "template.yaml"))
        show(findings.stdout or f"cfn-lint: no finding in {len(batch_regions())} regions")
        if findings.returncode:
            sys.exit(1)

        if not left_out:
            say("2. Without a login, the registry keeps its image")
            print(f"  docker pull {image}")
            try:
                engine.pull(image)
                sys.exit("The pull worked without a login.")
            except PullError as refusal:
                show(str(refusal))

        say("3. Deploy; the password comes from BATCHREG_PASSWORD")
        run(
            f"deploy --stack-name {STACK} --username lab --registry-url {host} --yes",
            environ,
            folder,
        )
        run(f"status --stack-name {STACK}", environ, folder)

        if not left_out:
            say("4. An instance boots with the launch template's user data (the real cloud-init)")
            instance = stack.enter_context(
                Instance(
                    directory=folder / "instance",
                    environ=aws.environ,
                    files={"/etc/ecs/ecs.config": b"ECS_CLUSTER=demo\n"},
                )
            )
            boot = instance.boot(launch_template_user_data(aws))
            show("\n".join(re.findall("^batchreg: .*$", boot.console, re.MULTILINE)))
            show(f"cloud-init: {', '.join(boot.errors) or 'no error'}, {boot.seconds:.1f} s")
            config = boot.ecs_config or b""
            print(f"  /etc/ecs/ecs.config, mode {boot.ecs_config_mode or 0:o}:")
            show(re.sub('"auth":"[^"]*"', '"auth":"********"', config.decode()))

            say("5. With nothing but that file's login, as the ECS agent does it")
            print(f"  docker pull {image}")
            engine.pull(image, auth_for(image, read_ecs_config(config)))
            show("pulled")
            print(f"  docker run {image} echo 'Hello from a private image'")
            status, output = engine.run(
                image, ["/bin/busybox", "echo", "Hello from a private image"]
            )
            show(output)
            if status:
                sys.exit(f"The container ended with exit status {status}")

        say("6. Destroy")
        run(f"destroy --stack-name {STACK} --yes", environ, folder)
    print(f"\nDone in {time.monotonic() - began:.0f} s.")
    if left_out:
        print(f"Left out: the instance's boot and the pull, because of this: {left_out}")


if __name__ == "__main__":
    main()
