"""ECR's repository creation templates, and the repositories that they are for.

Only the embedded AWS's own process imports this.
"""

from __future__ import annotations

import time
from typing import Any

from ministack.core.responses import AccountRegionScopedDict, get_account_id
from ministack.services import ecr

from local_aws.ecr_requests import EcrError, check_json

Data = dict[str, Any]

templates = AccountRegionScopedDict()  # by prefix


def create_template(request: Data) -> Data:
    prefix = request["prefix"].rstrip("/")
    if prefix in templates:
        raise EcrError(
            "TemplateAlreadyExistsException",
            f"The repository creation template with the prefix '{prefix}' already exists in the "
            f"registry with id '{get_account_id()}'",
        )
    templates[prefix] = _template({**request, "prefix": prefix})
    templates[prefix]["createdAt"] = time.time()
    return _template_answer(templates[prefix])


def _template(request: Data) -> Data:
    encryption = request.get("encryptionConfiguration", {"encryptionType": "AES256"})
    # Source: docs.aws.amazon.com/AmazonECR/latest/userguide/repository-creation-templates-create.html
    needs_role = encryption["encryptionType"] != "AES256" or request.get("resourceTags")
    if needs_role and not request.get("customRoleArn"):
        raise EcrError(
            "InvalidParameterException",
            "A template with resource tags or a KMS key needs a custom role.",
        )
    for name in ("lifecyclePolicy", "repositoryPolicy"):
        if request.get(name):
            check_json(name, request[name])
    return {
        "imageTagMutability": "MUTABLE",
        **request,
        "encryptionConfiguration": encryption,
        "updatedAt": time.time(),
    }


def _template_answer(template: Data) -> Data:
    return {"registryId": get_account_id(), "repositoryCreationTemplate": dict(template)}


def _find_template(prefix: str) -> Data:
    template: Data | None = templates.get(prefix.rstrip("/"))
    if template is None:
        raise EcrError(
            "TemplateNotFoundException",
            f"The repository creation template with the prefix '{prefix}' does not exist in the "
            f"registry with id '{get_account_id()}'",
        )
    return template


def describe_templates(request: Data) -> Data:
    """List templates; a prefix without one is left out."""
    prefixes = request.get("prefixes", list(templates.keys()))
    found = [templates[prefix] for prefix in prefixes if prefix in templates]
    return {"registryId": get_account_id(), "repositoryCreationTemplates": found}


def update_template(request: Data) -> Data:
    template = _find_template(request["prefix"])
    template.update(_template({**template, **request, "prefix": template["prefix"]}))
    return _template_answer(template)


def replace_template(request: Data) -> None:
    """Update a template as CloudFormation does: what is not given goes back to its default."""
    template = _find_template(request["prefix"])
    created = template["createdAt"]
    template.clear()
    template.update(_template(request), createdAt=created)


def delete_template(request: Data) -> Data:
    template = _find_template(request["prefix"])
    del templates[template["prefix"]]
    return _template_answer(template)


def create_repository(name: str) -> None:
    """Create the repository of an image that is being cached, as its template says."""
    fitting = [
        prefix
        for prefix, template in templates.items()
        if "PULL_THROUGH_CACHE" in template["appliedFor"] and has_prefix(name, prefix)
    ]
    # ROOT is for what no other template is for.
    template = templates[max(fitting, key=lambda p: p != "ROOT" and len(p))] if fitting else {}
    ecr._create_repository(
        {
            "repositoryName": name,
            "tags": template.get("resourceTags", []),
            **{
                key: template[key]
                for key in ("encryptionConfiguration", "imageTagMutability")
                if key in template
            },
        }
    )
    if text := template.get("lifecyclePolicy"):
        ecr._put_lifecycle_policy({"repositoryName": name, "lifecyclePolicyText": text})
    if text := template.get("repositoryPolicy"):
        ecr._set_repository_policy({"repositoryName": name, "policyText": text})


def has_prefix(name: str, prefix: str) -> bool:
    return prefix == "ROOT" or name.startswith(f"{prefix}/")
