"""Parses EC2 query requests.

Rules: parameters in, checked values out; errors carry EC2's codes. A parameter that nobody has read when the
action starts is refused, so that nothing a caller asks for is silently left undone.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias
from urllib.parse import parse_qsl

from autoscaler.cloud.vms import LaunchData, VmView
from autoscaler.errors import ProviderError

Tree: TypeAlias = "dict[str, str | Tree]"

_PROTOCOL = frozenset({"Action", "Version", "DryRun", "AWSAccessKeyId", "Signature", "SignatureVersion"})
_PRESIGNED = "X-Amz-"

_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")

IGNORED_AT_LAUNCH = (
    "BlockDeviceMapping",
    "CpuOptions",
    "CreditSpecification",
    "EbsOptimized",
    "IamInstanceProfile",
    "InstanceInitiatedShutdownBehavior",
    "KeyName",
    "MetadataOptions",
    "Monitoring",
    "SecurityGroup",
    "SecurityGroupId",
    "UserData",
)
"""What a launch may say that makes no difference to a world of states and times."""


def invalid(message: str) -> ProviderError:
    """The error for a value that is not possible."""
    return ProviderError(message, code="InvalidParameterValue")


def _grow(pairs: Iterable[tuple[str, str]]) -> Tree:
    tree: Tree = {}
    for name, value in pairs:
        *branches, leaf = name.split(".")
        at = tree
        for branch in branches:
            below = at.setdefault(branch, {})
            if isinstance(below, str):
                raise ProviderError(f"The parameter {name} is ambiguous", code="InvalidParameterCombination")
            at = below
        at[leaf] = value
    return tree


class Form:
    """The parameters of one call, or a branch of them."""

    def __init__(self, tree: Tree, where: str = "") -> None:
        self._tree = tree
        self._where = where
        self._read: set[str] = set()

    @classmethod
    def parse(cls, body: str) -> Form:
        """From a form-encoded body or query string."""
        return cls(_grow(parse_qsl(body, keep_blank_values=True)))

    def text(self, name: str) -> str:
        """A string; empty where it is not given."""
        self._read.add(name)
        value = self._tree.get(name, "")
        if not isinstance(value, str):
            raise invalid(f"The parameter {self._where}{name} must be one value")
        if _UNWRITABLE.search(value):
            raise invalid(f"The parameter {self._where}{name} has characters that XML cannot carry")
        return value

    def flag(self, name: str) -> bool | None:
        """A boolean; None where it is not given."""
        value = self.text(name)
        if value.lower() not in {"", "true", "false"}:
            raise invalid(f"Value ({value}) for parameter {self._where}{name} is not a boolean")
        return {"true": True, "false": False}.get(value.lower())

    def integer(self, name: str, lowest: int, highest: int) -> int | None:
        """A whole number within bounds, both included; None where it is not given."""
        value = self.text(name)
        if not value:
            return None
        if not re.fullmatch(r"-?[0-9]{1,12}", value) or not lowest <= int(value) <= highest:
            raise invalid(
                f"Value ({value}) for parameter {self._where}{name} must be a number from {lowest} to {highest}"
            )
        return int(value)

    def branch(self, name: str) -> Form:
        """What lies below a name, perhaps nothing."""
        self._read.add(name)
        below = self._tree.get(name, {})
        if isinstance(below, str):
            raise invalid(f"The parameter {self._where}{name} must have members")
        return Form(below, f"{self._where}{name}.")

    def branches(self, name: str) -> list[Form]:
        """The members of a numbered list, in order of their numbers."""
        tree = self.branch(name)._tree  # noqa: SLF001 -- its own kind
        members = []
        for key in self._ordered(name, tree):
            below = tree[key]
            if isinstance(below, str):
                raise invalid(f"The parameter {self._where}{name}.{key} must have members")
            members.append(Form(below, f"{self._where}{name}.{key}."))
        return members

    def texts(self, name: str) -> list[str]:
        """The strings of a numbered list, in order of their numbers."""
        tree = self.branch(name)._tree  # noqa: SLF001 -- its own kind
        below = Form(tree, f"{self._where}{name}.")
        return [below.text(key) for key in self._ordered(name, tree)]

    def one_or_more(self, name: str) -> list[str]:
        """The strings of a numbered list, or the one string where there is no list."""
        return [self.text(name)] if isinstance(self._tree.get(name), str) else self.texts(name)

    def _ordered(self, name: str, tree: Tree) -> list[str]:
        for key in tree:
            if not re.fullmatch(r"[0-9]{1,6}", key):
                raise invalid(f"The members of {self._where}{name} must be numbered, not {key!r}")
        return sorted(tree, key=int)

    def given(self, name: str) -> bool:
        """Whether it is there at all."""
        return name in self._tree

    def fingerprint(self) -> str:
        """Equal for forms that ask for the same, whatever the token and the signature."""
        skipped = _PROTOCOL | {"ClientToken"}
        kept = {
            name: value
            for name, value in self._tree.items()
            if self._where or (name not in skipped and not name.startswith(_PRESIGNED))
        }
        return json.dumps(kept, sort_keys=True)

    def finish(self, ignored: Iterable[str] = ()) -> None:
        """Refuse what has not been read."""
        for name in self._tree:
            if name in self._read or name in ignored:
                continue
            if not self._where and (name in _PROTOCOL or name.startswith(_PRESIGNED)):
                continue
            raise ProviderError(
                f"The parameter {self._where}{name} is not recognized", code="UnknownParameter"
            )


def read_tags(form: Form) -> dict[str, str]:
    """A numbered list of keys and values."""
    tags = {}
    for member in form.branches("Tag"):
        key = member.text("Key")
        if not key:
            raise ProviderError("A tag must have a key", code="MissingParameter")
        tags[key] = member.text("Value")
        member.finish()
    return tags


def read_tag_specifications(form: Form, resource: str) -> dict[str, str]:
    """Tags for one kind of resource; those for others are read and belong to nothing here."""
    tags: dict[str, str] = {}
    for member in form.branches("TagSpecification"):
        kind = member.text("ResourceType")
        found = read_tags(member)
        member.finish()
        if not found:
            raise invalid("A tag specification must have at least one tag")
        if kind == resource:
            tags |= found
    return tags


def read_launch(form: Form) -> LaunchData:
    """What RunInstances, or the data of a launch template, says of new VMs."""
    placement = form.branch("Placement")
    zone = placement.text("AvailabilityZone")
    placement.finish(["Tenancy", "GroupName"])
    subnet, public = form.text("SubnetId"), None
    for interface in form.branches("NetworkInterface"):
        subnet = subnet or interface.text("SubnetId")
        public = interface.flag("AssociatePublicIpAddress") if public is None else public
    hibernation = form.branch("HibernationOptions")
    return LaunchData(
        image=form.text("ImageId"),
        vm_type=form.text("InstanceType"),
        subnet=subnet,
        zone=zone,
        hibernation=hibernation.flag("Configured"),
        public=public,
        stop_protection=form.flag("DisableApiStop"),
        termination_protection=form.flag("DisableApiTermination"),
        tags=read_tag_specifications(form, "instance"),
    )


# ── filters ─────────────────────────────────────────────────────────────────────────────────────────────

_VM_FILTERS: Mapping[str, Callable[[VmView], str]] = {
    "availability-zone": lambda view: view.zone,
    "client-token": lambda view: view.client_token,
    "image-id": lambda view: view.image,
    "instance-id": lambda view: view.id,
    "instance-state-name": lambda view: view.state,
    "instance-type": lambda view: view.vm_type,
    "private-ip-address": lambda view: view.address,
    "reservation-id": lambda view: view.reservation,
    "subnet-id": lambda view: view.subnet,
}


def _matcher(patterns: list[str]) -> Callable[[str], bool]:
    if not any("*" in pattern or "?" in pattern for pattern in patterns):
        exact = frozenset(patterns)
        return lambda value: value in exact
    # EC2 knows * and ? only; the brackets of a shell pattern mean themselves.
    escaped = (pattern.replace("[", "[[]") for pattern in patterns)
    expression = re.compile("|".join(fnmatch.translate(pattern) for pattern in escaped))
    return lambda value: expression.match(value) is not None


def _tag_value(key: str, match: Callable[[str], bool]) -> Callable[[VmView], bool]:
    return lambda view: key in view.tags and match(view.tags[key])


def _tag_key(match: Callable[[str], bool]) -> Callable[[VmView], bool]:
    return lambda view: any(match(key) for key in view.tags)


def _field(read: Callable[[VmView], str], match: Callable[[str], bool]) -> Callable[[VmView], bool]:
    return lambda view: match(read(view))


def read_filters(
    form: Form, further: Mapping[str, Callable[[VmView], str]] | None = None
) -> list[Callable[[VmView], bool]]:
    """The filters of a describe, each a test; values within one are alternatives.

    Args:
        form: The call.
        further: Filters that this action knows beside the usual ones.
    """
    known = {**_VM_FILTERS, **(further or {})}
    tests = []
    for member in form.branches("Filter"):
        name, values = member.text("Name"), member.texts("Value")
        member.finish()
        match = _matcher(values)
        if name.startswith("tag:"):
            tests.append(_tag_value(name.removeprefix("tag:"), match))
        elif name == "tag-key":
            tests.append(_tag_key(match))
        elif name in known:
            tests.append(_field(known[name], match))
        else:
            raise invalid(f"The filter '{name}' is invalid")
    return tests
