"""An instance of a compute environment: the machine, its metadata, its Docker Engine, its agent."""

from __future__ import annotations

import base64
import email
import json
import secrets
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from lab.agent import Login, auth_for, read_ecs_config
from lab.ecr import IMAGE, Tokens
from lab.machine import Machine
from lab.metadata import Credentials, Metadata
from lab.task import Task, TaskEngine, TaskError

if TYPE_CHECKING:
    from local_aws import LocalAws

# What a script starts with --no-block may be under way when the script has ended.
AGENT_RESTARTED = "while systemctl list-jobs ecs.service | grep -q ecs; do sleep 0.02; done"
CLIENTS = ("iam", "logs", "secretsmanager", "sts")
LIMIT = 16_384  # bytes of user data
BOOT_SECONDS = 120
GROUP = "/aws/batch/job"
BOUNDARY = b"==BOUNDARY=="

Data = dict[str, Any]


def merged(theirs: bytes, cluster: str, revision: int) -> bytes:
    """Merge AWS Batch's own part before those of a launch template, as it does."""
    settings = {
        "ECS_CLUSTER": cluster,
        "ECS_DISABLE_IMAGE_CLEANUP": "false",
        "ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION": "2m",
        "ECS_IMAGE_CLEANUP_INTERVAL": "10m",
        "ECS_IMAGE_MINIMUM_CLEANUP_AGE": "10m",
        "ECS_NUM_IMAGES_DELETE_PER_CYCLE": "5",
        "ECS_RESERVED_MEMORY": "32",
        "ECS_INSTANCE_ATTRIBUTES": json.dumps(
            {"com.amazonaws.batch.compute-environment-revision": str(revision)},
            separators=(",", ":"),
        ),
    }
    lines = [f"echo '{key}={value}' >> /etc/ecs/ecs.config" for key, value in settings.items()]
    own = "\n".join(
        ['Content-Type: text/x-shellscript; charset="us-ascii"', "", "#!/bin/bash", *lines, ""]
    )
    head = b'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="' + BOUNDARY + b'"\n'
    return b"\n".join(
        [
            head,
            b"--" + BOUNDARY,
            own.encode(),
            *(b"--" + BOUNDARY + b"\n" + part for part in _parts(theirs)),
            b"--" + BOUNDARY + b"--\n",
        ]
    )


def _parts(archive: bytes) -> list[bytes]:
    """Return the parts of an archive, their bytes as they are."""
    if not archive:
        return []
    boundary = (email.message_from_bytes(archive).get_boundary() or "").encode()
    text = archive.replace(b"\r\n", b"\n").partition(b"\n--" + boundary + b"--")[0]
    _, *parts = (b"\n" + text).split(b"\n--" + boundary + b"\n")
    return [part + b"\n" for part in parts]


def _newest(machine: Machine) -> str:
    """Return the name of the agent's last start, empty before the first."""
    return max((path.name for path in machine.mounted_root.glob("run/agent/[0-9]*")), default="")


