"""The embedded AWS: ministack with AWS Batch, on 127.0.0.1 and nowhere else.

By hand, `eval` what it prints and use any AWS tool:

    .venv/bin/python scripts/local_aws [--port N]

From tests and scripts, as a child process that ends with the block or with its parent:

    with LocalAws() as aws:
        subprocess.run([...], env={**os.environ, **aws.environ})
        aws.client("batch").describe_job_queues()

Jobs follow a script (`set_jobs`), and succeed at once unless it says otherwise. With `jobs=True`,
and by hand where this machine can, they run: an instance boots, and Docker runs their containers.

LOCAL_AWS_PACE (or `pace=`) is the number of seconds that each resource of a stack takes: on AWS
minutes pass, here milliseconds.

LOCAL_AWS_UPSTREAMS (or `upstreams=`) says where ECR's pull-through cache finds registries on this
machine: {"ghcr.io": "127.0.0.1:5001"}.
"""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

REGION = "us-east-1"
HOST = "127.0.0.1"
ECR_HOST = f"123456789012.dkr.ecr.{REGION}.amazonaws.com"
PROGRAM = Path(__file__).parent  # its __main__.py


class LocalAws:
    """An AWS of one's own, from entering the block to leaving it."""

    log: Path
    endpoint: str
    environ: dict[str, str]  # what a shell, a test or a script needs to reach it
    vpc_id: str
    subnet_ids: list[str]
    security_group_ids: list[str]

    region = REGION
    ecr_host = ECR_HOST

    def __init__(
        self,
        *,
        pace: float | None = None,
        log: Path | None = None,
        port: int = 0,
        jobs: bool = False,
        hurry: float = 1,
        upstreams: Mapping[str, str] | None = None,
    ) -> None:
        """Take the pace, else LOCAL_AWS_PACE counts, and where to keep the log, else it goes.

        Jobs run where `jobs` says so; the time of their timeouts then passes `hurry` times faster.
        ECR's pull-through cache finds registries where `upstreams` says, else LOCAL_AWS_UPSTREAMS.
        """
        self._environ = dict(os.environ)
        if pace is not None:
            self._environ["LOCAL_AWS_PACE"] = str(pace)
        if jobs:
            self._environ["LOCAL_AWS_HURRY"] = str(hurry)
        self._upstreams = upstreams or json.loads(os.environ.get("LOCAL_AWS_UPSTREAMS", "{}"))
        self._log, self._port, self._jobs, self._hurry = log, port, jobs, hurry
        self._clients = threading.Lock()  # botocore makes them one at a time
        self._runner = ExitStack()

    def __enter__(self) -> LocalAws:
        self._folder = tempfile.TemporaryDirectory(prefix="local-aws-", ignore_cleanup_errors=True)
        self._environ["LOCAL_AWS_FOLDER"] = self._folder.name
        self.log = self._log or Path(self._folder.name, "log")
        # The listening socket is there before the child: its port is known at once, and a request
        # waits in the backlog until the child answers it.
        with listen(self._port) as listener, self.log.open("wb") as log:
            self.endpoint = f"http://{HOST}:{listener.getsockname()[1]}"
            self._child = subprocess.Popen(
                [sys.executable, str(PROGRAM), "--serve", str(listener.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=[listener.fileno()],
                env=self._environ,
                start_new_session=True,  # a Ctrl-C is for the client, not for its AWS
            )
        try:
            assert self._child.stdout
            hello = self._child.stdout.readline()  # empty if the child has died
            if not hello:
                raise RuntimeError(f"The embedded AWS did not start:\n{self.log.read_text()}")
            facts = json.loads(hello)
            self.environ = facts["environ"]
            self.vpc_id = facts["vpc_id"]
            self.subnet_ids = facts["subnet_ids"]
            self.security_group_ids = facts["security_group_ids"]
            urllib.request.urlopen(f"{self.endpoint}/_localstack/health", timeout=10).close()
            self.set_upstreams(self._upstreams)
            if self._jobs:
                from lab.runner import Runner  # which takes what only some machines have

                folder = Path(self._folder.name)
                self._runner.enter_context(Runner(self, folder, self._hurry))
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        self._runner.close()
        self._child.kill()  # all it has is in memory
        self._child.communicate()
        self._folder.cleanup()

    def client(self, service: str, credentials: Mapping[str, str] | None = None) -> Any:
        """Return the client that boto3.client would return, for this AWS.

        `credentials` are a role's (AccessKeyId, SecretAccessKey, Token), else they are the root's.
        """
        own = self.environ
        given = credentials or {
            "AccessKeyId": own["AWS_ACCESS_KEY_ID"],
            "SecretAccessKey": own["AWS_SECRET_ACCESS_KEY"],
        }
        with self._clients:
            return self._session.create_client(
                service,
                region_name=REGION,
                endpoint_url=self.endpoint,
                aws_access_key_id=given["AccessKeyId"],
                aws_secret_access_key=given["SecretAccessKey"],
                aws_session_token=given.get("Token"),
            )

    @functools.cached_property
    def _session(self) -> Any:
        import botocore.session

        return botocore.session.get_session()

    def set_jobs(
        self,
        status: str,
        *,
        job_id: str | None = None,
        exit_code: int | None = None,
        reason: str = "",
        **details: Any,
    ) -> None:
        """Move one job to a status, or all jobs that are submitted from now on.

        `details` are more of what DescribeJobs shows, such as container={"reason": "..."}.
        """
        body = {
            "jobId": job_id,
            "status": status,
            "exitCode": exit_code,
            "statusReason": reason,
            **details,
        }
        self._post("/v1/localawsjobs", "batch", body)

    def set_upstreams(self, addresses: Mapping[str, str]) -> None:
        """Let ECR's pull-through cache find registries at other addresses from now on."""
        target = {"X-Amz-Target": "AmazonEC2ContainerRegistry_V20150921.LocalAwsUpstreams"}
        self._post("/", "ecr", dict(addresses), target)

    # What a runner asks, see lab.runner.

    def work(self) -> Any:
        """Return which jobs to start and to stop, and about the environments."""
        return self._post("/v1/localawswork", "batch", {})

    def report(self, job_id: str, status: str, **details: Any) -> None:
        """Tell Batch of a job's task: STARTING, RUNNING, STOPPED, INTERRUPTED."""
        self._post("/v1/localawstask", "batch", {"jobId": job_id, "status": status, **details})

    def lost(self, environment: str, reason: str) -> None:
        """Tell Batch of an instance that has ended before it joined."""
        body = {"environment": environment, "reason": reason}
        self._post("/v1/localawslost", "batch", body)

    @contextmanager
    def joined(
        self, environment: str, instance_id: str, run: Callable[[str], int]
    ) -> Iterator[None]:
        """Let an instance join a compute environment, given by its ARN, for as long as the block.

        `run` is its SSM agent: it gets the scripts of Run Command, and returns their exit status.
        """
        me = {"InstanceId": instance_id}
        over = threading.Event()

        def serve() -> None:
            while not over.wait(0.05):
                if script := self.agent("Take", me):
                    status = "Failed" if run(script["Script"]) else "Success"
                    self.agent("Report", {**script, "Status": status})

        self.agent("Join", {**me, "Environment": environment})
        agent = threading.Thread(target=serve)
        agent.start()
        try:
            yield
        finally:
            over.set()
            agent.join()
            self.agent("Leave", me)

    def agent(self, action: str, body: dict[str, Any]) -> Any:
        """Ask what an instance's agent asks AWS: Join, Leave, Take and Report."""
        return self._post("/", "ssm", body, {"X-Amz-Target": f"AmazonSSM.LocalAws{action}"})

    def _post(
        self, path: str, service: str, body: object, headers: dict[str, str] | None = None
    ) -> Any:
        request = urllib.request.Request(
            self.endpoint + path,
            json.dumps(body).encode(),
            {
                # ministack finds the service in the credential's scope, and checks no signature.
                "Authorization": f"AWS4-HMAC-SHA256 Credential=test/0/{REGION}/{service}/aws4",
                **(headers or {}),
            },
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # on a busy machine
            return json.load(answer)


def listen(port: int) -> socket.socket:
    return socket.create_server((HOST, port), backlog=100)
