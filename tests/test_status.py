"""`batchreg status` as a subprocess against the embedded AWS."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from account import submit

from batchreg import __version__


@pytest.fixture
def status(batchreg, account):
    """Run `batchreg status` for the stack and return what it prints."""

    def run(*arguments: str) -> str:
        result = batchreg(
            "status", "--stack-name", account.name, *arguments, environ=account.aws.environ
        )
        assert (result.returncode, result.stderr) == (0, "")
        return result.stdout

    return run


def test_healthy_stack_is_seven_lines_and_its_settings(status, made):
    """What to look at first, each on a line of its own, in columns."""
    text = status()
    assert [line[:19].rstrip() for line in text.splitlines()[:7]] == [
        "Stack",
        "Compute environment",
        "Job queue",
        "Secret",
        "Instances",
        "Jobs",
        "Template",
    ]
    assert re.search(f"^Stack +CREATE_COMPLETE  {made.name}$", text, re.MULTILINE)
    assert text.count("VALID, ENABLED") == 2
    assert "as rendered now" in text


def test_jobs_are_counted_by_state(status, made):
    """A queue that is stuck shows as RUNNABLE jobs."""
    submit(made, "RUNNABLE", "RUNNING", "RUNNING", "FAILED")
    assert re.search("^Jobs +1 RUNNABLE, 2 RUNNING, 1 FAILED$", status(), re.MULTILINE)


def test_disabled_queue_shows_with_its_reason(status, made):
    """The usual cause of jobs that wait for ever; a healthy part's reason is not shown."""
    made.aws.client("batch").update_job_queue(
        jobQueue=made.outputs["JobQueueArn"], state="DISABLED"
    )
    assert re.search(
        "^Job queue +VALID, DISABLED  .+\n +JobQueue is ready$", status(), re.MULTILINE
    )


def test_secret_shows_when_it_last_changed(status, made):
    """An expired token is found by its age."""
    assert re.search("^Secret +changed [-0-9]{10} [0-9:]{5}  Docker Hub$", status(), re.MULTILINE)
    changed = json.loads(status("--json"))["secrets"][made.outputs["RegistrySecretArn"]]
    age = datetime.now(UTC) - datetime.fromisoformat(changed)
    assert timedelta(seconds=-2) < age < timedelta(minutes=1)


def test_secret_that_is_gone_is_said_so(status, made, aws):
    """By what it means, and not by the name of AWS's exception."""
    aws.client("secretsmanager").delete_secret(
        SecretId=made.outputs["RegistrySecretArn"], ForceDeleteWithoutRecovery=True
    )
    assert "\nSecret               does not exist  Docker Hub\n" in status()


def test_template_of_another_version_differs(status, account, template):
    """Whoever has a newer batchreg sees that a deploy would change something, and what."""
    account.make(template.replace("once", "twice", 1))
    assert (
        f"not as rendered now  batchreg {__version__}\n"
        f"{'':21}To update it: batchreg deploy --stack-name {account.name}\n"
    ) in status()
    seen = json.loads(status("--json"))
    assert seen["differs"] is True
    assert any(line.startswith("-") and "twice" in line for line in seen["difference"])


def test_json_is_one_result(status, made):
    """All that the lines for people say, and the outputs, for a machine."""
    seen = json.loads(status("--json"))
    assert (seen["type"], seen["stack"], seen["status"]) == ("result", made.name, "CREATE_COMPLETE")
    assert seen["outputs"] == made.outputs
    assert [part["status"] for part in seen["job_queues"]] == ["VALID"]


def test_settings_have_the_labels_of_the_template(status, made):
    """What somebody would ask the console for; in --json with the names of the parameters."""
    lines = status().splitlines()[7:]
    assert [line for line in lines if len(line) > 80] == []
    shown = dict(re.split("  +", line, maxsplit=1) for line in lines if line[:1] != " ")
    assert (shown["Image type"], shown["Maximum vCPUs"]) == ("ECS_AL2023", "256")
    assert (shown["Instance types"], shown["Provisioning model"]) == ("optimal", "EC2")
    assert shown["Security groups"] == made.parameters["SecurityGroupIDs"]
    text = "".join(lines).replace(" ", "")
    assert made.parameters["SubnetIDs"] in text
    settings = {each["name"]: each["value"] for each in json.loads(status("--json"))["settings"]}
    public = {name: value for name, value in made.parameters.items() if value}
    for name in ("Username", "Password", "RegistryUrl"):
        public.pop(name, None)
    assert settings == {"ImageType": "ECS_AL2023", **public}


def test_outputs_alone_are_lines_for_scripts(status, made):
    """ARNs and ids, which deploy does not print."""
    lines = status("--outputs").splitlines()
    assert dict(line.split(": ") for line in lines) == made.outputs


def test_missing_stack_is_one_line_that_says_how_to_make_it(batchreg, aws, stack):
    """Status 1: a script that asks wants to know."""
    result = batchreg("status", "--stack-name", stack, environ=aws.environ)
    assert (result.returncode, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"batchreg: There is no stack {stack} in us-east-1. ")
    assert line.endswith(f" To create it: batchreg deploy --stack-name {stack}")
