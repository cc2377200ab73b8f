"""`make check` finds what it looks for. For cfn-lint, tests/test_template.py shows that."""

from __future__ import annotations

import lint_templates
import pytest

from batchreg.render import template
from batchreg.render.settings import Settings
from batchreg.render.text import to_yaml

PASSWORD = ' password = "Zq8rV2xLw0TfYb7NcKd4"\n'
POLICIES = "cfripper and parliament"
# (linter, what is right, what is wrong, what the linter says of it)
MISTAKES = {
    "IMDSv1": ("checkov", "HttpTokens: required\n", "HttpTokens: optional\n", "CKV_AWS_79"),
    "password": ("checkov", " --region=${AWS::Region}\n", PASSWORD, "CKV_SECRET_"),
    "wildcard": (POLICIES, "Action: kms:Decrypt\n", "Action: '*'\n", "WildcardPolicyRule"),
    # parliament alone knows what actions there are.
    "misspelling": (POLICIES, ":GetSecretValue\n", ":GetSecretValues\n", "UNKNOWN_ACTION"),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Return what the linters say of a template with all mistakes at once."""
    text = to_yaml(template.build(Settings()))
    for _, right, wrong, _ in MISTAKES.values():
        assert right in text
        text = text.replace(right, wrong)
    folder = tmp_path_factory.mktemp("templates")
    (folder / "broken.yaml").write_text(text)
    commands = lint_templates.commands(folder)
    del commands["cfn-lint"]
    return lint_templates.run(commands)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_linter_finds_mistake(results, mistake):
    linter, _, _, said = MISTAKES[mistake]
    status, output = results[linter]
    assert status != 0
    assert said in output
