"""The command line as its users meet it: a subprocess, its output, its exit status."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import yaml

import batchreg as package
from batchreg.cli.commands import cli

ARN = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:registry/ghcr-AbCdEf"


def test_render_twice_gives_the_same_bytes(batchreg):
    """A template under version control must not change by itself."""
    assert batchreg("render").stdout == batchreg("render").stdout != ""


def test_output_file_equals_stdout(batchreg, tmp_path):
    """-o is a convenience, not another format."""
    assert batchreg("render", "-o", "template.yaml").returncode == 0
    assert (tmp_path / "template.yaml").read_text() == batchreg("render").stdout


def test_failed_render_keeps_the_old_file(batchreg, tmp_path):
    """Nothing is lost when a setting is wrong."""
    (tmp_path / "template.yaml").write_text("old")
    assert batchreg("render", "--secret-arn", "x", "-o", "template.yaml").returncode == 1
    assert [path.name for path in tmp_path.iterdir()] == ["template.yaml"]
    assert (tmp_path / "template.yaml").read_text() == "old"


def test_output_takes_the_place_of_a_file_in_one_step(batchreg, tmp_path):
    """A reader of the old file keeps the old text: the file is replaced, not rewritten."""
    path = tmp_path / "template.yaml"
    path.write_text("old")
    with path.open() as reader:
        batchreg("render", "-o", "template.yaml")
        assert reader.read() == "old"
    assert path.stat().st_mode & 0o777 == 0o644


def test_unwritable_output_is_one_line(batchreg):
    """The fact, then no traceback."""
    result = batchreg("render", "-o", "no/such/folder/template.yaml")
    assert result.returncode == 1
    assert result.stderr == (
        "batchreg: Cannot write no/such/folder/template.yaml: No such file or directory.\n"
    )


def test_full_disk_behind_stdout_is_one_line(batchreg):
    """A redirect to a full disk fails loudly instead of leaving half a template."""
    with open("/dev/full", "w") as full:
        result = batchreg("render", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "batchreg: Cannot write the output: No space left on device."
    ]


def test_closed_pipe_is_silent(batchreg, tmp_path):
    """`batchreg render | head -1` prints one line and nothing on stderr."""
    command = f"{sys.executable} -m batchreg render | head -1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path)
    assert result.stdout == "AWSTemplateFormatVersion: '2010-09-09'\n"
    assert result.stderr == ""


@pytest.mark.parametrize("command", ["render -o /dev/stdout", "render -o -", "deploy --help"])
def test_reader_that_leaves_is_not_a_failure(command, tmp_path):
    """`| head -1` has what it wants: status 0, and nothing on stderr."""
    pipe = f"{sys.executable} -m batchreg {command} | head -1; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", pipe], capture_output=True, text=True, cwd=tmp_path)
    lines = result.stdout.splitlines()
    assert (len(lines), lines[-1], result.stderr) == (2, "0", "")


@pytest.mark.parametrize("command", ["render", "status", "render -o /dev/stdout", "--help"])
def test_reader_that_never_was_is_not_a_failure(command, made, tmp_path):
    """Nor is one that left before the first byte."""
    pipe = f"{sys.executable} -m batchreg {command} | true; echo ${{PIPESTATUS[0]}}"
    environ = {**os.environ, **made.aws.environ, "BATCHREG_STACK_NAME": made.name}
    result = subprocess.run(
        ["bash", "-c", pipe], capture_output=True, text=True, cwd=tmp_path, env=environ
    )
    assert (result.stdout, result.stderr) == ("0\n", "")


def test_output_to_a_device_is_the_text(batchreg, tmp_path):
    """/dev/stdout and a named pipe are written to, not replaced by a file."""
    text = batchreg("render").stdout
    assert batchreg("render", "-o", "/dev/stdout").stdout == text
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE, text=True) as cat:
        assert batchreg("render", "-o", "pipe").returncode == 0
        assert cat.communicate(timeout=30)[0] == text
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("deploy", "hunter2"),
            "Unexpected argument (not quoted: it may be a password). Did you mean --stack-name?",
        ),
        (("render", "hunter2"), "Unexpected argument (not quoted: it may be a password)."),
        (("deploy", "--max-vcpus", "lots"), "Invalid value for '--max-vcpus': 'lots' is not a "),
        (
            ("deploy", "--root-volume-gib", "8"),
            "'--root-volume-gib': 8 is not between 30 and 16384.",
        ),
    ],
)
def test_wrong_usage_says_what_is_wrong(batchreg, arguments, message):
    """In plain words, and without what may be a password."""
    result = batchreg(*arguments)
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1)
    assert message in result.stderr
    assert "hunter2" not in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("render", "--image-type", "ECS_AL2"),
        ("render", "--format", "toml"),
        ("user-data", "--region", "eu-central-1"),
        ("user-data", "--secret-id", "registry/ghcr"),
        ("nonsense",),
        ("render", "--nonsense"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(batchreg, arguments):
    """The message names what is wrong and where the help is."""
    result = batchreg(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1
    assert "--help`." in result.stderr


def test_amazon_linux_2_is_refused_with_what_to_use(batchreg):
    """AWS Batch takes no new compute environments on Amazon Linux 2."""
    assert (
        "'ECS_AL2023', 'ECS_AL2023_NVIDIA'"
        in batchreg("render", "--image-type", "ECS_AL2_NVIDIA").stderr
    )


def test_flag_beats_environment_beats_file_beats_default(batchreg, tmp_path):
    """The order of precedence that the documentation promises."""

    def image_type(*arguments: str, **environ: str) -> str:
        text = batchreg("render", "--format", "json", *arguments, environ=environ).stdout
        resource = yaml.safe_load(text)["Resources"]["ComputeEnvironment"]["Properties"]
        return resource["ComputeResources"]["Ec2Configuration"][0]["ImageType"]

    assert image_type() == "ECS_AL2023"
    (tmp_path / "batchreg.yaml").write_text("image_type: ECS_AL2023_NVIDIA\n")
    assert image_type() == "ECS_AL2023_NVIDIA"
    assert image_type(BATCHREG_IMAGE_TYPE="ECS_AL2023") == "ECS_AL2023"
    assert (
        image_type("--image-type", "ECS_AL2023_NVIDIA", BATCHREG_IMAGE_TYPE="ECS_AL2023")
        == "ECS_AL2023_NVIDIA"
    )


def test_value_from_the_environment_is_refused_by_the_variables_name(batchreg):
    """The flag was not given, so it is not what is wrong."""
    result = batchreg("render", environ={"BATCHREG_IMAGE_TYPE": "ECS_AL2"})
    assert result.stderr.startswith("batchreg: Invalid value in BATCHREG_IMAGE_TYPE: 'ECS_AL2' is")


def test_file_of_a_stack_says_nothing_about_an_attached_environment(tmp_path, monkeypatch):
    """Its name is no companion stack's, and nobody has asked for another machine image."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "batchreg.yaml").write_text(
        "stack_name: genomics\nimage_type: ECS_AL2023\nusername: lab\n"
    )
    given = cli.commands["attach"].make_context("attach", ["research"]).params
    assert given["username"] == "lab"
    assert (given["stack_name"], given["image_type"]) == (None, None)


