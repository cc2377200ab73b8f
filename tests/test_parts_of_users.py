"""What a user's own user data must not do, and what it may."""

from __future__ import annotations

import base64

import pytest

from batchreg.render.parts import conflicts

ARCHIVE = (
    "MIME-Version: 1.0\n"
    'Content-Type: multipart/mixed; boundary="b"\n'
    "\n"
    "--b\n"
    "Content-Type: text/x-shellscript\n"
    "\n"
    "#!/bin/sh\n"
    "echo hello\n"
    "--b\n"
    "Content-Type: text/x-shellscript\n"
    "%s"
    "\n"
    "%s"
    "--b--\n"
)
WIPES = "#!/bin/sh\ntrue\necho ECS_LOGLEVEL=debug > /etc/ecs/ecs.config\n"


def said(text: str) -> list[str]:
    return [str(each) for each in conflicts(text.encode())]


@pytest.mark.parametrize(
    "line",
    [
        "echo X=1 > /etc/ecs/ecs.config",
        "echo X=1 >/etc/ecs/ecs.config",
        'echo X=1 > "/etc/ecs/ecs.config"',
        "cat <<'EOF' > /etc/ecs/ecs.config",
        "cat > /etc/ecs/ecs.config <<EOF",
        "echo X=1 | tee /etc/ecs/ecs.config",
        "echo X=1 | sudo tee /etc/ecs/ecs.config >/dev/null",
        "cp /tmp/mine /etc/ecs/ecs.config",
        "mv -f /tmp/mine /etc/ecs/ecs.config && true",
        "rm -f /etc/ecs/ecs.config",
        "truncate -s 0 /etc/ecs/ecs.config",
        "echo X=1 >| /etc/ecs/ecs.config",
    ],
)
def test_replacing_the_agents_configuration_is_found(line):
    """It takes away what AWS Batch has written: the instance would join the default cluster."""
    assert said(f"#!/bin/bash\n{line}\n") == [
        "line 2 replaces /etc/ecs/ecs.config; append to it with >> instead."
    ]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("echo ECS_CLUSTER=mine >> /etc/ecs/ecs.config", "ECS_CLUSTER"),
        ("ECS_CLUSTER = mine", "ECS_CLUSTER"),
        ("""echo 'ECS_INSTANCE_ATTRIBUTES={"a":"b"}' >> $FILE""", "ECS_INSTANCE_ATTRIBUTES"),
    ],
)
def test_setting_what_aws_batch_reserves_is_found(line, name):
    assert said(f"#!/bin/bash\n\n{line}\n") == [f"line 3 sets {name}, which AWS Batch sets itself."]


@pytest.mark.parametrize(
    "text",
    [
        "#!/bin/bash\necho ECS_IMAGE_PULL_BEHAVIOR=once >> /etc/ecs/ecs.config\n",
        "#!/bin/bash\necho X=1 | tee -a /etc/ecs/ecs.config\n",
        "#!/bin/bash\necho X=1 | tee --append /etc/ecs/ecs.config\n",
        "#!/bin/bash\ncp /etc/ecs/ecs.config /root/backup\n",
        "#!/bin/bash\n# echo X=1 > /etc/ecs/ecs.config\n",
        "#!/bin/bash\ngrep -q ECS_CLUSTER= /etc/ecs/ecs.config\n",
        "#!/bin/bash\n. /etc/ecs/ecs.config; echo $ECS_CLUSTER\n",
        "#!/bin/bash\nsed -i s/debug/info/ /etc/ecs/ecs.config\n",
        "#!/bin/bash\ncat /etc/ecs/ecs.config > /var/log/seen\n",
        "#!/bin/bash\ncommand 2>/etc/ecs/ecs.config.log\n",
        "#cloud-config\npackages: [amazon-efs-utils]\n",
        "#cloud-config\nwrite_files:\n- path: /etc/ecs/ecs.config\n  append: true\n  content: X=1\n",
        ARCHIVE % ("", "#!/bin/sh\necho fine\n"),
    ],
)
def test_what_works_is_left_alone(text):
    """A false alarm at every deploy would teach people --force."""
    assert said(text) == []


def test_a_cloud_config_that_replaces_the_file_is_found():
    text = "#cloud-config\nwrite_files:\n- content: |\n    X=1\n  path: /etc/ecs/ecs.config\n"
    assert said(text) == ["line 5 replaces /etc/ecs/ecs.config; add append: true."]


def test_a_line_is_numbered_as_in_the_users_file():
    """They open the file in an editor, whatever part of the archive it is."""
    text = ARCHIVE % ("", WIPES)
    number = text.splitlines().index("echo ECS_LOGLEVEL=debug > /etc/ecs/ecs.config") + 1
    assert said(text) == [
        f"line {number} replaces /etc/ecs/ecs.config; append to it with >> instead."
    ]
    assert said(text.replace("\n", "\r\n")) == said(text)


def test_a_part_in_base64_is_read_too():
    encoded = base64.encodebytes(WIPES.encode()).decode()
    text = ARCHIVE % ("Content-Transfer-Encoding: base64\n", encoded)
    assert said(text) == [
        "part 2, line 3 replaces /etc/ecs/ecs.config; append to it with >> instead."
    ]


@pytest.mark.parametrize(
    "line",
    [
        "echo ECS_CLUSTER=AWSBatch-lab-1a2b_Batch_0c >> /etc/ecs/ecs.config",
        """echo 'ECS_INSTANCE_ATTRIBUTES={"com.amazonaws.batch.compute-environment-revision":"2"}'""",
    ],
)
def test_a_copy_of_aws_batchs_own_part_is_found_once(line):
    """Everything else in it follows from that, and is not worth a line."""
    text = f"#!/bin/bash\n{line}\necho ECS_CLUSTER=AWSBatch-lab >> /etc/ecs/ecs.config\n"
    assert said(text) == [
        "line 2 is copied from a launch template that AWS Batch made (Batch-lt-...)."
    ]
