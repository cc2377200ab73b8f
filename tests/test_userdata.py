"""The user data: a MIME archive that CloudFormation, AWS Batch and cloud-init all take."""

from __future__ import annotations

import email
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import botocore.session
import lint_templates
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchreg.errors import BatchregError
from batchreg.render import template, userdata
from batchreg.render.settings import Settings
from batchreg.render.text import read_template, to_json, to_yaml

VALUES = {
    "AWS::Region": "eu-central-1",
    "AWS::URLSuffix": "amazonaws.com",
    "RegistrySecret": "arn:aws:secretsmanager:eu-central-1:111122223333:secret:R-AbCdEf",
    "CredentialRefreshMinutes": "30",
    "ImagePullBehavior": "default",
}
FOLDERS = ("/opt/batchreg", "/etc/systemd/system")


def archive(*user_parts: str) -> email.message.Message:
    text = userdata.resolve(userdata.build(["${RegistrySecret}"], user_parts), VALUES)
    return email.message_from_string(text)


def parts(*user_parts: str) -> list[email.message.Message]:
    return archive(*user_parts).get_payload()


def read(tmp_path, content: str | bytes) -> tuple[str, ...]:
    path = tmp_path / "own"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return userdata.read_parts(path)


def test_archive_is_small_ascii_and_without_defects():
    """EC2 takes 16 KB, of which AWS Batch needs some for itself."""
    text = userdata.build(["${RegistrySecret}"])
    assert text.isascii()
    assert len(text) < 15 * 1024
    assert not any(part.defects for part in archive().walk())


def test_boundary_is_not_that_of_aws_batch():
    """Batch merges a part of its own into the archive, with ==BOUNDARY==."""
    assert archive().get_boundary() != "==BOUNDARY=="


