"""What looks like a fault and is none: for each cause, facts next to it that must stay silent.

A table, and variants that are made from the catalogue: the same reason of a job that runs or has
succeeded, and of a compute environment that is VALID. The network has a matrix of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Change = dict[str, Any]

WAITS_LONG: Change = {"jobs.0.status": "RUNNABLE", "jobs.0.exit_code": None, "jobs.0.reasons": []}
WAITS: Change = {**WAITS_LONG, "jobs.0.created": "2026-07-01T11:58:00+00:00"}
THEIRS: Change = {
    "stack": None,
    "stack_name": "",
    "secrets": [],
    "launch_template": {
        "id": "lt-9f8e",
        "version": 3,
        "latest": 3,
        "fetches_credentials": False,
        "newest_fetches": False,
    },
}
YOUNG: Change = {"instances.0.launched": "2026-07-01T11:58:00+00:00"}
DENIED = "CannotPullImageManifestError: unauthorized"
UNREADABLE: Change = {"secrets.0.host": "", "secrets.0.seen": False, "image.anonymous": True}
IDLE: Change = {**WAITS_LONG, "instances": []}
LATE: Change = {"instances.0.agent": None, "instances.0.console": []}
ON_SPOT: Change = {"environments.0.type": "SPOT"}
PLAIN_IMAGE: Change = {
    "machine_image": {"id": "ami-1", "name": "al2023-ami-2023.9-x86_64", "by_amazon": True}
}
REFUSED: Change = {"image.ok": False, **WAITS}


def kind(name: str, vcpus: int, memory: int, gpus: int = 0, *zones: str) -> Change:
    """Return an instance type that EC2 offers."""
    return {
        "name": name,
        "vcpus": vcpus,
        "memory": memory,
        "gpus": gpus,
        "architectures": ["x86_64"],
        "zones": [*(zones or ("eu-central-1a",))],
    }


G4DN: Change = {
    "environments.0.instance_types": ["g4dn"],
    "environments.0.offered": [kind("g4dn.xlarge", 4, 16384, 1)],
}


def denied(action: str, **more: str) -> Change:
    return {"name": "theirs", "denied": [{"action": action, **more}]}


def failed(*reasons: str, **more: Any) -> Change:
    change = {"jobs.0.status": "FAILED", "jobs.0.exit_code": None, "jobs.0.reasons": [*reasons]}
    return {**change, **more}


NEAR: Mapping[str, list[Change]] = {
    "stack-missing": [{"stack": None}, {"stack": None, "stack_name": ""}],
    "stack-never-created": [{"stack.status": "CREATE_COMPLETE"}],
    "stack-failed": [{"stack.status": "IMPORT_COMPLETE"}],
    "stack-delete-stuck": [{"stack.status": "UPDATE_COMPLETE"}],
    "stack-update-stuck": [{"stack.status": "IMPORT_ROLLBACK_COMPLETE"}],
    "stack-busy": [{"stack.status": "UPDATE_COMPLETE"}],
    "environment-missing": [{"environments": []}],
    "environment-invalidated": [{"environments.0.reason": "none of the instances joined"}],
    "environment-invalid": [{"environments.0.status": "UPDATING"}],
    "user-data-not-mime": [{"launch_template": None}, {"launch_template.mime": True}],
    "service-role": [
        {"environments.0.service_role": "arn:aws:iam::1:role/batch"},
        {"service_role": {"name": "theirs", "simulated": False}},
        {"service_role": {"name": "theirs", "seen": False, "exists": False}},
        # A simulation of everything is not what AWS Batch does: instances show that it can.
        {**WAITS, "service_role": denied("ec2:RunInstances")},
        {"service_role": denied("ec2:RunInstances")},
    ],
    "service-linked-role-missing": [
        # The one of the environment's own is used, or nobody knows.
        {"service_linked_role": False, "environments.0.service_role": "arn:aws:iam::1:role/batch"},
        {"service_linked_role": None},
    ],
    "cluster-missing": [{"environments.0.type": "FARGATE", "environments.0.reason": "ECS cluster"}],
    "machine-image": [
        {"environments.0.reason": "customized AMI or LaunchTemplate"},
        {"machine_image": {"id": "ami-1", "architecture": "x86_64"}},
        {"machine_image": {"id": "ami-1", "architecture": "arm64"}, "environments.0.offered": None},
        {"machine_image": {"id": "ami-1", "state": "pending"}},
    ],
    "environment-disabled": [{"environments.0.state": ""}],
    "queue-missing": [{"queues": []}],
    "queue-disabled": [{"queues.0.state": ""}],
    "queue-invalid": [{"queues.0.status": "UPDATING"}],
    "queue-elsewhere": [
        {"queues.0.environments": ["another", "genomics-ComputeEnvironment-1"]},
        {**THEIRS, "queues.0.environments": ["another"]},
    ],
    "secret-missing": [{"secrets.0.seen": False, "secrets.0.keys": ["username", "password"]}],
    "secret-elsewhere": [{"secrets.0.arn": "team/ghcr"}, {"secrets.0.arn": ""}],
    "secret-deleted": [{"secrets.0.changed": ""}],
    "secret-empty": [{"secrets.0.others": 3}],
    "secret-not-json": [{"secrets.0.seen": False, "secrets.0.is_json": False}],
    "secret-incomplete": [{"secrets.0.keys": ["username", "password"]}],
    "secret-unusable": [{"secrets.0.problem": ""}],
    "secrets-clash": [
        {"secrets.1": {"name": "x", "host": "quay.io", "keys": ["username", "password"]}},
        {
            "secrets.1": {
                "name": "x",
                "of_job": True,
                "host": "ghcr.io",
                "keys": ["username", "password"],
            }
        },
    ],
    "key-unusable": [{"secrets.0.key_state": ""}, {"secrets.0.key": "", "secrets.0.key_state": ""}],
    "profile-missing": [{"role": None}, {"role.seen": False}],
    "role-not-trusted": [{"role.seen": False}],
    "role-denied": [{"role.simulated": False}],
    "key-denied": [{"role.simulated": False, "secrets.0.key_state": ""}],
    "policy-denies": [
        # A program that prints it has been started.
        {
            "jobs.0.reasons": [
                "not authorized to perform: s3:GetObject with an explicit deny in a x"
            ]
        },
        {"environments.0.reason": "ecs:CreateCluster with an explicit deny in a policy"},
    ],
    "role-without-ecs": [
        # The agent is connected, whatever a simulation says.
        {"role.denied": [{"action": "ecs:Poll"}, {"action": "ecs:RegisterContainerInstance"}]}
    ],
    "launch-template-missing": [{"launch_template": None}],
    "user-data-without-credentials": [THEIRS, {"launch_template": None}],
    "user-data-blocks": [{"launch_template.bytes": 16_384}],
    "user-data-too-long": [{"launch_template.bytes": 16_384}],
    "user-data-stops-agent": [
        {"launch_template.stops": "systemctl stop ecs"},  # and something starts it all the same
        {**YOUNG, **LATE, "launch_template.stops": "systemctl stop ecs"},
    ],
    "user-data-other-cluster": [
        {"launch_template.cluster": "default"},
        {**YOUNG, **LATE, "launch_template.cluster": "default"},
    ],
    "machine-image-without-agent": [
        PLAIN_IMAGE,  # it was installed
        {**YOUNG, **LATE, **PLAIN_IMAGE},
    ],
    "metadata-off": [{"launch_template.metadata": ""}],
    "image-misspelled": [{"image.cause": "host-case"}],
    "no-credentials-for-registry": [
        THEIRS,  # public images need none
        {**THEIRS, "jobs.0.status": "RUNNING", "jobs.0.reasons": [DENIED]},
        {**REFUSED, **UNREADABLE, "image.cause": "login-needed"},
        {
            **REFUSED,
            "jobs.0.own_credentials": True,
            "image.cause": "login-needed",
            "image.anonymous": True,
        },
        {
            **THEIRS,
            **REFUSED,
            "image.cause": "login-needed",
            "image.anonymous": True,
            "launch_template.sets_credentials": True,
        },
        {**THEIRS, **REFUSED, "image.cause": "login-needed", "image.anonymous": True}
        | {"launch_template": None},
    ],
    "wrong-credentials": [{**REFUSED, **UNREADABLE, "image.cause": "wrong-login"}],
    "no-permission": [{**REFUSED, **UNREADABLE, "image.cause": "no-right"}],
    "no-tag": [{**REFUSED, **UNREADABLE, "image.cause": "no-repository"}],
    "rate-limited": [
        {**REFUSED, **UNREADABLE, "image.cause": "rate-limited"},
        # It comes by now.
        failed("CannotPullContainerError: toomanyrequests", **{"jobs.0.asked": False}),
    ],
    "wrong-architecture": [{**REFUSED, **UNREADABLE, "image.cause": "wrong-architecture"}],
    "no-interpreter": [{"jobs.0.reasons": ["exec /run.sh: exec format error"]}],
    "tls": [{"image.ok": False, "image.cause": "tls"}],
    "registry-unreachable": [
        {"image.ok": False, "image.cause": "unreachable"},  # a job has run
        {**REFUSED, "image.cause": "unreachable", "running_images": ["ghcr.io/lab/other:1"]},
    ],
    "disk-full": [{"jobs.0.reasons": ["no space left on device"]}],
    "image-refused": [{**REFUSED, **UNREADABLE, "image.cause": "blocked"}],
    "pull-denied": [{"jobs.0.status": "RUNNING", "jobs.0.reasons": [DENIED]}],
    "ecr-denied": [
        {
            "jobs.0.image": "111122223333.dkr.ecr.eu-central-1.amazonaws.com/align:3",
            "jobs.0.status": "RUNNING",
            "jobs.0.reasons": ["CannotPullECRContainerError: denied"],
        }
    ],
    "pull-failed": [{"jobs.0.reasons": ["CannotPullContainerError: surprise"]}],
    "job-missing": [{"jobs": None}],
    "job-elsewhere": [
        {"jobs.0.queue": "another", "jobs.0.asked": False},
        {**THEIRS, "jobs.0.queue": "another"},
    ],
    "no-gpu": [
        {"jobs.0.gpus": 1},  # it has run
        {**WAITS, **G4DN, "jobs.0.gpus": 1, "environments.0.image_type": "ECS_AL2023_NVIDIA"},
        {**WAITS, **G4DN, "jobs.0.gpus": 1, "environments.0.image_type": ""},  # Batch's choice
        {**WAITS, **G4DN, "jobs.0.gpus": 1, "environments.0.custom_image": True},
        {**WAITS, **G4DN, "jobs.0.gpus": 1, "machine_image": {"id": "ami-1"}},
        {
            **WAITS,
            "jobs.0.gpus": 1,
            "environments.0.image_type": "ECS_AL2023_NVIDIA",
            "environments.0.offered": None,
        },
        {**WAITS, "jobs.0.gpus": 1, "jobs.0.fargate": True},
    ],
    "job-too-large": [
        {**WAITS, "jobs.0.vcpus": 192},
        {"jobs.0.vcpus": 512},
        {**WAITS, "jobs.0.vcpus": 512, "environments.1": {"name": "big", "max_vcpus": 1024}},
        {**WAITS, "jobs.0.memory": 786_400},  # all but what is always kept
        {"jobs.0.memory": 900_000},  # it has run
        {**WAITS, "jobs.0.memory": 900_000, "environments.0.offered": None},
        {**WAITS, "jobs.0.memory": 900_000, "jobs.0.fargate": True},
        {
            **WAITS,
            "jobs.0.memory": 900_000,
            "environments.1": {"name": "big", "offered": [kind("x2idn.16xlarge", 64, 1_048_576)]},
        },
        # Other strategies exceed maxvCpus by one instance.
        {**WAITS, "jobs.0.memory": 60_000, "environments.0.max_vcpus": 4},
        {
            **WAITS,
            "jobs.0.memory": 60_000,
            "environments.0.max_vcpus": 16,
            "environments.0.strategy": "BEST_FIT",
        },
    ],
    "vcpu-quota": [
        {**WAITS, "jobs.0.vcpus": 64, "quota.value": 192.0},
        {**WAITS, "jobs.0.memory": 60_000, "quota.value": 16.0},
        {**WAITS, "jobs.0.memory": 120_000, "quota.value": 16.0, "environments.1": {"name": "big"}},
        {"quota": None},
    ],
    "no-capacity": [{"jobs.0.reasons": ["CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY"]}],
    "instance-types-unsupported": [
        {"jobs.0.reasons": ["instance type is not supported"]},
        # One of the subnets is enough.
        {**WAITS, "environments.0.offered": [kind("m7i.xlarge", 4, 16384, 0, "eu-central-1b")]},
        {**WAITS, "environments.0.offered": [{**kind("m7i.xlarge", 4, 16384), "zones": None}]},
        {
            "environments.0.offered": [kind("m7i.xlarge", 4, 16384, 0, "eu-central-1c")],
            "subnets.1.zone": "",
        },
        {
            **WAITS,
            "environments.0.offered": [
                kind("m7i.xlarge", 4, 16384, 0, "eu-central-1c"),
                kind("m7i.2xlarge", 8, 32768, 0, "eu-central-1a"),
            ],
        },
    ],
    "spot-price": [{**ON_SPOT, "spot_failures": []}],
    "spot-role": [
        {**IDLE, "spot_role": None, "queues.0.running": 1},
        {**ON_SPOT, "spot_role": False},  # instances run
        {**ON_SPOT, **WAITS, "spot_role": False, "instances": []},  # it has not been long
        {**ON_SPOT, "spot_role": False, "instances": None, **WAITS},
        {**ON_SPOT, "fleet_role": {"name": "fleet", "seen": False, "trusted": False}},
        {**ON_SPOT, "fleet_role": denied("ec2:RequestSpotInstances")},
    ],
    "volume-key": [{"instances.0.reason": "Client.UserInitiatedShutdown: ended"}],
    "launch-failed": [
        {"instances.0.reason": "Client.UserInitiatedShutdown: ended"},
        {"instances.0.reason": "Server.SpotInstanceTermination: Spot"},
    ],
    "execution-role": [
        {"jobs.0.reasons": ["unable to assume the role"]},
        {
            **WAITS,
            "jobs.0.execution_role": "arn:aws:iam::1:role/execution",
            "job_roles": [{"name": "execution", "seen": False, "trusted": False}],
        },
        {**WAITS, "job_roles": [{"name": "another", "exists": False}]},
    ],
    "job-role": [
        {"job_roles": [{"name": "align", "trusted": False}]},  # the job has run
        {**WAITS, "job_roles": None},
    ],
    "log-driver": [{"jobs.0.reasons": ["log group"]}],
    "mount-failed": [{"jobs.0.reasons": ["failed to mount"]}],
    "gpu-driver": [{"jobs.0.reasons": ["nvidia-container-cli"]}],
    "docker-timeout": [{"jobs.0.reasons": ["DockerTimeoutError"]}],
    "dependency-failed": [{**WAITS, "jobs.0.status": "PENDING"}],
    "container-not-started": [{"jobs.0.reasons": ["CannotStartContainerError: exec"]}],
    "container-refused": [{"jobs.0.reasons": ["CannotCreateContainerError: Conflict"]}],
    "out-of-memory": [{"jobs.0.reasons": ["OutOfMemoryError"]}],
    "host-terminated": [{"jobs.0.status": "RUNNING", "jobs.0.reasons": ["Host EC2 terminated"]}],
    "timed-out": [{"jobs.0.reasons": ["Job attempt duration exceeded timeout"]}],
    # Programs fail every day: only who asks about the job wants to know.
    "job-failed": [{**failed("it failed"), "jobs.0.exit_code": 3, "jobs.0.asked": False}],
    "job-waits": [
        WAITS,
        {**WAITS_LONG, "queues.0.running": 7},  # others run: it is their turn
        {**WAITS_LONG, "queues.0.running": None},
        {**WAITS_LONG, "jobs.0.status": "PENDING"},
    ],
    "parked": [{"instances.0.console": ["parked: s: HTTP 400", "released"]}],
    "no-credentials": [
        YOUNG | {"instances.0.console": ["waiting for s: HTTP 400"]},
        {"instances.0.console": ["continuing without credentials: s: x", "released"]},
    ],
    "agent-disconnected": [
        YOUNG | {"instances.0.agent": False, "instances.0.console": []},
        {"instances.0.agent": False, "instances.0.state": "terminated"},
    ],
    "never-joined": [
        YOUNG | {"instances.0.agent": None, "instances.0.console": []},
        {"instances.0.agent": None, "instances.0.agent_seen": False},
        {"instances.0.agent": None, "instances.0.state": "terminated"},
    ],
    "instance-draining": [
        {"instances.0.status": "DRAINING"},
        {**WAITS, "instances.0.status": "DRAINING"},
        {**WAITS_LONG, "instances.0.status": "DRAINING", "queues.0.running": 2},
    ],
    "no-awslogs": [
        {"instances.0.awslogs": False},  # nothing waits
        {**WAITS, "instances.0.awslogs": False},
        {**WAITS_LONG, "instances.0.awslogs": False, "queues.0.running": 1},
    ],
    "vcpus-in-use": [
        {"environments.0.desired_vcpus": 256},
        {**WAITS, "environments.0.desired_vcpus": 256},
        # It is its own queue's turn, and a busy queue is healthy.
        {**WAITS_LONG, "environments.0.desired_vcpus": 256, "queues.0.running": 3},
    ],
    "launch-template-old": [
        {"launch_template.latest": 2, "launch_template.newest_differs": False},
        {**THEIRS, "launch_template.latest": 9},
        {**THEIRS, "launch_template.latest": 9, "launch_template.fetches_credentials": True},
    ],
    "user-data-changed": [{"launch_template.differs": None}],
    "machine-image-custom": [{**THEIRS, "launch_template.machine_image": "ami-1"}],
    "update-rolled-back": [{"stack.status": "UPDATE_COMPLETE", "stack.cause": "earlier"}],
}


def made_from(change: Change) -> Iterator[Change]:
    """Yield what the catalogue's facts are without being a fault."""
    if change.get("jobs.0.status") == "FAILED" and all(
        path.startswith("jobs.0.") or path == "image" for path in change
    ):
        without = {path: value for path, value in change.items() if path != "jobs.0.exit_code"}
        yield {**without, "jobs.0.status": "RUNNING", "jobs.0.exit_code": None}
        yield {**without, "jobs.0.status": "SUCCEEDED", "jobs.0.exit_code": 0}
    if change.get("environments.0.status") == "INVALID" and all(
        path.startswith("environments.0.") for path in change
    ):
        yield {**change, "environments.0.status": "VALID"}
