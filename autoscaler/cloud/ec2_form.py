"""Parses EC2 query requests.

Rules: parameters in, checked values out; errors carry EC2's codes. A parameter that the action has not read by the
time it starts is refused, so that nothing in a request is silently ignored.
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
"""Launch parameters that are accepted and have no effect, because the world models only states and times."""


def invalid(message: str) -> ProviderError:
    """Build the error for an invalid value."""
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
    """The parameters of a call, or those below a common prefix."""

    def __init__(self, tree: Tree, where: str = "") -> None:
        self._tree = tree
        self._where = where
        self._read: set[str] = set()

    @classmethod
    def parse(cls, body: str) -> Form:
        """Parse a form-encoded body or query string."""
        return cls(_grow(parse_qsl(body, keep_blank_values=True)))

    def text(self, name: str) -> str:
        """Read a string; empty if it is not given."""
        self._read.add(name)
        value = self._tree.get(name, "")
        if not isinstance(value, str):
            raise invalid(f"The parameter {self._where}{name} must be one value")
        if _UNWRITABLE.search(value):
            raise invalid(f"The parameter {self._where}{name} has characters that XML cannot carry")
        return value

    def flag(self, name: str) -> bool | None:
        """Read a boolean; None if it is not given."""
        value = self.text(name)
        if value.lower() not in {"", "true", "false"}:
            raise invalid(f"Value ({value}) for parameter {self._where}{name} is not a boolean")
        return {"true": True, "false": False}.get(value.lower())

    def integer(self, name: str, lowest: int, highest: int) -> int | None:
        """Read an integer from `lowest` to `highest`, both included; None if it is not given."""
        value = self.text(name)
        if not value:
            return None
        if not re.fullmatch(r"-?[0-9]{1,12}", value) or not lowest <= int(value) <= highest:
            raise invalid(
                f"Value ({value}) for parameter {self._where}{name} must be a number from {lowest} to {highest}"
            )
        return int(value)

    def branch(self, name: str) -> Form:
        """Read the parameters below a name; the result may be empty."""
        self._read.add(name)
        below = self._tree.get(name, {})
        if isinstance(below, str):
            raise invalid(f"The parameter {self._where}{name} must have members")
        return Form(below, f"{self._where}{name}.")

    def branches(self, name: str) -> list[Form]:
        """Read a numbered list of structures, ordered by number."""
        tree = self.branch(name)._tree  # noqa: SLF001 -- its own kind
        members = []
        for key in self._ordered(name, tree):
            below = tree[key]
            if isinstance(below, str):
                raise invalid(f"The parameter {self._where}{name}.{key} must have members")
            members.append(Form(below, f"{self._where}{name}.{key}."))
        return members

    def texts(self, name: str) -> list[str]:
        """Read a numbered list of strings, ordered by number."""
        tree = self.branch(name)._tree  # noqa: SLF001 -- its own kind
        below = Form(tree, f"{self._where}{name}.")
        return [below.text(key) for key in self._ordered(name, tree)]

    def one_or_more(self, name: str) -> list[str]:
        """Read a numbered list of strings, or a single string as a list of one."""
        return [self.text(name)] if isinstance(self._tree.get(name), str) else self.texts(name)

    def _ordered(self, name: str, tree: Tree) -> list[str]:
        for key in tree:
            if not re.fullmatch(r"[0-9]{1,6}", key):
                raise invalid(f"The members of {self._where}{name} must be numbered, not {key!r}")
        return sorted(tree, key=int)

    def given(self, name: str) -> bool:
        """Whether a parameter is given."""
        return name in self._tree

    def fingerprint(self) -> str:
        """A text that is equal for calls with the same meaning, whatever their client token and signature."""
        skipped = _PROTOCOL | {"ClientToken"}
        kept = {
            name: value
            for name, value in self._tree.items()
            if self._where or (name not in skipped and not name.startswith(_PRESIGNED))
        }
        return json.dumps(kept, sort_keys=True)

    def finish(self, ignored: Iterable[str] = ()) -> None:
        """Refuse the call if it has parameters that were neither read nor are in `ignored`."""
        for name in self._tree:
            if name in self._read or name in ignored:
                continue
            if not self._where and (name in _PROTOCOL or name.startswith(_PRESIGNED)):
                continue
            raise ProviderError(
                f"The parameter {self._where}{name} is not recognized", code="UnknownParameter"
            )


def read_tags(form: Form) -> dict[str, str]:
    """Read a numbered list of tags."""
    tags = {}
    for member in form.branches("Tag"):
        key = member.text("Key")
        if not key:
            raise ProviderError("A tag must have a key", code="MissingParameter")
        tags[key] = member.text("Value")
        member.finish()
    return tags


def read_tag_specifications(form: Form, resource: str) -> dict[str, str]:
    """Read the tags for one kind of resource. Tags for other kinds are checked and dropped."""
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
    """Read the launch data of RunInstances or of a launch template."""
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
    # EC2 knows only * and ?; the brackets of shell patterns are literal.
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
    """Read the filters of a describe as tests, all of which must hold. The values of one filter are alternatives.

    Args:
        form: The call.
        further: Filters of this action in addition to the usual ones.
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