def installed(script: str, folder: Path) -> dict[str, str]:
    """Let a shell write the files of our part below `folder`; return {path: content}."""
    for path in FOLDERS:
        (folder / path[1:]).mkdir(parents=True)
        script = script.replace(f" {path}", f" {folder}{path}")
    subprocess.run(
        ["sh", "-e"], input=script.partition("systemctl enable")[0], text=True, check=True
    )
    return {
        f"/{path.relative_to(folder)}": path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("packed", [False, True])
def test_our_part_writes_the_program_and_the_units(tmp_path, packed):
    """What a shell makes of it is the code as it stands in the repository, byte for byte."""
    text = userdata.archive([userdata.part(["${RegistrySecret}"], packed=packed)])
    (ours,) = email.message_from_string(userdata.resolve(text, VALUES)).get_payload()
    files = installed(ours.get_payload(), tmp_path)
    assert files.pop(userdata.SCRIPT_PATH) == userdata.script()
    assert files.pop("/opt/batchreg/args").splitlines() == [
        "--region=eu-central-1",
        "--url-suffix=amazonaws.com",
        "--secret-id=" + VALUES["RegistrySecret"],
        "--setting=ECS_IMAGE_PULL_BEHAVIOR=default",
        "--on-failure=park",
    ]
    assert files.pop("/opt/batchreg/parking").splitlines() == [
        "HTTP_PROXY=127.0.0.1:9",
        "NO_PROXY=ecs.eu-central-1.amazonaws.com,ec2.eu-central-1.amazonaws.com,169.254.169.254,"
        "/var/run/docker.sock",
    ]
    run = files.pop("/opt/batchreg/run").replace(str(tmp_path), "")
    assert run == userdata.RUN
    assert files.pop("/etc/systemd/system/batchreg.service") == userdata.SERVICE.replace(
        " /opt", f" {tmp_path}/opt"
    )
    assert files.pop("/etc/systemd/system/batchreg-retry.timer") == userdata.RETRY_TIMER
    assert "OnUnitActiveSec=30min\n" in files.pop("/etc/systemd/system/batchreg.timer")
    assert files == {}


def test_our_part_is_the_last_one_by_place_and_by_name(tmp_path):
    """cloud-init sorts scripts by name: a part without one is part-NNN, a list of runcmd runcmd."""
    own = read(tmp_path, "#!/bin/sh\n")
    ours = parts(*own)[-1]
    name = ours.get_filename()
    assert name > max("00-x", "ecs.sh", "part-999", "runcmd", "zz-last", "zzz.sh")
    assert userdata.SCRIPT_PATH.rpartition("/")[2] in ours.get_payload()


def test_our_part_only_installs():
    """Whatever it did itself, a later part could undo."""
    commands = userdata.INSTALL.splitlines()
    assert [line.split()[:2] for line in commands] == [
        ["systemctl", "enable"],
        ["systemctl", "--no-block"],
    ]
    outside = re.sub(r"(?s)<<'EOF'.*?\nEOF\n", "\n", parts()[-1].get_payload())
    assert "python3" not in outside
    assert "ecs.config" not in outside


def test_service_runs_before_each_start_of_the_agent_and_after_the_boot():
    """Neither a script of the boot nor one that rewrites ecs.config comes between."""
    unit = userdata.SERVICE.splitlines()
    assert {"After=cloud-final.service", "Before=ecs.service", "WantedBy=ecs.service"} < {*unit}


def test_readable_form_is_used_as_long_as_there_is_room(tmp_path):
    """People look at what runs on their instances."""
    assert userdata.script() in parts()[-1].get_payload()
    assert (
        "registry_key" not in parts(*read(tmp_path, "#!/bin/sh\n" + "#" * 3000))[-1].get_payload()
    )


def test_nine_registries_and_a_part_of_three_kilobytes_fit(tmp_path):
    """And 1,024 bytes are left for AWS Batch's own part, with ARNs of any length."""
    own = read(tmp_path, "#!/bin/sh\n" + "echo 'a line of a script of theirs' > /dev/null\n" * 63)
    assert len(own[0]) > 3000
    text = userdata.build([f"${{RegistrySecret{n}}}" for n in range(90, 99)], own)
    arn = VALUES["RegistrySecret"] + "x" * (userdata.ARN_BYTES - len(VALUES["RegistrySecret"]) + 19)
    values = {**VALUES, **{f"RegistrySecret{n}": arn for n in range(90, 99)}}
    assert len(userdata.resolve(text, values)) <= 16_384 - 1_024


def test_same_settings_give_the_same_bytes():
    """In another process, too, or each deploy would replace all instances."""
    script = (
        "from batchreg.render import userdata; import sys\n"
        "sys.stdout.write(userdata.part(['s'], packed=True))"
    )
    done = [
        subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in "12"
    ]
    assert done == [userdata.part(["s"], packed=True)] * 2


@pytest.mark.parametrize("packed", [False, True])
def test_constant_portion_is_the_same_for_all_parts(packed):
    """Ten overrides of a launch template share it, and none of it is a placeholder."""
    constant = userdata.constant_portion(packed)
    for secrets, on_failure in ((["a"], "park"), (["b", "${C}"], "join")):
        variable = userdata.variable_portion(secrets, on_failure=on_failure)
        assert userdata.part(
            secrets, on_failure=on_failure, packed=packed
        ) == variable + userdata.escape(constant)
        assert len(variable) < 900


def test_part_of_an_attached_environment_joins_and_leaves_the_pull_behavior_alone():
    """Its instances worked before."""
    text = userdata.part(["a"], on_failure="join", image_pull_behavior=None)
    assert "\n--on-failure=join\n" in text
    assert "--setting" not in text.partition("EOF\n")[0]


@pytest.mark.parametrize("on_failure", ["park", "join"])
def test_on_failure_comes_back_from_the_archive(on_failure):
    """So that a later deploy keeps it."""
    made = Settings(on_failure=on_failure, user_parts=("Content-Type: text/x-shellscript\n\n#!x",))
    assert read_template(to_yaml(template.build(made))).settings == made


def test_unknown_on_failure_is_refused():
    """A typo would leave an instance without either."""
    with pytest.raises(BatchregError, match="Use park or join"):
        Settings(on_failure="stop")


def test_patience_is_what_the_program_has():
    """doctor must not complain of an instance that is still trying."""
    source = userdata.script()
    assert f'option("--deadline", type=float, default={userdata.BOOT_DEADLINE_SECONDS})' in source
    assert f'option("--patience", type=float, default={userdata.POWER_OFF_SECONDS})' in source
    assert f"late > {userdata.REGISTRATION_SECONDS} " in source
    assert userdata.PATIENCE_SECONDS == 630 + 300 + 60 + userdata.RETRY_SECONDS


# The shell where Python cannot run the program


@dataclass(frozen=True)
class Shell:
    """`run` in a folder of its own, with stand-ins for the programs that it calls."""

    folder: Path

    def __call__(self, *arguments: str, python: str, **environ: str) -> subprocess.CompletedProcess:
        stubs = {"python3": python, "systemctl": "", "systemd-run": "", "sleep": ""}
        (self.folder / "bin").mkdir(exist_ok=True)
        for name, text in stubs.items():
            stub = self.folder / "bin" / name
            stub.write_text(f'#!/bin/sh\necho "{name} $*" >>{self.folder}/calls\n{text}\n')
            stub.chmod(0o755)
        script = userdata.RUN
        for path in ("/opt/batchreg", "/etc/ecs", "/run/batchreg.json"):
            script = script.replace(path, f"{self.folder}{path}")
        return subprocess.run(
            ["sh", "-c", script, "run", *arguments],
            capture_output=True,
            text=True,
            env={"PATH": f"{self.folder}/bin:/usr/bin:/bin", **environ},
        )

    @property
    def config(self) -> Path:
        return self.folder / "etc/ecs/ecs.config"

    @property
    def calls(self) -> list[str]:
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if not line.startswith("python3 ")]


