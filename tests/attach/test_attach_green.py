"""Attaching an environment that AWS Batch cannot update in place: a copy goes first in the queues."""

from __future__ import annotations

import pytest
from attach_lab import KEPT, THEIRS, Lab

STATES = {
    "terraform's defaults": {
        "resources": {"allocationStrategy": "BEST_FIT"},
        "serviceRole": "arn:aws:iam::123456789012:role/batch",
    },
    "best fit": {"resources": {"allocationStrategy": "BEST_FIT"}},
    "could be updated": {},
}


def order(lab: Lab, queue: str = "") -> list[str]:
    """Return the environments of a queue, in order."""
    (found,) = lab.batch.describe_job_queues(jobQueues=[queue or lab.name])["jobQueues"]
    entries = sorted(found["computeEnvironmentOrder"], key=lambda entry: entry["order"])
    return [entry["computeEnvironment"] for entry in entries]


@pytest.mark.parametrize("state", STATES)
def test_copy_goes_first_and_detach_takes_it_away(lab, run, state):
    """The original stays as it was, to the field."""
    lab.make({"launchTemplateId": lab.template("base", THEIRS, KeyName="k")}, **STATES[state])
    before, queue = lab.environment, order(lab)
    if STATES[state]:
        refused = run("attach", lab.name, "--yes", status=1)
        assert "Run the same command with --blue-green" in refused.stderr
        assert (lab.environment, lab.companion) == (before, None)
    result = run("attach", lab.name, "--yes", "--blue-green")
    assert "becomes the first environment" in result.stderr
    green, *rest = order(lab)
    assert rest == queue
    assert green == lab.outputs["ComputeEnvironmentArn"]
    (copy,) = lab.batch.describe_compute_environments(computeEnvironments=[green])[
        "computeEnvironments"
    ]
    assert copy["status"] == "VALID"
    assert copy["computeResources"]["allocationStrategy"] == "BEST_FIT_PROGRESSIVE"
    assert "aws-service-role" in copy["serviceRole"]
    used = copy["computeResources"]["launchTemplate"]
    assert used["launchTemplateId"] == lab.outputs["LaunchTemplateId"]
    assert lab.environment == before
    stack = lab.companion
    assert "has the registry credentials" in run("attach", lab.name, **KEPT).stderr
    assert lab.companion == stack
    run("detach", lab.name, "--yes")
    assert order(lab) == queue
    assert lab.environment == before
    assert lab.companion is None
    assert not lab.batch.describe_compute_environments(computeEnvironments=[green])[
        "computeEnvironments"
    ]


def test_invalid_environment_is_replaced_in_its_queue(lab, run, aws):
    """No queue takes an INVALID one, and no update makes it VALID again."""
    lab.make({"launchTemplateId": lab.template("base", THEIRS)})
    queue = order(lab)
    for _ in range(2):
        aws.lost(lab.name, "the instance has ended")
    assert lab.environment["status"] == "INVALID"
    result = run("attach", lab.name, "--yes", status=1)
    assert f"{lab.name} is INVALID: CLIENT_ERROR" in result.stderr
    assert "--blue-green" in result.stderr
    run("attach", lab.name, "--yes", "--blue-green")
    assert order(lab) == [lab.outputs["ComputeEnvironmentArn"]]
    run("detach", lab.name, "--yes")
    assert order(lab) == queue


def test_queue_that_somebody_has_changed_keeps_the_change(lab, run, aws):
    """Only our copy goes."""
    other = Lab(aws, f"{lab.name}b").make(queue=False)
    lab.make(**STATES["best fit"])
    run("attach", lab.name, "--yes", "--blue-green")
    green, blue = order(lab)
    lab.batch.update_job_queue(
        jobQueue=lab.name,
        computeEnvironmentOrder=[
            {"order": number, "computeEnvironment": each}
            for number, each in enumerate([other.name, green, blue])
        ],
    )
    changed = order(lab)
    run("detach", lab.name, "--yes")
    assert order(lab) == [each for each in changed if each != green]


def test_queue_with_three_environments_has_no_room(lab, run, aws):
    """Three are the limit."""
    lab.make(queue=False, **STATES["best fit"])
    others = [Lab(aws, f"{lab.name}{letter}").make(queue=False).name for letter in "bc"]
    lab.batch.create_job_queue(
        jobQueueName=lab.name,
        priority=1,
        state="ENABLED",
        computeEnvironmentOrder=[
            {"order": number, "computeEnvironment": each}
            for number, each in enumerate([lab.name, *others])
        ],
    )
    result = run(
        "attach", lab.environment["computeEnvironmentArn"], "--yes", "--blue-green", status=1
    )
    assert "three compute environments" in result.stderr
    assert lab.companion is None
