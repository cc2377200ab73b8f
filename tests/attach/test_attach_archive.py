"""Somebody's user data stays theirs, byte for byte, and our part follows it."""

from __future__ import annotations

import base64
import email
import gzip
import re

import attach_archives
import pytest
from attach_archives import ACCEPTED, PART, REFUSED, multipart, shell
from hypothesis import given
from hypothesis import strategies as st

from batchreg.attach import archive, scripts
from batchreg.errors import BatchregError
from batchreg.render import userdata


def leaves(data: bytes) -> list[tuple[list[tuple[str, str]], str]]:
    """Return the parts as cloud-init parses them, without line breaks at their ends."""
    message = email.message_from_string(data.decode())
    if not message.is_multipart() and not message.get_payload().strip():
        return []
    return [
        (leaf.items(), leaf.get_payload().rstrip("\r\n"))
        for leaf in message.walk()
        if not leaf.is_multipart()
    ]


def joined(data: bytes | None, part: str = PART) -> bytes:
    """Return what CloudFormation makes of the spliced user data."""
    return attach_archives.resolved(archive.splice(archive.read(data), part))


def refusal(data: bytes) -> str:
    with pytest.raises(BatchregError) as caught:
        scripts.review(archive.read(data))
    assert caught.value.step
    return str(caught.value)


@pytest.mark.parametrize("name", ACCEPTED)
def test_each_structure_keeps_its_parts_and_gets_ours_last(name):
    """Of everything that people have there."""
    theirs = ACCEPTED[name]
    expected = leaves(theirs) if theirs and theirs.strip() else []
    *before, ours = leaves(joined(theirs))
    assert before == expected
    assert ours[1].startswith("#!/bin/sh")


@pytest.mark.parametrize("name", ACCEPTED)
def test_each_structure_starts_with_their_bytes(name):
    """Up to the closing boundary nothing is written again, not even a line ending."""
    theirs = ACCEPTED[name] or b""
    kept = archive.read(theirs).data
    assert joined(theirs).startswith(kept)
    if theirs.strip():
        assert theirs.startswith(kept)
        assert re.fullmatch(rb"(--[^\r\n]*--[ \t]*(\r?\n.*)?)?", theirs[len(kept) :], re.DOTALL)


@pytest.mark.parametrize("name", REFUSED)
def test_each_structure_that_cannot_be_joined_is_refused(name):
    """With what is wrong with it, and a way that works."""
    data, reason = REFUSED[name]
    assert reason in refusal(data)


def test_no_byte_of_theirs_goes_through_a_substitution():
    """${…} in their scripts means something to a shell, and must mean nothing to Fn::Sub."""
    spliced = archive.splice(
        archive.read(multipart(shell("echo ${HOME} ${!x} ${AWS::Region}"))), PART
    )
    assert "echo ${HOME}" not in spliced.ours
    assert b"echo ${HOME} ${!x} ${AWS::Region}" in base64.b64decode(spliced.theirs)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_base64_texts_can_be_joined_whatever_the_length(text):
    """Padding in the middle of base64 is an error for EC2."""
    data = multipart(shell(text))
    spliced = archive.splice(archive.read(data), PART)
    assert not spliced.theirs.endswith("=")
    whole = spliced.theirs + base64.b64encode(spliced.ours.encode()).decode()
    assert leaves(base64.b64decode(whole, validate=True))[:-1] == leaves(data)


def test_boundary_with_a_dollar_survives_the_substitution():
    """A quoted boundary may hold anything."""
    data = multipart(shell("true"), boundary="a${AWS::Region}b")
    assert joined(data).endswith(b"\n--a${AWS::Region}b--\n")


def test_size_counts_the_whole_archive():
    """One byte too many is an error with the number in it, and the template's name."""

    def padded(size: int) -> bytes:
        return multipart(shell("#" * size))

    part = PART + "${RegistrySecret}"
    empty = archive.splice(archive.read(padded(0)), part).size
    fits = userdata.LIMIT - empty - (userdata.LIMIT - empty) % 3
    assert archive.splice(archive.read(padded(fits)), part).size <= userdata.LIMIT
    with pytest.raises(
        BatchregError, match=r"user data of lt-1 is 15,36\d bytes; the limit is"
    ) as e:
        archive.splice(archive.read(padded(fits + 3), "lt-1"), part)
    assert "Shorten it by " in e.value.step


def test_size_is_never_less_than_what_ec2_counts():
    """The longest ARN takes the place of the secret's placeholder."""
    part = PART + "-s${RegistrySecret} -s${RegistrySecret2}"
    spliced = archive.splice(archive.read(multipart(shell("true"))), part)
    arn = "arn:aws-us-gov:secretsmanager:us-gov-west-1:111122223333:secret:" + "R" * 60
    values = {**attach_archives.VALUES, "RegistrySecret": arn, "RegistrySecret2": arn}
    whole = base64.b64decode(spliced.theirs) + userdata.resolve(spliced.ours, values).encode()
    assert len(whole) <= spliced.size


def test_parts_are_read_as_cloud_init_reads_them():
    """Base64 and gzip are unpacked, for judging only."""
    packed = base64.encodebytes(gzip.compress(b"#!/bin/sh\nECS_CLUSTER=x\n")).decode()
    data = multipart(
        f"Content-Type: application/gzip\nContent-Transfer-Encoding: base64\n\n{packed}",
        'Content-Type: text/x-shellscript\nContent-Disposition: attachment; filename="b.sh"\n\n'
        "#!/bin/sh\n",
    )
    one, other = archive.read(data).parts
    assert (str(one), one.text.splitlines()[1]) == ("part 1", "ECS_CLUSTER=x")
    assert str(other) == "part 2 (b.sh)"