@pytest.fixture
def shell(tmp_path: Path) -> Callable[..., Shell]:
    def make(on_failure: str) -> Shell:
        text = userdata.resolve(userdata.part(["s"], on_failure=on_failure), VALUES)
        installed(text.partition("\n\n")[2], tmp_path)
        return Shell(tmp_path)

    return make


OLD_PYTHON = 'case "$*" in *version_info*) exit 1;; esac'
CRASHES = 'case "$*" in *args*) exit 139;; esac'
BROKEN = 'case "$*" in *args*) exit 1;; esac'  # before the program begins


@pytest.mark.parametrize(
    ("python", "why"),
    [
        (OLD_PYTHON, "it needs python3, 3.6 or newer"),
        (CRASHES, "registry_login.py ended with 139"),
        (BROKEN, "registry_login.py ended with 1"),
    ],
    ids=["old", "crashes", "broken"],
)
def test_shell_parks_the_agent_once_or_lets_it_join(shell, tmp_path, python, why):
    """As the stack wants it, and it says so."""
    park = shell("park")
    park.config.parent.mkdir(parents=True)
    park.config.write_text("ECS_CLUSTER=blue")
    assert park(python=python).stdout == f"batchreg: parked: {why}\n"
    expected = "ECS_CLUSTER=blue\n" + (tmp_path / "opt/batchreg/parking").read_text()
    assert park.config.read_text() == expected
    assert len(park.calls) == 1
    assert park.calls[0] == (
        "systemd-run -q --on-active=930 systemctl poweroff"
        if python == OLD_PYTHON
        else "systemctl --no-block start batchreg-retry.timer"
    )
    assert (park(python=python).stdout, park.config.read_text()) == ("", expected)
    assert len(park.calls) == 1


def test_shell_lets_the_agent_join(shell):
    """And touches nothing."""
    join = shell("join")
    assert join(python=OLD_PYTHON).stdout == (
        "batchreg: continuing without credentials: it needs python3, 3.6 or newer\n"
    )
    assert (join.config.exists(), join.calls) == (False, [])


