"""The main job, step by step, on an embedded AWS: a job that fails, the reason, the fix, success."""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.environ import clean
from lab.images import with_bash
from lab.parts import Registry, missing
from local_aws import LocalAws
from theirs import make_queue

BIN = Path(sys.executable).parent
QUEUE = "genomics"  # of somebody who has never heard of batchreg
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
    steps: int = 0

    def step(self, text: str) -> None:
        """Begin the next step: which ones there are depends on the machine."""
        self.steps += 1
        say(f"{self.steps}. {text}")

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

    def job(self, image: str) -> str:
        """Run a job on the queue as any tool does, show its end, and return its status."""
        print(f"  A job with {image} on {QUEUE}:", flush=True)
        batch = self.aws.client("batch")
        needs = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "128"}]
        command = ["echo", "Hello from a private image"]
        definition = batch.register_job_definition(
            jobDefinitionName="align",
            type="container",
            containerProperties={"image": image, "command": command, "resourceRequirements": needs},
        )["jobDefinitionArn"]
        submitted = batch.submit_job(jobName="align", jobQueue=QUEUE, jobDefinition=definition)
        job: dict[str, Any] = {"status": ""}
        while job["status"] not in ("SUCCEEDED", "FAILED"):
            time.sleep(0.1)
            (job,) = batch.describe_jobs(jobs=[submitted["jobId"]])["jobs"]
        container = job["container"]
        if stream := container.get("logStreamName"):
            events = self.aws.client("logs").get_log_events(
                logGroupName="/aws/batch/job", logStreamName=stream
            )["events"]
            show("\n".join(event["message"] for event in events))
        show(f"{job['status']}  {container.get('reason') or job['statusReason']}")
        return str(job["status"])

    def workflow(self, image: str) -> None:
        """Run a workflow of three steps, with the engine's own settings."""
        (self.folder / "genome.wdl").write_text(WORKFLOW)
        settings = {
            "MINIWDL__SCHEDULER__CONTAINER_BACKEND": "aws_batch_job_no_efs",
            "MINIWDL__FILE_IO__ROOT": str(self.folder),
            "MINIWDL__AWS__TASK_QUEUE": QUEUE,
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
        show("\n".join(re.findall(r"(?m)^.*call-\w+ NOTICE done$", result.stderr)))
        show(result.stdout if result.returncode == 0 else result.stderr)
        if result.returncode:
            sys.exit("The workflow failed.")


def attach(demo: Demo, host: str, password: str) -> None:
    demo.run(
        f"batchreg attach {QUEUE} --username lab --registry-url {host} --yes",
        BATCHREG_PASSWORD=password,
    )


def tell(demo: Demo, registry: Registry) -> None:
    """Tell the whole story of a job with a private image."""
    image = registry.push("lab/align", "1", with_bash())
    demo.step("A job that fails: an instance boots, and its Docker Engine may not pull the image")
    if demo.job(image) != "FAILED":
        sys.exit("The job ran without credentials.")

    demo.step("The reason: the registry gives this image to nobody without credentials")
    demo.run(f"batchreg check {image}", fails=True)

    demo.step("The fix: credentials for the compute environment behind the queue")
    attach(demo, registry.host, registry.password)

    demo.step("The same job on the same queue")
    if demo.job(image) != "SUCCEEDED":
        sys.exit("The job failed with credentials.")

    demo.step("A workflow engine, miniwdl, that knows nothing of registries")
    demo.workflow(image)

    demo.step("Everything back as it was")
    demo.run(f"batchreg detach {QUEUE} --yes")


def main() -> None:
    left_out = missing(["registry", "engine", "machine"])
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="batchreg-demo-")))
        aws = stack.enter_context(LocalAws(jobs=not left_out))
        began = time.monotonic()
        (folder / "home").mkdir()
        demo = Demo(aws, folder / "home")
        print(f"An embedded AWS listens at {aws.endpoint}; nothing leaves this machine.")
        make_queue(demo.aws, QUEUE)
        if left_out:
            demo.step("Credentials for the compute environment behind a queue")
            attach(demo, "registry.example.com", "a password")
            demo.step("Everything back as it was")
            demo.run(f"batchreg detach {QUEUE} --yes")
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
