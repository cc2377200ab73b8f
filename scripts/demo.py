"""The main job, step by step, on an embedded AWS: a job that fails, the reason, the fix, success."""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from lab.environ import clean
from lab.images import with_bash
from lab.parts import Registry, missing
from local_aws import LocalAws

BIN = Path(sys.executable).parent
STACK = "demo"
WORKFLOW = """\
version 1.0
workflow genome {
    input { String image }
    call align { input: image = image }
    call sort { input: image = image, reads = align.reads }
    call count { input: image = image, sorted = sort.sorted }
    output { Int lines = count.lines }
}
task align {
    input { String image }
    command <<< printf 'c\\nb\\na\\n' >>>
    output { File reads = stdout() }
    runtime { docker: image }
}
task sort {
    input { String image  File reads }
    command <<< sort "~{reads}" >>>
    output { File sorted = stdout() }
    runtime { docker: image }
}
task count {
    input { String image  File sorted }
    command <<< wc -l < "~{sorted}" >>>
    output { Int lines = read_int(stdout()) }
    runtime { docker: image }
}
"""


def say(text: str) -> None:
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    print(f"\n{bold}{text}{plain}", flush=True)


def show(text: str) -> None:
    for line in text.rstrip().splitlines():
        print(f"    {line}", flush=True)


@dataclass
class Demo:
    """A user at a shell in an empty folder."""

    aws: LocalAws
    folder: Path

    def run(self, line: str, *, fails: bool = False, **environ: str) -> None:
        """Run a command, show it with what it prints, and end where it goes another way."""
        print(f"  $ {line}", flush=True)
        program, *arguments = line.split()
        result = subprocess.run(
            [BIN / program, *arguments],
            cwd=self.folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=clean(**{**self.aws.environ, "HOME": str(self.folder), **environ}),
        )
        show(result.stdout)
        if (result.returncode != 0) != fails:
            sys.exit(f"{line} ended with exit status {result.returncode}")

    def workflow(self, image: str) -> None:
        """Run a workflow of three steps, with the engine's own settings."""
        (self.folder / "genome.wdl").write_text(WORKFLOW)
        (stack,) = self.aws.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"]
        outputs = {each["OutputKey"]: each["OutputValue"] for each in stack["Outputs"]}
        settings: Mapping[str, str] = {
            "MINIWDL__SCHEDULER__CONTAINER_BACKEND": "aws_batch_job_no_efs",
            "MINIWDL__FILE_IO__ROOT": str(self.folder),
            "MINIWDL__AWS__TASK_QUEUE": outputs["JobQueueArn"],
            "MINIWDL__AWS__DESCRIBE_PERIOD": "0.2",
            "MINIWDL__AWS__SUBMIT_PERIOD": "0.1",
        }
        print("  $ miniwdl run genome.wdl", flush=True)
        result = subprocess.run(
            [BIN / "miniwdl", "run", "genome.wdl", f"image={image}", "--dir", "runs"],
            cwd=self.folder,
            text=True,
            capture_output=True,
            env=clean(**{**self.aws.environ, **settings, "HOME": str(self.folder)}),
        )
        show("\n".join(re.findall(r"(?m)^.* (?:call-\w+ done|done)$", result.stderr)))
        show(result.stdout if result.returncode == 0 else result.stderr)
        if result.returncode:
            sys.exit("The workflow failed.")


def deploy(demo: Demo, host: str, password: str) -> None:
    demo.run(
        f"batchreg deploy --stack-name {STACK} --username lab --registry-url {host} --yes",
        BATCHREG_PASSWORD=password,
    )


def tell(demo: Demo, registry: Registry) -> None:
    """Tell the whole story, from a queue to a workflow."""
    submit = f"batchreg submit --stack-name {STACK}"
    say("1. A stack: a queue whose instances have the registry's credentials")
    deploy(demo, registry.host, registry.password)

    say("2. A job with a private image. An instance boots, pulls it and runs it")
    image = registry.push("lab/align", "1", with_bash())
    demo.run(f"{submit} {image} -- echo Hello from a private image")

    say("3. Somebody revokes the token. The next image does not come any more")
    password = secrets.token_urlsafe(12)
    registry.change_password(password)
    image = registry.push("lab/align", "2", with_bash())
    demo.run(f"{submit} {image} -- echo Hello again", fails=True)

    say("4. The reason")
    demo.run(f"batchreg doctor --stack-name {STACK} --image {image}", fails=True)

    say("5. The fix: the new token, for the instances that run as well")
    demo.run(f"batchreg rotate --stack-name {STACK} --follow --yes", BATCHREG_PASSWORD=password)

    say("6. The same job")
    demo.run(f"{submit} {image} -- echo Hello again")

    say("7. A workflow engine, miniwdl, that knows nothing of registries")
    demo.workflow(image)

    say("8. The end")
    demo.run(f"batchreg destroy --stack-name {STACK} --yes")


def main() -> None:
    left_out = missing(["registry", "engine", "machine"])
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="batchreg-demo-")))
        aws = stack.enter_context(LocalAws(jobs=not left_out))
        began = time.monotonic()
        (folder / "home").mkdir()
        demo = Demo(aws, folder / "home")
        print(f"An embedded AWS listens at {aws.endpoint}; nothing leaves this machine.")
        if left_out:
            say("1. A stack: a queue whose instances have the registry's credentials")
            deploy(demo, "registry.example.com", "a password")
            say("2. The end")
            demo.run(f"batchreg destroy --stack-name {STACK} --yes")
        else:
            password = secrets.token_urlsafe(12) + "\"\\$'{}"
            registry = stack.enter_context(Registry("lab", password, directory=folder / "registry"))
            print(f"A private registry listens at {registry.host}.")
            tell(demo, registry)
        print(f"\nDone in {time.monotonic() - began:.0f} s.")
    if left_out:
        print(f"Left out: jobs, their instances and images, because of this: {left_out}")


if __name__ == "__main__":
    main()