def test_shell_holds_the_agent_behind_somebodys_proxy_and_powers_off(shell):
    """It cannot park it."""
    park = shell("park")
    park.config.parent.mkdir(parents=True)
    park.config.write_text("HTTPS_PROXY=http://proxy\n")
    park(python=OLD_PYTHON)
    assert park.config.read_text() == "HTTPS_PROXY=http://proxy\n"
    assert park.calls == ["sleep 630", "systemctl --no-block poweroff"]


def test_shell_leaves_an_agent_with_credentials_alone(shell):
    """Whatever has become of Python."""
    park = shell("park")
    park.config.parent.mkdir(parents=True)
    park.config.write_text('ECS_ENGINE_AUTH_DATA={"ghcr.io":{"auth":"YTpi"}}\n')
    assert (park(python=CRASHES).stdout, park.calls) == ("", [])


@pytest.mark.parametrize(("code", "again"), [(0, False), (1, False)])
def test_shell_passes_on_how_the_program_ended(shell, tmp_path, code, again):
    """Run Command tells from it whether the instance has the new password."""
    park = shell("park")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/batchreg.json").write_text("{}")
    done = park(python=f'case "$*" in *args*) exit {code};; esac')
    assert (done.returncode, done.stdout, park.config.exists()) == (code, "", again)


@pytest.mark.parametrize(
    ("result", "runs"), [("success", 0), ("exit-code", 0), ("signal", 1), ("oom-kill", 1), ("", 0)]
)
def test_run_that_was_killed_is_repeated(shell, tmp_path, result, runs):
    """Or the agent would start without credentials, and not parked."""
    park = shell("park")
    done = park("--deadline=5", python="", SERVICE_RESULT=result)
    path = tmp_path / "calls"
    calls = path.read_text() if path.exists() else ""
    assert calls.count("python3 registry_login.py @args --deadline=5\n") == runs
    assert runs or done.returncode == 0


def test_several_secrets_are_several_arguments():
    """One registry each."""
    text = userdata.for_instance(["one", "two"], "eu-central-1")
    assert "\n--secret-id=one\n--secret-id=two\n" in text


def test_parts_of_the_user_come_back_from_the_archive(tmp_path):
    """So that a later deploy keeps them and writes ours again."""
    own = read(tmp_path, f'#!/bin/bash\necho "${{HOME}}" {userdata.SCRIPT_PATH}')
    assert userdata.user_parts(userdata.build(["s"], own)) == own
    assert userdata.user_parts(userdata.build(["s"])) == ()
    # Version 0.1.0 wrote ours first, under another name.
    old = userdata.part(["s"]).replace(userdata.NAME, "00-batchreg")
    assert userdata.user_parts(userdata.archive([old, *map(userdata.escape, own)])) == own


@pytest.mark.parametrize("region", lint_templates.batch_regions())
def test_user_data_asks_in_the_domain_of_its_partition(region):
    """botocore knows the domains; most of them are amazonaws.com."""
    partitions = botocore.session.Session().get_data("partitions")["partitions"]
    suffix = next(
        partition["outputs"]["dnsSuffix"]
        for partition in partitions
        if re.match(partition["regionRegex"], region)
    )
    assert f"--url-suffix={suffix}\n" in userdata.for_instance(["x"], region)


def test_secrets_of_another_region_are_refused():
    """An instance asks its own region alone, and would power off for want of a login."""
    arn = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:x-AbCdEf"
    assert userdata.for_instance([arn], "eu-west-1")
    with pytest.raises(BatchregError, match="is not in us-east-1"):
        userdata.for_instance([arn], "us-east-1")
    with pytest.raises(BatchregError, match="in several regions"):
        Settings(secret_arns=(arn, arn.replace("eu-west-1", "us-east-1")))


def test_template_and_command_give_the_same_user_data():
    """Whoever moves to Terraform gets what CloudFormation made."""
    built = json.loads(to_json(template.build(Settings())))
    data = built["Resources"]["LaunchTemplate"]["Properties"]["LaunchTemplateData"]
    text = userdata.resolve(data["UserData"]["Fn::Base64"]["Fn::Sub"], VALUES)
    assert text == userdata.for_instance([VALUES["RegistrySecret"]], "eu-central-1")


