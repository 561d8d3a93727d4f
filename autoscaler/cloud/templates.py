"""The world's launch templates: named, versioned launch data.

Rules: values in, values out; the caller supplies ids. Errors carry EC2's codes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from autoscaler.cloud.vms import LaunchData
from autoscaler.errors import ProviderError

_NAME = re.compile(r"[A-Za-z0-9().\-/_]{3,128}")
_ID = re.compile(r"lt-[0-9a-f]{8,17}")


@dataclass(frozen=True, slots=True)
class TemplateVersion:
    """One version of a template. Versions never change."""

    number: int
    description: str
    created_at_s: float
    data: LaunchData


@dataclass(slots=True)
class Template:
    """A named template; `versions[n - 1]` is version n."""

    id: str
    name: str
    created_at_s: float
    versions: list[TemplateVersion]
    default: int = 1

    @property
    def latest(self) -> int:
        """Number of the newest version."""
        return len(self.versions)

    def version(self, wanted: str) -> TemplateVersion:
        """Find a version by `$Default`, `$Latest` or number; empty means the default."""
        number = {"": self.default, "$Default": self.default, "$Latest": self.latest}.get(wanted)
        if number is None and wanted.isascii() and wanted.isdigit():
            number = int(wanted)
        if number is None or not 1 <= number <= self.latest:
            raise ProviderError(
                f"Launch template {self.id} ({self.name}) has no version {wanted}",
                code="InvalidLaunchTemplateId.VersionNotFound",
            )
        return self.versions[number - 1]


class TemplateBook:
    """All templates of a world, by id and by name."""

    def __init__(self) -> None:
        self._by_id: dict[str, Template] = {}
        self._by_name: dict[str, Template] = {}

    def all(self) -> tuple[Template, ...]:
        """All templates in order of creation."""
        return tuple(self._by_id.values())

    def create(
        self, template_id: str, name: str, data: LaunchData, now_s: float, description: str = ""
    ) -> Template:
        """Create a template with version 1."""
        if not _NAME.fullmatch(name):
            raise ProviderError(
                f"Launch template name {name!r} must be 3 to 128 letters, digits or ( ) . - / _",
                code="InvalidLaunchTemplateName.MalformedException",
            )
        if name in self._by_name:
            raise ProviderError(
                f"A launch template named {name} exists already",
                code="InvalidLaunchTemplateName.AlreadyExistsException",
            )
        template = Template(template_id, name, now_s, [TemplateVersion(1, description, now_s, data)])
        self._by_id[template_id] = self._by_name[name] = template
        return template

    def find(self, template_id: str = "", name: str = "") -> Template:
        """Find a template by id or by name. Exactly one of them must be given."""
        if bool(template_id) == bool(name):
            raise ProviderError(
                "Name the launch template by LaunchTemplateId or by LaunchTemplateName, not by both",
                code="MissingParameter" if not template_id else "InvalidParameterCombination",
            )
        if name:
            found = self._by_name.get(name)
            if found is None:
                raise ProviderError(
                    f"There is no launch template named {name}",
                    code="InvalidLaunchTemplateName.NotFoundException",
                )
            return found
        if not _ID.fullmatch(template_id):
            raise ProviderError(
                f"{template_id!r} is not a launch template id", code="InvalidLaunchTemplateId.Malformed"
            )
        found = self._by_id.get(template_id)
        if found is None:
            raise ProviderError(
                f"There is no launch template with the id {template_id}",
                code="InvalidLaunchTemplateId.NotFound",
            )
        return found

    def add_version(
        self, template: Template, data: LaunchData, now_s: float, description: str = ""
    ) -> TemplateVersion:
        """Add the next version. The default version stays the same."""
        version = TemplateVersion(template.latest + 1, description, now_s, data)
        template.versions.append(version)
        return version
