"""What attaching different environments needs, and the user data that comes out."""

from __future__ import annotations

from typing import Any

import attach_archives
from attach_archives import multipart, shell
from attach_environments import TEN_OVERRIDES, attachment, env, version

from batchreg.attach import archive, companion
from batchreg.attach.companion import Attachment
from batchreg.render import userdata

SECRET = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:ghcr-AbCdEf"
KEY = "arn:aws:kms:eu-central-1:111122223333:key/1234"
BASE = {"launchTemplateName": "base", "version": "$Latest"}
THEIRS = multipart(shell('echo "${HOME} %{if} $${x} \\n ü"', "cat <<'EOF'\nEOF"))
DATA: dict[str, Any] = {
    "ImageId": "resolve:ssm:/lab/image",
    "EbsOptimized": True,
    "BlockDeviceMappings": [
        {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 500, "KmsKeyId": KEY}},
        {"DeviceName": "/dev/xvdb", "NoDevice": ""},
    ],
    "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 2},
    "SecurityGroupIds": ["sg-01234567", "sg-12345678"],
    "NetworkInterfaces": [
        {"DeviceIndex": 0, "Groups": ["sg-23456789"], "Ipv6Prefixes": [{"Ipv6Prefix": "::/80"}]}
    ],
    "TagSpecifications": [
        {"ResourceType": "instance", "Tags": [{"Key": 'a"b', "Value": "${c} %{d} \\ \n ü"}]}
    ],
}


def one_template(**choices: Any) -> Attachment:
    """Return what attaching an environment with a rich launch template needs."""
    found = env(resources={"launchTemplate": BASE})
    return attachment(found, [version("base", 7, THEIRS, **DATA)], **choices)


def overrides() -> Attachment:
    """Return what attaching an environment with ten overrides needs, two of them alike."""
    versions = [
        version(f"o{number}", number, THEIRS, KeyName=f"k{max(number, 2)}") for number in range(11)
    ]
    return attachment(env(resources={"launchTemplate": TEN_OVERRIDES}), versions)


VALUES = {**attach_archives.VALUES, "CredentialRefreshMinutes": "45"}


def expected(shape: Attachment) -> bytes:
    """Return the user data that an instance gets in the end."""
    part = userdata.resolve(companion.our_part(shape), VALUES).rstrip()
    theirs, delimiter = archive.EMPTY, "--==batchreg=="
    if shape.copies[0].archive.parts:
        theirs, delimiter = THEIRS.removesuffix(b"--==MYBOUNDARY==--\n"), "--==MYBOUNDARY=="
    theirs += b"\n" * (-len(theirs) % 3)
    return theirs + f"{delimiter}\n{part}\n\n{delimiter}--\n".encode()


SHAPES = {
    "new": attachment(),
    "one": one_template(),
    "two registries": one_template(slots=(1, 3)),
    "own secret": one_template(secret_arns=(SECRET,)),
    "overrides": overrides(),
}
