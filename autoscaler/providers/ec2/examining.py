"""Checks EC2 in advance for what the daemon needs on a bad day: permissions, quotas, keys, unsuitable VMs.

Nothing is changed: permissions for changes are tested with DryRun, which EC2 answers without doing anything. A DryRun
tests only the permission, not whether a zone has room or what state a VM is in.

Rules: every call is bounded; a call that fails becomes a finding and never ends the examination. This module only
collects the facts; `diagnosis` judges them.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeAlias

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore import exceptions as aws

from autoscaler.aws_session import CredentialsError
from autoscaler.ports import FLEET_TAG, Clock, ProvisionSpec
from autoscaler.ports.findings import Finding, Level
from autoscaler.providers.budget import CallBudget
from autoscaler.providers.ec2 import diagnosis, hibernation_check, target_group_check
from autoscaler.providers.ec2.client import open_session, service_client
from autoscaler.providers.ec2.diagnosis import Described
from autoscaler.providers.ec2.provider import launch_parameters, named_template
from autoscaler.providers.ec2.settings import Ec2Settings
from autoscaler.providers.failing import shorten

PERMISSIONS: Final = frozenset(
    {
        "ec2:DescribeVolumes",
        "ec2:DescribeInstanceTypes",
        "servicequotas:GetServiceQuota",
        "kms:DescribeKey",
    }
)
"""Permissions that an examination uses in addition to the daemon's. If one is missing, a finding says so."""

_PAGE, _MOST_PAGES = 1000, 100
_MOST_KEYS = 20
_MOST_TYPES = 100


Call: TypeAlias = Callable[..., Awaitable[Mapping[str, Any]]]
"""An operation of an aiobotocore client."""


@dataclass(frozen=True, slots=True)
class Examined:
    """The parts of a policy that an examination needs.

    Attributes:
        fleet: Name of the fleet.
        spec: What new VMs are made from; None if the fleet makes none.
        may_provision: Most VMs that may exist in total; 0 if the fleet makes none.
        reads_cloudwatch: Whether its metrics come from CloudWatch.
        reads_template: Whether the daemon must read its launch template.
        hibernates: Whether its stopped VMs should hibernate.
        retypes: Whether its stopped VMs may be started as another machine type.
        target_group: ARN of the target group in front of it; empty if there is none.
        start_time_s: Start time that the policy plans with, in seconds.
        drain_timeout_s: Longest time for a VM to become idle, in seconds.
    """

    fleet: str
    spec: ProvisionSpec | None
    may_provision: int
    reads_cloudwatch: bool
    reads_template: bool = False
    hibernates: bool = False
    retypes: bool = False
    target_group: str = ""
    start_time_s: float = 40.0
    drain_timeout_s: float = 120.0


async def examine(settings: Ec2Settings, fleets: Sequence[Examined], clock: Clock) -> list[Finding]:
    """Run all checks and return the findings.

    Args:
        settings: Which EC2 to ask, and how long to wait for each answer.
        fleets: The fleets of all policies.
        clock: Our clock, which is compared with EC2's.

    Raises:
        ConfigError: There are no credentials, or the settings are wrong.
    """
    session = await open_session(settings)
    async with AsyncExitStack() as stack:
        ec2 = await stack.enter_async_context(_client(session, settings, "ec2"))
        return await Examination(ec2, session, settings, clock).all(fleets)


