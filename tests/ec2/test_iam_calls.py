"""The IAM policies that we hand out against the code itself: every method of an AWS client that is named anywhere.

`test_iam_policy` compares the policies with what modules declare; this compares them with what modules call.
"""

import ast
import json
from pathlib import Path

import pytest
from botocore import xform_name
from botocore.session import Session

from autoscaler.providers.ec2.operations import Operation

ROOT = Path(__file__).parents[2]
HANDED_OUT = ("iam-policy.json", "iam-policy-target-groups.json", "iam-policy-ssm.json")
PREFIXES = {"elbv2": "elasticloadbalancing", "service-quotas": "servicequotas"}
ACTION_OF = {"sqs:DeleteMessageBatch": "sqs:DeleteMessage"}
"""Actions of the calls whose permission has another name."""


@pytest.fixture(name="methods", scope="module")
def _methods():
    """IAM actions by name of a client's method, for all services that the program uses."""
    session, found = Session(), {}
    for service in ("ec2", "cloudwatch", "sqs", "kms", "service-quotas", "elbv2", "ssm"):
        for operation in session.get_service_model(service).operation_names:
            action = f"{PREFIXES.get(service, service)}:{operation}"
            found.setdefault(xform_name(operation), set()).add(ACTION_OF.get(action, action))
    return found


def aws_modules():
    """Modules that import botocore or a library built on it. The layers keep all others from calling AWS."""
    for path in sorted((ROOT / "autoscaler").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = [
            *(a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names),
            *(n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)),
        ]
        if any("botocore" in name or name == "autoscaler.providers.ec2.client" for name in names):
            yield path, tree


def named(tree, methods):
    """Methods of clients that a module names, as an attribute or as a string for getattr."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in methods:
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in methods:
            yield node.value


def test_what_the_code_calls_is_what_the_policies_allow(methods):
    modules = dict(aws_modules())
    assert len(modules) >= 6
    called = {f"ec2:{each.value}" for each in Operation}
    for tree in modules.values():
        for method in named(tree, methods):
            assert len(methods[method]) == 1, method
            called |= methods[method]
    allowed = set()
    for name in HANDED_OUT:
        for statement in json.loads((ROOT / "deploy" / name).read_text(encoding="utf-8"))["Statement"]:
            actions = statement["Action"]
            allowed |= {actions} if isinstance(actions, str) else set(actions)
    assert called == allowed
