"""The EC2 operations that this program can call: the one list behind the client, the IAM policy and its test.

Rules: values only. An operation that is not listed here cannot be called. A new one must also be added to
`deploy/iam-policy.json`; a test checks that the two agree.
"""

from __future__ import annotations

from enum import StrEnum


class Operation(StrEnum):
    """An EC2 operation; the value is its name on the wire."""

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
"""Operations that are safe to repeat."""

CHANGES = frozenset(Operation) - READS
"""Operations that are never repeated: if the outcome of one is unknown, a listing shows it."""