class Examination:
    """One run of all checks.

    Args:
        ec2: An EC2 client of aiobotocore.
        session: Session that opens clients of other services when they are needed.
        settings: See `examine`.
        clock: See `examine`.
    """

    def __init__(self, ec2: Any, session: AioSession, settings: Ec2Settings, clock: Clock) -> None:
        self._ec2 = ec2
        self._session = session
        self._settings = settings
        self._clock = clock

    async def all(self, fleets: Sequence[Examined]) -> list[Finding]:
        """Run all checks, and return the findings in the order in which a person would want to read them."""
        found, vms = await self._listing()
        if vms is None:
            return found
        by_fleet: dict[str, list[Described]] = defaultdict(list)
        for vm in vms:
            by_fleet[vm.fleet].append(vm)
        found += await self._permissions(fleets, [vm for vm in vms if vm.fleet and vm.exists])
        for each in fleets:
            mine = by_fleet[each.fleet]
            found += diagnosis.of_fleet(each.fleet, mine)
            if each.reads_cloudwatch and mine:
                found += diagnosis.monitoring(each.fleet, mine)
            found += await self._keys(each.fleet, [vm for vm in mine if vm.exists])
            if each.hibernates:
                found += await self._hibernation(each, [vm for vm in mine if vm.exists])
            if each.target_group:
                found += await self._target_group(each)
        found += diagnosis.without_policy(vms, (each.fleet for each in fleets))
        owned = [vm for vm in vms if vm.fleet and vm.exists]
        if owned:
            calls = len({(vm.fleet, vm.vm_type, vm.zone) for vm in owned})
            seconds = CallBudget(self._clock).burst_s(len(owned), calls)
            found.append(diagnosis.burst(owned, seconds, calls))
        found += await self._quotas(fleets, vms)
        return found

    # ── the listing, and what it shows of clock and network ─────────────────────────────────────────────

    async def _listing(self) -> tuple[list[Finding], list[Described] | None]:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        first = await self._ask(self._ec2.describe_instances, MaxResults=5)
        seconds = loop.time() - began_s
        if isinstance(first, Finding):
            return [first], None
        found = [diagnosis.latency(seconds)]
        stamp = first["ResponseMetadata"]["HTTPHeaders"].get("date")
        if stamp:
            off_s = self._clock.now() - seconds / 2.0 - (parsedate_to_datetime(stamp).timestamp() + 0.5)
            found.append(diagnosis.clock(off_s))
        vms: list[Described] = []
        token: str | None = None
        for _ in range(_MOST_PAGES):
            more = {} if token is None else {"NextToken": token}
            page = await self._ask(self._ec2.describe_instances, MaxResults=_PAGE, **more)
            if isinstance(page, Finding):
                return [*found, page], None
            rows = (row for reservation in page["Reservations"] for row in reservation["Instances"])
            vms += [diagnosis.described(row, FLEET_TAG) for row in rows]
            token = page.get("NextToken")
            if not token:
                break
        return found, vms

    # ── permissions ─────────────────────────────────────────────────────────────────────────────────────

    async def _permissions(self, fleets: Sequence[Examined], owned: Sequence[Described]) -> list[Finding]:
        found = []
        if owned:
            ids = [owned[0].id]
            tags = [{"Key": FLEET_TAG, "Value": owned[0].fleet}]
            asked: dict[str, tuple[Call, dict[str, Any]]] = {
                "ec2:DescribeInstanceStatus": (self._ec2.describe_instance_status, {"InstanceIds": ids}),
                "ec2:StartInstances": (self._ec2.start_instances, {"InstanceIds": ids}),
                "ec2:StopInstances": (self._ec2.stop_instances, {"InstanceIds": ids}),
                "ec2:TerminateInstances": (self._ec2.terminate_instances, {"InstanceIds": ids}),
                "ec2:CreateTags": (self._ec2.create_tags, {"Resources": ids, "Tags": tags}),
            }
            if any(each.retypes for each in fleets):
                other = {"InstanceId": owned[0].id, "InstanceType": {"Value": owned[0].vm_type}}
                asked["ec2:ModifyInstanceAttribute"] = (self._ec2.modify_instance_attribute, other)
            for action, (call, parameters) in asked.items():
                found.append(await self._permitted(action, call, parameters))
        else:
            text = "permissions to start, stop, delete and tag could not be tried: no VM carries the tag"
            found.append(Finding("permission", Level.UNKNOWN, text, f"tag a VM with {FLEET_TAG}"))
        for each in fleets:
            if each.spec is None:
                continue
            found.append(await self._may_launch(each.fleet, each.spec))
            # Otherwise an error in the template itself has already been reported.
            if each.reads_template and found[-1].check == "permission":
                by = {**named_template(each.spec), "Versions": [each.spec.version]}
                read = self._ec2.describe_launch_template_versions
                action = "ec2:DescribeLaunchTemplateVersions"
                found.append(await self._permitted(action, read, by, each.fleet))
        return found

    async def _permitted(
        self, action: str, call: Call, parameters: Mapping[str, Any], fleet: str = ""
    ) -> Finding:
        code, message = await self._dry(call, parameters)
        if code == "DryRunOperation":
            return Finding("permission", Level.OK, f"{action} is allowed", "", fleet)
        if code in {"UnauthorizedOperation", "AccessDenied", "AuthFailure", "OptInRequired", "Blocked"}:
            text = f"{action} is not allowed: {code} {message}"
            fix = f"allow {action} to the role that the daemon runs under (deploy/iam-policy.json has all it needs)"
            return Finding("permission", Level.PROBLEM, text, fix, fleet)
        if code == "":
            return Finding(
                "permission", Level.UNKNOWN, f"{action}: this endpoint does not know DryRun", "", fleet
            )
        return Finding(
            "permission", Level.UNKNOWN, f"{action} could not be tried: {code} {message}", "", fleet
        )

    async def _may_launch(self, fleet: str, spec: ProvisionSpec) -> Finding:
        parameters = launch_parameters(spec, 1, {FLEET_TAG: fleet})
        finding = await self._permitted("ec2:RunInstances", self._ec2.run_instances, parameters, fleet)
        if finding.level is Level.UNKNOWN and ("Invalid" in finding.text or "NotFound" in finding.text):
            fix = f"correct launch template {spec.launch_template} (version {spec.version}), or what the policy overrides"
            return Finding("launch_template", Level.PROBLEM, finding.text, fix, fleet)
        return finding

    async def _dry(self, call: Call, parameters: Mapping[str, Any]) -> tuple[str, str]:
        """Code and message of the error with which every DryRun ends; both empty if the call ended without an error."""
        try:
            async with asyncio.timeout(self._settings.call_deadline_s):
                await call(**parameters, DryRun=True)
        except aws.ClientError as error:
            said = error.response.get("Error", {})
            return str(said.get("Code", "")), shorten(str(said.get("Message", "")))
        except (aws.BotoCoreError, TimeoutError) as error:
            return type(error).__name__, shorten(str(error))
        return "", ""

    # ── keys and quotas ─────────────────────────────────────────────────────────────────────────────────

    async def _keys(self, fleet: str, vms: Sequence[Described]) -> list[Finding]:
        volumes = [volume for vm in vms for volume in vm.volumes][:_PAGE]
        if not volumes:
            return []
        answer = await self._ask(self._ec2.describe_volumes, VolumeIds=volumes)
        if isinstance(answer, Finding):
            text = f"whether volumes are encrypted could not be seen: {answer.text}"
            return [Finding("key", Level.UNKNOWN, text, answer.fix and "allow ec2:DescribeVolumes", fleet)]
        ids = sorted({each["KmsKeyId"] for each in answer["Volumes"] if each.get("KmsKeyId")})
        if not ids:
            return []
        states: dict[str, str] = {}
        async with _client(self._session, self._settings, "kms") as kms:
            for key in ids[:_MOST_KEYS]:
                told = await self._ask(kms.describe_key, KeyId=key)
                if isinstance(told, Finding):
                    states[key] = told.text
                elif told["KeyMetadata"].get("KeyManager") == "CUSTOMER":
                    states[key] = told["KeyMetadata"].get("KeyState", "unknown state")
        return diagnosis.keys(fleet, states)

    async def _quotas(self, fleets: Sequence[Examined], vms: Sequence[Described]) -> list[Finding]:
        owned: dict[tuple[str, str], int] = defaultdict(int)
        others: dict[tuple[str, str], int] = defaultdict(int)
        counts: dict[str, int] = defaultdict(int)
        for vm in vms:
            if vm.fleet and vm.exists:
                owned[diagnosis.family_of(vm.vm_type)] += vm.vcpus
                counts[vm.fleet] += 1
            elif vm.state in {"running", "pending"} and not vm.spot:
                others[diagnosis.family_of(vm.vm_type)] += vm.vcpus
        extra: dict[tuple[str, str], int] = defaultdict(int)
        for each in fleets:
            mine = [vm for vm in vms if vm.fleet == each.fleet and vm.exists]
            if mine:
                room = max(each.may_provision - counts[each.fleet], 0)
                extra[diagnosis.family_of(mine[0].vm_type)] += room * max(vm.vcpus for vm in mine)
        families = sorted(family for family in owned if family[1] and owned[family])
        if not families:
            return []
        async with _client(self._session, self._settings, "service-quotas") as quotas:
            found = []
            for name, code in families:
                told = await self._ask(quotas.get_service_quota, ServiceCode="ec2", QuotaCode=code)
                quota = None if isinstance(told, Finding) else float(told["Quota"]["Value"])
                key = name, code
                found.append(diagnosis.headroom(name, owned[key], others[key], quota, extra[key]))
        return found

    # ── hibernation and the load balancer ───────────────────────────────────────────────────────────────

    async def _hibernation(self, each: Examined, vms: Sequence[Described]) -> list[Finding]:
        unseen: list[Finding] = []

        async def rows(what: str, call: Call, **parameters: Any) -> Sequence[Mapping[str, Any]]:
            answer = await self._ask(call, **parameters)
            if not isinstance(answer, Finding):
                found: Sequence[Mapping[str, Any]] = answer[what]
                return found
            text = f"what decides on hibernation could not all be seen: {answer.text}"
            fix = answer.fix and "allow it to the role (deploy/iam-policy.json has all it needs)"
            unseen.append(Finding("hibernation", Level.UNKNOWN, text, fix, each.fleet))
            return ()

        types: Sequence[Mapping[str, Any]] = ()
        volumes: Sequence[Mapping[str, Any]] = ()
        if names := sorted({vm.vm_type for vm in vms})[:_MOST_TYPES]:
            types = await rows("InstanceTypes", self._ec2.describe_instance_types, InstanceTypes=names)
        if roots := [vm.volumes[0] for vm in vms if vm.volumes and not vm.hibernates][:_PAGE]:
            volumes = await rows("Volumes", self._ec2.describe_volumes, VolumeIds=roots)
        template = None
        if each.spec is not None:
            versions = await rows(
                "LaunchTemplateVersions",
                self._ec2.describe_launch_template_versions,
                **named_template(each.spec),
                Versions=[each.spec.version],
            )
            if versions:
                asked = versions[0].get("LaunchTemplateData", {}).get("HibernationOptions", {})
                template = bool(asked.get("Configured"))
        return unseen + hibernation_check.of_fleet(
            each.fleet,
            vms,
            hibernation_check.type_facts(types),
            hibernation_check.volume_facts(volumes),
            template=template,
        )

    async def _target_group(self, each: Examined) -> list[Finding]:
        arn = each.target_group
        async with _client(self._session, self._settings, "elbv2") as elb:
            groups = await self._ask(elb.describe_target_groups, TargetGroupArns=[arn])
            attributes = await self._ask(elb.describe_target_group_attributes, TargetGroupArn=arn)
        for answer in (groups, attributes):
            if isinstance(answer, Finding):
                level = Level.PROBLEM if "NotFound" in answer.text else Level.UNKNOWN
                fix = "correct balancer.target_group.arn, or allow what deploy/iam-policy-target-groups.json lists"
                text = f"the target group could not be looked at: {answer.text}"
                return [Finding("balancer", level, text, fix, each.fleet)]
        assert not isinstance(groups, Finding)
        assert not isinstance(attributes, Finding)
        named = {row["Key"]: row["Value"] for row in attributes["Attributes"]}
        group = target_group_check.target_group(groups["TargetGroups"][0], named)
        return target_group_check.of_group(each.fleet, group, each.start_time_s, each.drain_timeout_s)

    # ── one bounded call ────────────────────────────────────────────────────────────────────────────────

    async def _ask(self, call: Call, **parameters: Any) -> Mapping[str, Any] | Finding:
        """Return the reply, or a finding that says why there is none."""
        try:
            async with asyncio.timeout(self._settings.call_deadline_s):
                return await call(**parameters)
        except aws.ClientError as error:
            said = error.response.get("Error", {})
            if said.get("Code") == "InvalidAction":
                text = f"this endpoint does not know {error.operation_name}"
                return Finding("reach", Level.UNKNOWN, text)
            text = shorten(f"{error.operation_name}: {said.get('Code', '')} {said.get('Message', '')}")
            fix = "check the credentials and the permissions of the role (deploy/iam-policy.json has all it needs)"
            return Finding("reach", Level.PROBLEM, text, fix)
        except TimeoutError:
            text = f"no answer within {self._settings.call_deadline_s:g} s"
            return Finding("reach", Level.PROBLEM, text, "check the network and the Region")
        except CredentialsError as error:
            fix = "check what supplies them: the role of this machine, or the profile"
            return Finding("reach", Level.PROBLEM, shorten(str(error)), fix)
        except aws.BotoCoreError as error:
            fix = "check the network, the Region and the endpoint"
            return Finding("reach", Level.PROBLEM, shorten(str(error)), fix)


def _client(session: AioSession, settings: Ec2Settings, service: str) -> Any:
    config = AioConfig(
        connect_timeout=settings.connect_timeout_s,
        read_timeout=settings.read_timeout_s,
        retries={"mode": "standard", "total_max_attempts": 2},
    )
    return service_client(session, settings, service, config)
