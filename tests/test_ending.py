"""What `deploy` and `attach` print when they are done."""

from __future__ import annotations

import pytest

from batchreg.cli import ending
from batchreg.cli.console import TextScreen
from batchreg.stack.states import Stack

QUEUE = "arn:{}:batch:{}:111122223333:job-queue/lab"


@pytest.mark.parametrize(
    ("partition", "region", "host"),
    [
        ("aws", "eu-west-3", "console.aws.amazon.com"),
        ("aws-cn", "cn-north-1", "console.amazonaws.cn"),
        ("aws-us-gov", "us-gov-west-1", "console.amazonaws-us-gov.com"),
    ],
)
def test_link_leads_to_the_console_of_the_partition(partition, region, host):
    """An account of one partition cannot log in to another."""
    queue = QUEUE.format(partition, region)
    assert ending.console_link(queue) == (
        f"https://{region}.{host}/batch/home?region={region}#queues/detail/{queue}"
    )


def test_unknown_partition_has_no_link():
    """A wrong link is worse than none."""
    assert ending.console_link(QUEUE.format("aws-iso", "us-iso-east-1")) == ""


def test_stack_with_a_cache_shows_the_name_of_an_image_there():
    """Jobs have to use that name; `--check` has named an image to submit."""
    arn = "arn:aws:secretsmanager:us-east-1:111122223333:secret:x"
    outputs = {
        "JobQueueArn": QUEUE.format("aws", "us-east-1"),
        "RegistrySecretArn": arn,
        "CacheRepositoryPrefix": "lab/ghcr",
    }
    stack_id = "arn:aws:cloudformation:us-east-1:111122223333:stack/batchreg/1"
    parameters = {"RegistryUrl": "ghcr.io", "Username": "lab"}
    stack = Stack("batchreg", stack_id, "CREATE_COMPLETE", "", parameters, outputs, {}, None, False)
    lines = [*ending.lines(stack, TextScreen(), ("ghcr.io/lab/align:3",))]
    assert lines[:4] == [
        "Job queue     lab",
        "Submit a job  batchreg submit ghcr.io/lab/align:3",
        "Image in ECR  111122223333.dkr.ecr.us-east-1.amazonaws.com/lab/ghcr/OWNER/IMAGE, of "
        "ghcr.io/OWNER/IMAGE",
        "Engine        batchreg engine nextflow",
    ]