class Host(threading.Thread):
    """One instance, from its boot to its end; a thread, because its processes end with theirs."""

    def __init__(self, aws: LocalAws, environment: Data, directory: Path, etc: Path) -> None:
        """Keep all of it in `directory`; `etc` is for its engine."""
        super().__init__(daemon=True)
        self._etc = etc
        self._tokens = Tokens(aws, self._assume)
        self.aws, self.environment, self.directory = aws, environment, directory
        self.instance_id = f"i-{secrets.token_hex(8)}0"
        self.tasks: dict[str, Task] = {}
        self.vcpus: dict[str, float] = {}  # of each task
        self.joined = False  # at any time
        self.connected = False  # so that it takes tasks
        self.lost = ""  # why it has ended by itself
        self._closing = threading.Event()
        self._start = ""  # the agent's last one
        self._config: dict[str, str] = {}  # that it has read then
        self._services = {name: aws.client(name) for name in CLIENTS}
        self._logged = threading.Lock()

    @property
    def arn(self) -> str:
        return f"{self.environment['clusterArn']}/{self.instance_id}"

    def close(self) -> None:
        """End the instance and what runs on it."""
        for task in list(self.tasks.values()):
            task.stop()
        self._closing.set()
        self.join()

    def run(self) -> None:
        try:
            with ExitStack() as stack:
                self._live(stack)
                for task in self.tasks.values():
                    task.stop()
                for task in self.tasks.values():
                    task.wait()
        finally:
            if self.joined and not self.environment["fargate"]:
                self.aws.agent("Leave", {"InstanceId": self.instance_id})
            self.connected = False

    def _live(self, stack: ExitStack) -> None:
        role = self._role() if self.environment["instanceRole"] else ""
        self._metadata = Metadata(self.instance_id, self.aws.region, role)
        self._metadata.assume = self._assume
        stack.enter_context(self._metadata)
        self._engine = stack.enter_context(TaskEngine(self.directory / "engine", etc=self._etc))
        if self.environment["fargate"]:
            self.joined = self.connected = True
            self._closing.wait()
            return
        theirs = base64.b64decode(self.environment["userData"])
        user_data = merged(theirs, self.environment["cluster"], self.environment["revision"])
        if len(user_data) > LIMIT:
            self.lost = f"User data is limited to {LIMIT} bytes"
            return
        machine = stack.enter_context(
            Machine(
                directory=self.directory / "machine",
                environ={
                    "AWS_ENDPOINT_URL": self.aws.endpoint,
                    "AWS_EC2_METADATA_SERVICE_ENDPOINT": self._metadata.url,
                },
                files={"/etc/ecs/ecs.config": b""},
            )
        )
        try:
            machine.boot(user_data, timeout=BOOT_SECONDS)
        except TimeoutError:
            self.lost = "its boot does not end"
            return
        self._watch(machine)

    def _watch(self, machine: Machine) -> None:
        """Follow the starts of the agent, and do what Run Command asks for."""
        me = {"InstanceId": self.instance_id, "Environment": self.environment["arn"]}
        while not self._closing.wait(0.05):
            if machine.ended:
                self.lost = "it has ended"
                return
            self._look(machine, me)
            if self.joined and (script := self.aws.agent("Take", me)):
                status = "Failed" if self._run_command(machine, script["Script"]) else "Success"
                self._look(machine, me)
                self.aws.agent("Report", {**script, "Status": status})

    def _run_command(self, machine: Machine, script: str) -> int:
        """Run a script, and wait for the end of a restart of the agent that it has begun."""
        before = machine.show("ecs.service", "InvocationID")
        status = machine.run(["sh", "-c", script]).returncode
        machine.run(["sh", "-c", AGENT_RESTARTED])
        if machine.show("ecs.service", "InvocationID") != before:
            machine.wait_until(lambda: _newest(machine) != self._start)
        return status

    def _look(self, machine: Machine, me: Data) -> None:
        """Read the agent's configuration when the agent has started, and at no other time."""
        root = machine.mounted_root
        if (start := _newest(machine)) != self._start:
            self._start = start
            self._config = read_ecs_config((root / "etc/ecs/ecs.config").read_bytes())
            # An agent that is sent through a proxy of nobody's gets no tasks: it is parked.
            self.connected = "HTTP_PROXY" not in self._config
            self.aws.agent("Join", {**me, "Connected": self.connected})
            self.joined = True

    # --- Tasks ---

    def start_task(self, order: Data) -> None:
        """Take a task from Batch."""
        container, task_id = order["container"], secrets.token_hex(16)
        options = container.get("logConfiguration", {}).get("options", {})
        prefix = options.get("awslogs-stream-prefix", order["definition"])
        stream = {
            "logGroupName": options.get("awslogs-group", GROUP),
            "logStreamName": f"{prefix}/default/{task_id}",
        }

        def report(status: str, **details: Any) -> None:
            if status == "RUNNING":
                self._open_log(**stream)
                details["logStreamName"] = stream["logStreamName"]
            self.aws.report(order["jobId"], status, **details)

        report(
            "STARTING",
            taskArn=f"{self.environment['clusterArn'].replace(':cluster/', ':task/')}/{task_id}",
            **({} if self.environment["fargate"] else {"containerInstanceArn": self.arn}),
        )
        self.tasks[order["jobId"]] = Task(
            self._engine,
            order,
            login=self._login,
            behavior=self._config.get("ECS_IMAGE_PULL_BEHAVIOR", "default"),
            variables=self._variables,
            report=report,
            log=lambda lines: self._log(stream, lines),
        )

    def _variables(self, container: Mapping[str, Any]) -> dict[str, str]:
        """Return what the agent adds to a container's environment; only the endpoints are ours."""
        role = container.get("jobRoleArn")
        kind = "FARGATE" if self.environment["fargate"] else "EC2"
        found = {"AWS_EXECUTION_ENV": f"AWS_ECS_{kind}", "AWS_ENDPOINT_URL": self.aws.endpoint}
        if role:
            found["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = self._metadata.task(role)
        else:
            found["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = self._metadata.url
        for each in container.get("secrets", []):
            # An ARN has seven parts; a key of a JSON secret may follow, then a stage and a version.
            parts = each["valueFrom"].split(":")
            text = self._read_secret(":".join(parts[:7]), container.get("executionRoleArn", ""))
            key = parts[7] if len(parts) > 7 else ""
            found[each["name"]] = str(json.loads(text)[key]) if key else text
        return found

    def _login(self, container: Mapping[str, Any]) -> Login | None:
        """Return the login for a task's image: the one that it carries, or the instance's."""
        own = container.get("repositoryCredentials")
        if not own and IMAGE.match(container["image"]):
            return self._tokens.login(container.get("executionRoleArn") or self._metadata.role)
        if not own:
            return auth_for(container["image"], self._config)
        text = self._read_secret(own["credentialsParameter"], container.get("executionRoleArn", ""))
        found = json.loads(text)
        return {name: found[name] for name in ("username", "password")}

    def _read_secret(self, secret: str, role: str) -> str:
        """Read a secret with the rights of the execution role."""
        try:
            (decision,) = self._services["iam"].simulate_principal_policy(
                PolicySourceArn=role,
                ActionNames=["secretsmanager:GetSecretValue"],
                ResourceArns=[secret],
            )["EvaluationResults"]
            if decision["EvalDecision"] != "allowed":
                raise TaskError(
                    "",
                    f"Asm fetching secret from the service for {secret}: AccessDeniedException: "
                    f"{role} is not authorized to perform: secretsmanager:GetSecretValue",
                )
            value = self._services["secretsmanager"].get_secret_value(SecretId=secret)
        except ClientError as error:
            raise TaskError(
                "", f"Asm fetching secret from the service for {secret}: {error}"
            ) from None
        return str(value["SecretString"])

    def _open_log(self, logGroupName: str, logStreamName: str) -> None:
        logs = self._services["logs"]
        with self._logged:
            groups = logs.describe_log_groups(logGroupNamePrefix=logGroupName)["logGroups"]
            if not any(group["logGroupName"] == logGroupName for group in groups):
                logs.create_log_group(logGroupName=logGroupName)
        logs.create_log_stream(logGroupName=logGroupName, logStreamName=logStreamName)

    def _log(self, stream: dict[str, str], lines: list[str]) -> None:
        now = int(time.time() * 1000)
        events = [{"timestamp": now, "message": line or " "} for line in lines]
        self._services["logs"].put_log_events(**stream, logEvents=events)

    # --- Roles ---

    def _role(self) -> str:
        """Return the ARN of the role in the environment's instance profile."""
        profile = self.environment["instanceRole"].rpartition("/")[2]
        found = self._services["iam"].get_instance_profile(InstanceProfileName=profile)
        roles = found["InstanceProfile"]["Roles"]
        return str(roles[0]["Arn"]) if roles else ""

    def _assume(self, role: str) -> Credentials:
        given = self._services["sts"].assume_role(RoleArn=role, RoleSessionName=self.instance_id)
        found = given["Credentials"]
        return {
            "AccessKeyId": found["AccessKeyId"],
            "SecretAccessKey": found["SecretAccessKey"],
            "Token": found["SessionToken"],
            "Expiration": found["Expiration"].strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
