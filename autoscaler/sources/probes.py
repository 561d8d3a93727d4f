"""Readiness probes: which running VMs count as in service.

Rules of this file: failure and silence mean not ready; nothing is raised. The provider's own status checks
are the provider's matter (`Provider.checked`), not here.
"""

from __future__ import annotations

from collections.abc import Sequence

from autoscaler.ports import Clock, Vm
from autoscaler.sources.fan_out import ADDRESS, FanOut, Limits, url_host

PENDING_AT_MOST_S = 300.0
"""A VM launched this long ago (and the wait) has surely run for the wait, whoever was watching."""


class HttpProbe:
    """Ready are the VMs that answer 2xx.

    Args:
        url: What is asked, with `{address}` for a VM's private address.
        limits: Bounds of a round.
    """

    def __init__(self, url: str, limits: Limits | None = None) -> None:
        self._url = url
        self._fan_out = FanOut(limits or Limits(timeout_s=2.0, deadline_s=5.0, max_bytes=1 << 20))

    async def ready(self, vms: Sequence[Vm]) -> frozenset[str]:
        """Ask all at once."""
        urls = {vm.id: self._url.replace(ADDRESS, url_host(vm.address)) for vm in vms if vm.address}
        answers = await self._fan_out.get_all(urls, len)
        return frozenset(vm_id for vm_id, answer in answers.items() if not answer.error)

    async def close(self) -> None:
        """Release connections."""
        await self._fan_out.close()


class RunningProbe:
    """Ready are the VMs that were first given to this probe (that is, first seen running) some time ago.

    After a restart of the daemon nothing has been seen yet; VMs launched long ago are ready at once, so that
    a restart never looks like a shortage.

    Args:
        after_s: The time.
        clock: Whose time.
    """

    answers_at_once = True

    def __init__(self, after_s: float, clock: Clock) -> None:
        self._after_s = after_s
        self._clock = clock
        self._seen_at_s: dict[str, float] = {}

    async def ready(self, vms: Sequence[Vm]) -> frozenset[str]:
        """VMs not among those given are forgotten: when they come back they have been stopped in between."""
        now_s = self._clock.now()
        self._seen_at_s = {vm.id: self._seen_at_s.get(vm.id, now_s) for vm in vms}
        return frozenset(
            vm.id
            for vm in vms
            if now_s - self._seen_at_s[vm.id] >= self._after_s
            or now_s - vm.launched_at_s >= self._after_s + PENDING_AT_MOST_S
        )
