"""The EC2 actions of the endpoint, from parameters to response body.

Rules: synchronous; time is an argument. Each action reads its whole form, refuses unknown parameters, and makes one
call to the world. The world's refusals are passed on as ProviderError with EC2's code.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import TypeVar

from autoscaler.cloud import ec2_xml as xml
from autoscaler.cloud.ec2_form import (
    IGNORED_AT_LAUNCH,
    Form,
    invalid,
    read_filters,
    read_launch,
    read_tag_specifications,
    read_tags,
)
from autoscaler.cloud.templates import Template
from autoscaler.cloud.vms import LaunchData, ListingPage, State, VmView
from autoscaler.cloud.world import World
from autoscaler.errors import ProviderError

T = TypeVar("T")

DEFAULT_TYPE = "m1.small"
"""EC2's default machine type for a launch that names none."""

_NO_LIMIT = 10**12


class Actions:
    """EC2's actions on one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rendered: dict[int, tuple[VmView, bytes]] = {}
        self._known: dict[str, Callable[[float, Form], str | bytes]] = {
            "CreateLaunchTemplate": self._create_template,
            "CreateLaunchTemplateVersion": self._create_template_version,
            "CreateTags": self._create_tags,
            "DescribeInstanceStatus": self._describe_status,
            "DescribeInstances": self._describe,
            "DescribeLaunchTemplateVersions": self._describe_template_versions,
            "DescribeLaunchTemplates": self._describe_templates,
            "ModifyInstanceAttribute": self._modify,
            "RunInstances": self._run,
            "StartInstances": self._start,
            "StopInstances": self._stop,
            "TerminateInstances": self._terminate,
        }

    def perform(self, now_s: float, action: str, form: Form) -> str | bytes:
        """Carry out one call and return the body of its response.

        Raises:
            ProviderError: The call is refused; `code` is EC2's.
        """
        known = self._known.get(action)
        if known is None:
            raise ProviderError(
                f"The action {action} is not valid for this web service", code="InvalidAction"
            )
        return known(now_s, form)

    # ── changes of state ────────────────────────────────────────────────────────────────────────────────

    def _start(self, now_s: float, form: Form) -> str:
        vm_ids, dry_run = form.texts("InstanceId"), form.flag("DryRun") or False
        form.finish(["AdditionalInfo"])
        return xml.state_changes(self._world.start(now_s, vm_ids, dry_run=dry_run))

    def _stop(self, now_s: float, form: Form) -> str:
        vm_ids, dry_run = form.texts("InstanceId"), form.flag("DryRun") or False
        force, hibernate = form.flag("Force") or False, form.flag("Hibernate") or False
        # SkipOsShutdown affects only how the guest ends, which this world does not model.
        form.finish(["SkipOsShutdown"])
        changes = self._world.stop(now_s, vm_ids, force=force, hibernate=hibernate, dry_run=dry_run)
        return xml.state_changes(changes)

    def _terminate(self, now_s: float, form: Form) -> str:
        vm_ids, dry_run = form.texts("InstanceId"), form.flag("DryRun") or False
        form.finish(["Force", "SkipOsShutdown"])
        return xml.state_changes(self._world.terminate(now_s, vm_ids, dry_run=dry_run))

    def _modify(self, now_s: float, form: Form) -> str:
        vm_id, dry_run = form.text("InstanceId"), form.flag("DryRun") or False
        vm_type = form.branch("InstanceType").text("Value") or form.text("Value")
        attribute = form.text("Attribute")
        form.finish()
        if attribute not in {"", "instanceType"} or not vm_type:
            raise ProviderError(
                "Of an instance's attributes only its type can be changed here", code="InvalidParameterValue"
            )
        self._world.retype(now_s, vm_id, vm_type, dry_run=dry_run)
        return "<return>true</return>"

    def _create_tags(self, now_s: float, form: Form) -> str:
        ids, tags, dry_run = form.texts("ResourceId"), read_tags(form), form.flag("DryRun") or False
        form.finish()
        if not tags:
            raise ProviderError("The request must contain a Tag", code="MissingParameter")
        foreign = [one for one in ids if not one.startswith("i-")]
        if foreign:
            raise ProviderError(f"The ID '{foreign[0]}' is not valid", code="InvalidID")
        self._world.tag(now_s, ids, tags, dry_run=dry_run)
        return "<return>true</return>"

    def _run(self, now_s: float, form: Form) -> bytes:
        asked = form.fingerprint()
        minimum = form.integer("MinCount", -_NO_LIMIT, _NO_LIMIT)
        maximum = form.integer("MaxCount", -_NO_LIMIT, _NO_LIMIT)
        token, dry_run = form.text("ClientToken"), form.flag("DryRun") or False
        base = self._template_data(form.branch("LaunchTemplate"))
        data = read_launch(form).filled_from(base)
        form.finish(IGNORED_AT_LAUNCH)
        if minimum is None or maximum is None:
            raise ProviderError("The request must contain MinCount and MaxCount", code="MissingParameter")
        complete = LaunchData(vm_type=data.vm_type or DEFAULT_TYPE).filled_from(data)
        made = self._world.run(now_s, complete, minimum, maximum, token=token, request=asked, dry_run=dry_run)
        return xml.run_result(made)

    def _template_data(self, form: Form) -> LaunchData:
        template_id, name = form.text("LaunchTemplateId"), form.text("LaunchTemplateName")
        version = form.text("Version")
        form.finish()
        if not template_id and not name:
            return LaunchData()
        return self._world.templates.find(template_id, name).version(version).data

    # ── listings ────────────────────────────────────────────────────────────────────────────────────────

    def _describe(self, now_s: float, form: Form) -> bytes:
        page = self._page(now_s, form, "DescribeInstances", read_filters(form), form.branch("Filter"))
        body = xml.reservations(page.vms, (self._instance(view) for view in page.vms))
        token = self._next_token(page, form)
        return b"".join((b"<reservationSet>", body, b"</reservationSet>", token.encode()))

    def _describe_status(self, now_s: float, form: Form) -> str:
        def status(view: VmView) -> str:
            return xml.check_status(view, self._world.now_s)

        tests = read_filters(form, {"instance-status.status": status, "system-status.status": status})
        if not form.flag("IncludeAllInstances"):
            tests.append(lambda view: view.state is State.RUNNING)
        page = self._page(now_s, form, "DescribeInstanceStatus", tests, form.branch("Filter"))
        items = "".join(xml.instance_status(view, self._world.now_s) for view in page.vms)
        return f"<instanceStatusSet>{items}</instanceStatusSet>{self._next_token(page, form)}"

    def _page(
        self,
        now_s: float,
        form: Form,
        action: str,
        tests: Sequence[Callable[[VmView], bool]],
        filters: Form,
    ) -> ListingPage:
        vm_ids, limit = form.texts("InstanceId"), form.integer("MaxResults", 5, 1000)
        token, dry_run = form.text("NextToken"), form.flag("DryRun") or False
        form.finish()
        if vm_ids and limit is not None:
            raise ProviderError(
                "InstanceId cannot be used together with MaxResults", code="InvalidParameterCombination"
            )
        return self._world.page(
            now_s,
            action=action,
            vm_ids=vm_ids,
            after=_read_token(token, filters) if token else -1,
            limit=limit,
            matches=lambda view: all(test(view) for test in tests),
            plain=not (vm_ids or tests or limit or token),
            dry_run=dry_run,
        )

    def _next_token(self, page: ListingPage, form: Form) -> str:
        if page.last is None:
            return ""
        return f"<nextToken>{_write_token(page.last, form.branch('Filter'))}</nextToken>"

    def _instance(self, view: VmView) -> bytes:
        if view.state is State.TERMINATED:
            # It will not change again and soon leaves the listings, so keeping its text would only use memory.
            self._rendered.pop(view.number, None)
            return xml.instance(view)
        kept = self._rendered.get(view.number)
        if kept is None or kept[0] is not view:
            kept = self._rendered[view.number] = (view, xml.instance(view))
        return kept[1]

    # ── launch templates ────────────────────────────────────────────────────────────────────────────────

    def _create_template(self, now_s: float, form: Form) -> str:
        name, description = form.text("LaunchTemplateName"), form.text("VersionDescription")
        data = self._read_template_data(form)
        read_tag_specifications(form, "launch-template")
        form.finish(["ClientToken"])
        world = self._world

        def create() -> Template:
            return world.templates.create(world.new_id("lt"), name, data, world.now_s, description)

        made = self._call(now_s, "CreateLaunchTemplate", form, create)
        return xml.template(made, "launchTemplate")

    def _create_template_version(self, now_s: float, form: Form) -> str:
        template_id, name = form.text("LaunchTemplateId"), form.text("LaunchTemplateName")
        source, description = form.text("SourceVersion"), form.text("VersionDescription")
        data = self._read_template_data(form)
        form.finish(["ClientToken"])
        world = self._world

        def create() -> str:
            found = world.templates.find(template_id, name)
            whole = data.filled_from(found.version(source).data) if source else data
            version = world.templates.add_version(found, whole, world.now_s, description)
            return xml.template_version(found, version, "launchTemplateVersion")

        return self._call(now_s, "CreateLaunchTemplateVersion", form, create)

    @staticmethod
    def _read_template_data(form: Form) -> LaunchData:
        if not form.given("LaunchTemplateData"):
            raise ProviderError("The request must contain LaunchTemplateData", code="MissingParameter")
        below = form.branch("LaunchTemplateData")
        data = read_launch(below)
        below.finish(IGNORED_AT_LAUNCH)
        return data

    def _describe_templates(self, now_s: float, form: Form) -> str:
        ids, names = form.texts("LaunchTemplateId"), form.texts("LaunchTemplateName")
        form.finish()
        book = self._world.templates

        def find() -> Sequence[Template]:
            if not ids and not names:
                return book.all()
            return [book.find(one) for one in ids] + [book.find("", one) for one in names]

        found = self._call(now_s, "DescribeLaunchTemplates", form, find)
        return f"<launchTemplates>{''.join(xml.template(one, 'item') for one in found)}</launchTemplates>"

    def _describe_template_versions(self, now_s: float, form: Form) -> str:
        template_id, name = form.text("LaunchTemplateId"), form.text("LaunchTemplateName")
        wanted = form.texts("LaunchTemplateVersion")
        form.finish()

        def find() -> str:
            found = self._world.templates.find(template_id, name)
            versions = [found.version(one) for one in wanted] if wanted else found.versions
            return "".join(xml.template_version(found, version, "item") for version in versions)

        items = self._call(now_s, "DescribeLaunchTemplateVersions", form, find)
        return f"<launchTemplateVersionSet>{items}</launchTemplateVersionSet>"

    def _call(self, now_s: float, action: str, form: Form, operation: Callable[[], T]) -> T:
        self._world.advance(now_s)
        dry_run = form.flag("DryRun") or False
        return self._world.api.call(self._world.now_s, action, operation, dry_run=dry_run)


def _digest(filters: Form) -> str:
    return hashlib.blake2b(filters.fingerprint().encode(), digest_size=6).hexdigest()


def _write_token(after: int, filters: Form) -> str:
    return base64.urlsafe_b64encode(json.dumps([after, _digest(filters)]).encode()).decode()


def _read_token(token: str, filters: Form) -> int:
    try:
        after, digest = json.loads(base64.urlsafe_b64decode(token.encode()))
    except (ValueError, binascii.Error, TypeError):
        raise invalid("Unable to parse the pagination token") from None
    if not isinstance(after, int) or digest != _digest(filters):
        raise invalid("The pagination token belongs to a call with other filters")
    return after