def test_user_data_path_in_the_file_starts_at_the_file(batchreg, tmp_path):
    """The settings file may lie elsewhere and still name its neighbour."""
    (tmp_path / "team").mkdir()
    (tmp_path / "team" / "own.sh").write_text("#!/bin/sh\necho neighbour\n")
    (tmp_path / "team" / "batchreg.yaml").write_text("user_data: own.sh\n")
    assert "echo neighbour" in batchreg("render", "--config", "team/batchreg.yaml").stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_type: x\nsecret_arn: [a\n", "batchreg.yaml, line 3"),
        ("secret_arn:\n  - a\n b: c\n", "batchreg.yaml, line 3"),
        (
            "\n\nimage_typ: x\n",
            "batchreg.yaml, line 3: unknown key 'image_typ'. Did you mean image_type?",
        ),
        ("secret-arn: x\n", "line 1: unknown key 'secret-arn'. Did you mean secret_arn?"),
        ("wholly_else: x\n", "The keys are"),
        ("image_type: [a, b]\n", "batchreg.yaml, line 1: image_type takes one string"),
        ("secret_arn: {a: b}\n", "batchreg.yaml, line 1: secret_arn takes a list of strings"),
        ("image_type: a\nimage_type: b\n", "line 2: image_type is given twice"),
        ("- a\n", "not a mapping"),
        ("image_type: ECS_AL2\n", "batchreg.yaml, line 1: image_type: 'ECS_AL2' is not one of"),
        (
            "max_vcpus: lots\n",
            "batchreg.yaml, line 1: max_vcpus: 'lots' is not a whole number. See",
        ),
        ("fargate: maybe\n", "batchreg.yaml, line 1: fargate: 'maybe' is neither true nor false."),
        ("a: \x01\n", "batchreg.yaml"),
        ("\x00", "batchreg.yaml"),
    ],
)
def test_bad_settings_file_is_one_line_with_its_line_number(batchreg, tmp_path, text, message):
    """Whoever mistypes a key reads where, and what it should be; nothing is written."""
    (tmp_path / "batchreg.yaml").write_text(text)
    command = "deploy" if "max_vcpus" in text else "render"
    result = batchreg(command, *(["-o", "out.yaml"] if command == "render" else []))
    assert result.returncode in (1, 2)
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out.yaml").exists()


