"""Readiness probes: which running VMs count as in service.

Rules of this file: failure and silence mean not ready; nothing is raised. The provider's own status checks belong to the
provider (`Provider.checked`).
"""

from __future__ import annotations

from collections.abc import Sequence

from autoscaler.ports import Clock, Vm
from autoscaler.ports.sources import ADDRESS
from autoscaler.sources.fan_out import FanOut, Limits, url_host

PENDING_AT_MOST_S = 300.0
"""Longest time from launch to running, in seconds. A VM launched this long plus `after_s` ago has surely run for `after_s`."""


class HttpProbe:
    """Reports VMs as ready if they answer with status 2xx.

    Args:
        url: URL to request, with `{address}` for a VM's private address.
        limits: Bounds of a round.
    """

    def __init__(self, url: str, limits: Limits | None = None) -> None:
        self._url = url
        self._fan_out = FanOut(limits or Limits(timeout_s=2.0, deadline_s=5.0, max_bytes=1 << 20))

    async def ready(self, vms: Sequence[Vm]) -> frozenset[str]:
        """Request all VMs at once, and return those that answered with 2xx."""
        urls = {vm.id: self._url.replace(ADDRESS, url_host(vm.address)) for vm in vms if vm.address}
        answers = await self._fan_out.get_all(urls, len)
        return frozenset(vm_id for vm_id, answer in answers.items() if not answer.error)

    async def close(self) -> None:
        """Release connections."""
        await self._fan_out.close()


class RunningProbe:
    """Reports VMs as ready once they have run for some time, counted from when this probe first saw them.

    After a restart of the daemon, no VM has been seen yet. VMs that were launched long ago are then ready at once, so that
    a restart does not look like a shortage.

    Args:
        after_s: The time in seconds.
        clock: Clock that measures it.
    """

    answers_at_once = True

    def __init__(self, after_s: float, clock: Clock) -> None:
        self._after_s = after_s
        self._clock = clock
        self._seen_mono_s: dict[str, float] = {}

    async def ready(self, vms: Sequence[Vm]) -> frozenset[str]:
        """Return the ready VMs. VMs that are not in `vms` are forgotten: if they come back, they were stopped in between."""
        # Clocks that are set do not change how long a VM has been seen.
        now_s, mono_s = self._clock.now(), self._clock.monotonic()
        self._seen_mono_s = {vm.id: self._seen_mono_s.get(vm.id, mono_s) for vm in vms}
        return frozenset(
            vm.id
            for vm in vms
            if mono_s - self._seen_mono_s[vm.id] >= self._after_s
            or now_s - vm.launched_at_s >= self._after_s + PENDING_AT_MOST_S
        )