@pytest.mark.parametrize(
    "line",
    [
        "echo ECS_CLUSTER=genomics_Batch_6f1f7b1d >> /etc/ecs/ecs.config",
        "echo ECS_CLUSTER=AWSBatch-genomics-1234 >> /etc/ecs/ecs.config",
        'echo \'ECS_INSTANCE_ATTRIBUTES={"com.amazonaws.batch.compute-environment-revision":"2"}\'',
    ],
)
def test_copies_of_what_batch_wrote_are_refused(line):
    """An instance with two clusters joins the wrong one."""
    text = refusal(multipart(shell("true", line)))
    assert "Batch-lt-" in text
    assert "part 1, line 3" in text


def test_handler_that_would_take_our_part_is_refused():
    """cloud-init gives a part of its type to the handler instead of running it."""
    handler = "#part-handler\ndef list_types():\n    return ['text/x-shellscript']\n"
    assert "part handler" in refusal(multipart(f"Content-Type: text/part-handler\n\n{handler}"))
    harmless = handler.replace("x-shellscript", "x-mine")
    assert scripts.review(archive.read(multipart(f"Content-Type: text/plain\n\n{harmless}")))


@pytest.mark.parametrize(
    ("line", "warning"),
    [
        ("systemctl start ecs", "waits for the script"),
        ("systemctl restart --now ecs.service", "waits for the script"),
        ("systemctl enable --now ecs", "waits for the script"),
        ("service ecs restart", "waits for the script"),
        ("systemctl --no-block start ecs", None),
        ("systemctl try-restart ecs", None),
        ("systemctl restart docker", None),
        ("systemctl stop ecs", None),
        ("# systemctl start ecs", None),
        ("echo A=b > /etc/ecs/ecs.config", "overwrites"),
        ('cat <<E >"/etc/ecs/ecs.config"', "overwrites"),
        ("echo A=b | tee /etc/ecs/ecs.config", "overwrites"),
        ("aws s3 cp s3://bucket/ecs.config /etc/ecs/ecs.config", "overwrites"),
        ("echo A=b | tee -a /etc/ecs/ecs.config", None),
        ("echo A=b >> /etc/ecs/ecs.config", None),
        ("echo A=b 2>/dev/null >>/etc/ecs/ecs.config", None),
        ("cat /etc/ecs/ecs.config > /tmp/copy", None),
        ("echo ECS_CLUSTER=mine >> /etc/ecs/ecs.config", "sets ECS_CLUSTER"),
        ("cloud_final_modules: [final-message]", "scripts-user"),
    ],
)
def test_warnings_name_the_line(line, warning):
    """And nothing is said of lines that do no harm."""
    warnings = scripts.review(archive.read(multipart(shell("true", line)))).warnings
    if warning is None:
        assert warnings == ()
    else:
        (text,) = warnings
        assert warning in text
        assert text.startswith("part 1, line 3 ")


def test_cloud_config_that_writes_the_file_is_a_warning_unless_it_appends():
    """write_files overwrites by default."""
    entry = "Content-Type: text/cloud-config\n\nwrite_files:\n- path: /etc/ecs/ecs.config\n  content: A=b"
    (text,) = scripts.review(archive.read(multipart(entry))).warnings
    assert text.startswith("part 1, line 2 overwrites")
    assert scripts.review(archive.read(multipart(entry + "\n  append: true"))).warnings == ()


def test_included_files_are_a_warning():
    """One that cannot be fetched costs the whole archive."""
    data = multipart("Content-Type: text/plain\n\n#include\nhttp://10.0.0.1/x\n")
    (text,) = scripts.review(archive.read(data)).warnings
    assert "cannot fetch" in text


def test_credentials_written_by_hand_are_found_and_not_quoted():
    """They are merged with ours on the instance."""
    secret = 'echo ECS_ENGINE_AUTH_DATA=\'{"a.example.com":{"password":"canary-4711"}}\''
    data = multipart(shell("echo ECS_ENGINE_AUTH_TYPE=docker >> /etc/ecs/ecs.config", secret))
    archived = archive.read(data)
    review = scripts.review(archived)
    assert [str(line) for line in review.credentials] == ["part 1, line 2", "part 1, line 3"]
    spliced = archive.splice(archived, PART)
    assert "canary-4711" not in f"{archived!r} {review!r} {spliced!r}"


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("amazon-linux-extras install -y docker", "amazon-linux-extras"),
        ("yum install -y jq", "yum"),
        ("yum-config-manager --add-repo https://x", "yum-config-manager"),
        ("pip install awscli", "awscli"),
        ("rpm -i https://example.com/x.el7.rpm", "el7"),
        (
            "curl http://169.254.169.254/latest/meta-data/placement/region",
            "http://169.254.169.254/latest/meta-data/placement/region",
        ),
        ("echo OPTIONS=x >> /etc/sysconfig/docker", "/etc/sysconfig/docker"),
    ],
)
def test_lines_that_need_amazon_linux_2_are_listed(line, word):
    """Before somebody changes the image type."""
    (found,) = scripts.review(archive.read(multipart(shell(line)))).amazon_linux_2
    assert (str(found), found.word) == ("part 1, line 2", word)


def test_lines_that_work_on_amazon_linux_2023_are_not_listed():
    """Nobody should rewrite what works."""
    lines = [
        "dnf install -y awscli-2 jq amazon-efs-utils",
        "TOKEN=$(curl -X PUT http://169.254.169.254/latest/api/token)",
        "mount -a",
        "# yum install x",
    ]
    assert scripts.review(archive.read(multipart(shell(*lines)))).amazon_linux_2 == ()