def test_missing_settings_file_that_was_asked_for_is_an_error(batchreg):
    """A typing error in --config must not mean the defaults."""
    result = batchreg("render", "--config", "nowhere.yaml")
    assert (result.returncode, result.stderr) == (
        1,
        "batchreg: Cannot read nowhere.yaml: No such file or directory.\n",
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"echo hello\n", "cannot become a MIME part"),
        (b"\x7fELF\x02\x01\x01", "cannot become a MIME part"),
        (b"\xff\xfe#\x00!\x00", "cannot become a MIME part"),
        (b"", "cannot become a MIME part"),
        (b"Content-Type: multipart/mixed; boundary=x\n\n--y\n\nhello\n", "broken MIME archive"),
        (b"Content-Type: text/html\n\n<p>\n", "text/html, which cloud-init does not run"),
        (b"#!/bin/sh\n" + b"# much\n" * 3000, "the limit is 15,360"),
    ],
)
def test_bad_user_data_is_one_line(batchreg, tmp_path, content, message):
    """What cloud-init or EC2 would refuse is refused here, before anything is written."""
    (tmp_path / "own").write_bytes(content)
    result = batchreg("render", "--user-data", "own", "-o", "out.yaml")
    assert result.returncode == 1
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out.yaml").exists()


def test_unreadable_user_data_is_one_line(batchreg):
    """The name that was given, and why it cannot be read."""
    assert batchreg("render", "--user-data", "nowhere.sh").stderr == (
        "batchreg: Cannot read nowhere.sh: No such file or directory.\n"
    )


def test_user_data_takes_its_region_from_the_aws_variables(batchreg):
    """boto3 knows only AWS_DEFAULT_REGION; users set either."""
    arguments = ("user-data", "--secret-id", "registry/ghcr")
    by_flag = batchreg(*arguments, "--region", "eu-west-3").stdout
    assert "--region=eu-west-3" in by_flag
    assert batchreg(*arguments, environ={"AWS_REGION": "eu-west-3"}).stdout == by_flag
    assert batchreg(*arguments, environ={"AWS_DEFAULT_REGION": "eu-west-3"}).stdout == by_flag


def test_user_data_takes_its_region_from_an_arn(batchreg):
    """A name goes with it. A region that is given counts more."""
    secrets = ("--secret-id", "registry/hub", "--secret-id", ARN)
    by_flag = batchreg("user-data", *secrets, "--region", ARN.split(":")[3])
    assert by_flag.returncode == 0
    assert batchreg("user-data", *secrets).stdout == by_flag.stdout
    other = batchreg("user-data", *secrets, "--region", "us-gov-west-1")
    assert (other.returncode, other.stdout) == (1, "")
    assert "us-gov-west-1" in other.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--secret-id", "a b", "--region", "eu-west-3"),
        ("--secret-id", "a\n--endpoint-url=http://evil", "--region", "eu-west-3"),
        ("--secret-id", ARN, "--region", "nowhere"),
    ],
)
def test_user_data_refuses_what_cannot_be_a_secret_or_a_region(batchreg, arguments):
    """They become lines of a file on the instance, so a line break would be an argument."""
    result = batchreg("user-data", *arguments)
    assert (result.returncode, result.stdout) == (1, "")
    assert len(result.stderr.splitlines()) == 1


def test_version_is_the_package_version(batchreg):
    """One place holds it."""
    assert batchreg("--version").stdout == f"batchreg {package.__version__}\n"


AWS = {"boto3", "botocore"}
SHOWN = {"rich", "troposphere", "yaml"}  # what only tables and templates need


@pytest.mark.parametrize(
    ("command", "unused"),
    [
        ("--help", AWS | SHOWN | {"asyncio", "dataclasses", "email", "pathlib"}),
        ("render", AWS | {"asyncio", "email", "pathlib", "rich", "urllib.request"}),
        (f"user-data --secret-id {ARN} --region eu-west-3", AWS | SHOWN | {"email", "pathlib"}),
        ("job-definition ghcr.io/lab/align", AWS | SHOWN),
        ("logs 0123", SHOWN),
        ("cancel 0123", SHOWN),
        ("submit ghcr.io/lab/align", SHOWN),
        ("deploy", {"rich", "batchreg.doctor.findings", "batchreg.registry.check"}),
        ("status", {"rich", "batchreg.doctor.findings", "batchreg.registry.check"}),
        ("destroy --yes", SHOWN | {"batchreg.doctor.findings", "batchreg.registry.check"}),
        ("check 127.0.0.1:9/lab/align --registry-url 127.0.0.1:9 --username u", AWS | SHOWN),
        ("rotate --yes", SHOWN | {"batchreg.doctor.findings"}),
        ("doctor", {"rich", "troposphere"}),
    ],
)
def test_commands_import_only_what_they_use(command, unused, tmp_path):
    """Speed is a feature, and imports are what it is lost to. AWS is out of reach here."""
    program = (
        "import sys; from batchreg.cli.main import main; sys.argv[0] = 'batchreg'; "
        "main(); print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    nowhere = {
        "PATH": "/usr/bin:/bin",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_REGION": "eu-west-3",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_MAX_ATTEMPTS": "1",
        "BATCHREG_PASSWORD": "x",
    }
    result = subprocess.run(
        [sys.executable, "-c", program, *command.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env=nowhere,
    )
    assert not unused & set(result.stderr.splitlines())


def test_a_missing_command_shows_which_there_are(batchreg):
    """As lines, on stderr: nothing was asked for."""
    result = batchreg()
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("batchreg: a command is missing.\n\nUsage: ")
    assert "\n  deploy " in result.stderr