@given(st.text(alphabet="${}!aA:\n ", max_size=60))
def test_every_literal_survives_sub(text):
    """Fn::Sub reads ${...} as a variable, so that a shell's own must be escaped."""
    assert userdata.resolve(userdata.escape(text), {}) == text


def test_resolve_knows_every_placeholder():
    """A forgotten one is an error here, not a line `${...}` on an instance."""
    with pytest.raises(KeyError):
        userdata.resolve("${Forgotten}", {})


def test_script_becomes_a_part(tmp_path):
    """The simplest user data there is."""
    (own,) = read(tmp_path, '#!/bin/bash\necho "${HOME}"\n')
    assert parts(own)[0].get_content_type() == "text/x-shellscript"
    assert parts(own)[0].get_payload() == '#!/bin/bash\necho "${HOME}"\n'


def test_windows_line_ends_become_unix_ones(tmp_path):
    """A shell looks for an interpreter named "bash\\r"."""
    (own,) = read(tmp_path, "#!/bin/bash\r\necho\r\n")
    assert "\r" not in own


def test_text_beyond_ascii_travels_in_base64(tmp_path):
    """User data stays ASCII whatever people write into it."""
    script = "#!/bin/sh\necho grüße ${X} 🐟\n"
    (own,) = read(tmp_path, script)
    assert own.isascii()
    assert parts(own)[0].get_payload(decode=True).decode() == script


@pytest.mark.parametrize("script", ["#!/bin/sh\necho ${A:-${B}}\n", "#!/bin/sh\necho '${'\n"])
def test_nested_and_open_dollars_travel_in_base64(tmp_path, script):
    """Nobody has documented what Fn::Sub makes of them; base64 has no dollars."""
    (own,) = read(tmp_path, script)
    assert "${" not in own
    assert parts(own)[0].get_payload(decode=True).decode() == script


def test_archive_keeps_its_parts_and_their_headers(tmp_path):
    """Names, merge rules and encodings are the user's."""
    own = read(
        tmp_path,
        "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n"
        "--b\nContent-Type: text/cloud-config\nX-Merge-Type: list(append)\n\n"
        "#cloud-config\nruncmd: [a]\n--b\nContent-Type: text/x-shellscript\n"
        "Content-Transfer-Encoding: base64\n\nIyEvYmluL3NoCg==\n--b--\n",
    )
    assert [part.get_content_type() for part in parts(*own)] == [
        "text/cloud-config",
        "text/x-shellscript",
        "text/x-shellscript",
    ]
    assert parts(*own)[0]["X-Merge-Type"] == "list(append)"
    assert parts(*own)[1].get_payload(decode=True) == b"#!/bin/sh\n"


def test_a_part_that_holds_our_boundary_moves_it(tmp_path):
    """Two nested archives of ours must not cut each other."""
    (own,) = read(tmp_path, "#!/bin/sh\ncat <<E\n--==batchreg==\nE\n")
    assert parts(own)[0].get_payload() == "#!/bin/sh\ncat <<E\n--==batchreg==\nE\n"


def test_limit_counts_the_whole_archive():
    """One byte too many is an error with the number in it."""

    def padded(size: int) -> str:
        return "Content-Type: text/x-shellscript\n\n#!" + "x" * size

    packed = len(userdata.build(["s"], [padded(3_000)])) - 3_000
    fits = userdata.LIMIT - packed
    assert len(userdata.build(["s"], [padded(fits)])) == userdata.LIMIT == 16_384 - 1_024
    with pytest.raises(BatchregError, match="Shorten your own part by 1 bytes"):
        userdata.build(["s"], [padded(fits + 1)])


def test_nothing_blocks_on_systemd():
    """A blocking start or restart of ecs.service in user data never returns."""
    text = parts()[-1].get_payload()
    calls = re.findall(r"(?m)^ *(?:os\.system\(\")?(systemctl .*)", text)
    assert len(calls) >= 4
    assert [call for call in calls if "--no-block" not in call] == [
        "systemctl enable -q batchreg.service batchreg.timer"
    ]
