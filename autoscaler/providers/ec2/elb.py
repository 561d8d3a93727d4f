"""A target group of Elastic Load Balancing as a Balancer: registers VMs to admit them, deregisters to cordon.

The load balancer itself waits for requests to end: a deregistered target is `draining` until its deregistration delay
is over or it has nothing left to do, and then `unused`. Neither state tells how many requests a target still has, so a
draining target counts as busy and an unused one as idle.

Rules of this file: registering several targets is not all or nothing (a stopped one fails the call, although others
may have been registered), so the state is always read back. No botocore type leaves this module.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError, ClientError

from autoscaler.ports import Clock, Member, Rotation, RotationView, Vm
from autoscaler.providers.ec2.client import LateClient
from autoscaler.providers.ec2.settings import Ec2Settings

PERMISSIONS = frozenset(
    f"elasticloadbalancing:{action}"
    for action in ("DescribeTargetHealth", "RegisterTargets", "DeregisterTargets")
)
"""Permissions that a fleet with `balancer.target_group` needs in addition to `deploy/iam-policy.json`; they are in
`deploy/iam-policy-target-groups.json`."""
_ATTEMPTS = 2
_AT_ONCE = 100
"""Most targets in one call."""
_NOT_REGISTERED = "Target.NotRegistered"


class TargetGroupBalancer:
    """A Balancer for a target group of type instance.

    Args:
        settings: How to reach AWS.
        arn: ARN of the target group.
        clock: Clock for the times of readings.
        port: Port of the VMs; None for the target group's port.
        timeout_s: Longest time of one call, in seconds of the event loop.
    """

    def __init__(
        self, settings: Ec2Settings, arn: str, clock: Clock, *, port: int | None, timeout_s: float
    ) -> None:
        self._arn = arn
        self._clock = clock
        self._port = port
        self._timeout_s = timeout_s
        config = AioConfig(
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
            connect_timeout=timeout_s,
            read_timeout=timeout_s,
        )
        self._client = LateClient(settings, "elbv2", config)

    async def look(self, vms: Sequence[Vm]) -> RotationView:
        """Read the state of these VMs in the target group."""
        return await self._after("", vms)

    async def admit(self, vms: Sequence[Vm]) -> RotationView:
        """Register VMs. They are in rotation once their health checks pass."""
        return await self._after("register_targets", vms)

    async def cordon(self, vms: Sequence[Vm]) -> RotationView:
        """Deregister VMs. They finish their requests within the deregistration delay."""
        return await self._after("deregister_targets", vms)

    async def close(self) -> None:
        """Release connections."""
        await self._client.close()

    async def _after(self, change: str, vms: Sequence[Vm]) -> RotationView:
        read_at_s = self._clock.now()
        parts = [vms[at : at + _AT_ONCE] for at in range(0, len(vms), _AT_ONCE)]
        # At the same time: whoever asks waits for a few seconds, and of hundreds of VMs none would be admitted one part
        # after the other.
        views = await asyncio.gather(*(self._part_after(change, part) for part in parts))
        members = {vm_id: member for found, _ in views for vm_id, member in found.items()}
        errors = [error for _, errors in views for error in errors]
        return RotationView(members, read_at_s, "; ".join(dict.fromkeys(errors)))

    async def _part_after(self, change: str, vms: Sequence[Vm]) -> tuple[dict[str, Member], list[str]]:
        errors = []
        if change:
            found = await self._call(change, vms)
            if isinstance(found, str):
                errors.append(found)
        found = await self._call("describe_target_health", vms)
        if isinstance(found, str):
            return {}, [*errors, found]
        return _members(found, vms), errors

    async def _call(self, operation: str, vms: Sequence[Vm]) -> dict[str, Any] | str:
        """Return the reply, or a text that says why there is none."""
        targets = [{"Id": vm.id} | ({} if self._port is None else {"Port": self._port}) for vm in vms]
        try:
            async with asyncio.timeout(self._timeout_s):
                client = await self._client.opened()
                reply: dict[str, Any] = await getattr(client, operation)(
                    TargetGroupArn=self._arn, Targets=targets
                )
                return reply
        except TimeoutError:
            return f"{operation} did not end within {self._timeout_s:g} s"
        except ClientError as error:
            said = error.response.get("Error", {})
            return f"{operation} was refused: {said.get('Code', '')} {said.get('Message', '')}".rstrip()
        except (BotoCoreError, OSError) as error:
            return f"{operation} failed: {error}"


def _members(reply: dict[str, Any], vms: Sequence[Vm]) -> dict[str, Member]:
    """The requested VMs as members, by the health that the target group reports."""
    found = {}
    wanted = {vm.id for vm in vms}
    for each in reply.get("TargetHealthDescriptions", ()):
        vm_id, health = each["Target"]["Id"], each["TargetHealth"]
        if vm_id in wanted:
            found[vm_id] = _member(health["State"], health.get("Reason", ""))
    return found


def _member(state: str, reason: str) -> Member:
    detail = f"{state} {reason}".rstrip()
    if state == "healthy":
        return Member(Rotation.IN, None, detail)
    if state == "draining":
        return Member(Rotation.CORDONED, None, detail)
    if state == "unhealthy":
        # It may still get requests: if all targets are unhealthy, the load balancer uses them all.
        return Member(Rotation.OUT, None, detail)
    if state == "unused":
        return Member(Rotation.OUT, 0, detail, known=reason != _NOT_REGISTERED)
    return Member(Rotation.OUT, None, detail)
