"""The user data: a MIME archive that CloudFormation, AWS Batch and cloud-init all take."""

from __future__ import annotations

import email
import json
import re
import subprocess

import botocore.session
import lint_templates
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchreg import registry_login
from batchreg.errors import BatchregError
from batchreg.render import template, userdata
from batchreg.render.settings import Settings
from batchreg.render.text import to_json

VALUES = {
    "AWS::Region": "eu-central-1",
    "AWS::URLSuffix": "amazonaws.com",
    "RegistrySecret": "arn:aws:secretsmanager:eu-central-1:111122223333:secret:R-AbCdEf",
    "CredentialRefreshMinutes": "30",
    "ImagePullBehavior": "default",
}


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
    assert len(text) < 12 * 1024
    assert not any(part.defects for part in archive().walk())


def test_boundary_is_not_that_of_aws_batch():
    """Batch merges a part of its own into the archive, with ==BOUNDARY==."""
    assert archive().get_boundary() != "==BOUNDARY=="


def test_boot_writes_the_script_and_the_units(tmp_path):
    """What a shell makes of it is the code as it stands in the repository, byte for byte."""
    boot = parts()[0].get_payload().partition("for pause")[0]
    for folder in ("/opt", "/etc/systemd/system"):
        (tmp_path / folder[1:]).mkdir(parents=True)
        boot = re.sub(rf"(?m)^((?:cat >|mkdir -p) ){folder}", rf"\1{tmp_path}{folder}", boot)
    subprocess.run(["sh", "-e"], input=boot, text=True, check=True)
    files = {
        f"/{path.relative_to(tmp_path)}": path.read_text()
        for path in tmp_path.rglob("*")
        if path.is_file()
    }
    assert files.pop(userdata.SCRIPT_PATH) == userdata.script()
    assert files.pop("/opt/batchreg/args").splitlines() == [
        "--region=eu-central-1",
        "--url-suffix=amazonaws.com",
        "-s" + VALUES["RegistrySecret"],
        "--setting=ECS_IMAGE_PULL_BEHAVIOR=default",
    ]
    assert files.pop("/etc/systemd/system/batchreg.service") == userdata.SERVICE
    assert "OnUnitActiveSec=30min\n" in files.pop("/etc/systemd/system/batchreg.timer")
    assert files == {}


def test_several_secrets_are_several_arguments():
    """One registry each."""
    text = userdata.for_instance(["one", "two"], "eu-central-1")
    assert "\n-sone\n-stwo\n" in text


def test_parts_of_the_user_come_back_from_the_archive(tmp_path):
    """So that a later deploy keeps them; ours is written anew."""
    own = read(tmp_path, f'#!/bin/bash\necho "${{HOME}}" {userdata.SCRIPT_PATH}')
    assert userdata.user_parts(userdata.build(["s"], own)) == own
    assert userdata.user_parts(userdata.build(["s"])) == ()
    before = userdata.build(
        ["s"],
        [
            *own,
            (
                f"Content-Type: text/cloud-config\n\nwrite_files:\n-\n path: {userdata.SCRIPT_PATH}\n"
            ),
        ],
    )
    assert userdata.user_parts(before) == own


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
    assert parts(own)[1].get_content_type() == "text/x-shellscript"
    assert parts(own)[1].get_payload() == '#!/bin/bash\necho "${HOME}"\n'


def test_windows_line_ends_become_unix_ones(tmp_path):
    """A shell looks for an interpreter named "bash\\r"."""
    (own,) = read(tmp_path, "#!/bin/bash\r\necho\r\n")
    assert "\r" not in own


def test_text_beyond_ascii_travels_in_base64(tmp_path):
    """User data stays ASCII whatever people write into it."""
    script = "#!/bin/sh\necho grüße ${X} 🐟\n"
    (own,) = read(tmp_path, script)
    assert own.isascii()
    assert parts(own)[1].get_payload(decode=True).decode() == script


@pytest.mark.parametrize("script", ["#!/bin/sh\necho ${A:-${B}}\n", "#!/bin/sh\necho '${'\n"])
def test_nested_and_open_dollars_travel_in_base64(tmp_path, script):
    """Nobody has documented what Fn::Sub makes of them; base64 has no dollars."""
    (own,) = read(tmp_path, script)
    assert "${" not in own
    assert parts(own)[1].get_payload(decode=True).decode() == script


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
        "text/x-shellscript",
        "text/cloud-config",
        "text/x-shellscript",
    ]
    assert parts(*own)[1]["X-Merge-Type"] == "list(append)"
    assert parts(*own)[2].get_payload(decode=True) == b"#!/bin/sh\n"


def test_a_part_that_holds_our_boundary_moves_it(tmp_path):
    """Two nested archives of ours must not cut each other."""
    (own,) = read(tmp_path, "#!/bin/sh\ncat <<E\n--==batchreg==\nE\n")
    assert parts(own)[1].get_payload() == "#!/bin/sh\ncat <<E\n--==batchreg==\nE\n"


def test_limit_counts_the_whole_archive():
    """One byte too many is an error with the number in it."""

    def padded(size: int) -> str:
        return "Content-Type: text/x-shellscript\n\n#!" + "x" * size

    fits = 12 * 1024 - len(userdata.build(["s"], [padded(0)]))
    assert len(userdata.build(["s"], [padded(fits)])) == 12 * 1024
    with pytest.raises(BatchregError, match="shorten your own part by 1,"):
        userdata.build(["s"], [padded(fits + 1)])


def test_boot_waits_for_the_login_without_blocking_systemd():
    """A blocking start or restart of ecs.service in user data never returns."""
    boot = parts()[0].get_payload()
    calls = [line for line in boot.splitlines() if "systemctl" in line]
    assert all("--no-block" in line or "daemon-reload" in line for line in calls)
    assert "try-restart" in registry_login.__loader__.get_source("batchreg.registry_login")
