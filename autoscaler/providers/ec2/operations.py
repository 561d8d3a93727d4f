"""The EC2 operations that this program can call: the one list behind the client, the IAM policy and its test.

Rules: values only. An operation that is not here cannot be called; adding one means adding it to
`deploy/iam-policy.json` too, and a test holds the two together.
"""

from __future__ import annotations

from enum import StrEnum


class Operation(StrEnum):
    """An operation by its name on the wire."""

    DESCRIBE_INSTANCES = "DescribeInstances"
    DESCRIBE_INSTANCE_STATUS = "DescribeInstanceStatus"
    START_INSTANCES = "StartInstances"
    STOP_INSTANCES = "StopInstances"
    RUN_INSTANCES = "RunInstances"
    TERMINATE_INSTANCES = "TerminateInstances"
    CREATE_TAGS = "CreateTags"
    DESCRIBE_LAUNCH_TEMPLATE_VERSIONS = "DescribeLaunchTemplateVersions"
    MODIFY_INSTANCE_ATTRIBUTE = "ModifyInstanceAttribute"


READS = frozenset(
    {
        Operation.DESCRIBE_INSTANCES,
        Operation.DESCRIBE_INSTANCE_STATUS,
        Operation.DESCRIBE_LAUNCH_TEMPLATE_VERSIONS,
    }
)
"""Safe to repeat."""

CHANGES = frozenset(Operation) - READS
"""Never repeated: what became of one of unknown outcome is told by a listing."""
