"""The leases of all fleets: which are held by another daemon, and the tags that claim ours.

Rules of this file: tags are written in the background, one call per fleet every few minutes, with the lowest priority in
the API budget. A failed write is reported once and retried, and holds up nothing. Fleets in shadow need no lease.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from autoscaler.daemon.bounded import within
from autoscaler.daemon.fleets import Fleet
from autoscaler.daemon.vms.lease import AWAY_S, LEASE_TAG, VALID_S, Lease
from autoscaler.errors import AutoscalerError
from autoscaler.ports import Clock, Listing, Note, Outcome, OutcomeKind, Vm

WRITE_WITHIN_S = 30.0
"""Longest wait for one tag, in seconds of the event loop."""
AT_ONCE = 20
"""Most fleets of one provider whose tags are written at the same time, and whose tags are renewed after one listing, so that
many fleets do not renew theirs together.
"""
LATE_S = 60.0
"""Time after which a renewal that is due no longer waits for the next listing, in seconds: an old tag lets another daemon
act.
"""


class Leasing:
    """Keeps one `Lease` per acting fleet.

    Args:
        clock: The source of time.
        name: Name of this daemon, the same across restarts; empty means that no leases are kept.
        run: Identifier of this run.
    """

    def __init__(self, clock: Clock, name: str, run: str) -> None:
        self._clock = clock
        self._name, self._run = name, run
        self._of: dict[str, Lease] = {}
        self._writing: dict[str, asyncio.Task[None]] = {}
        self._turns: dict[int, asyncio.Semaphore] = {}
        self._refused: set[str] = set()
        self._notes: list[Note] = []
        self._followed_s: float | None = None
        self._gap_s = 0.0
        """Monotonic time of the last call of `follow`, and the time between the last two, in seconds."""

    def follow(
        self,
        fleets: Iterable[Fleet],
        listings: Mapping[int, Listing],
        rows_by_fleet: Callable[[int], Mapping[str, tuple[Vm, ...]]],
        now_s: float,
    ) -> list[Note]:
        """After the listings, hold the fleets of other daemons and renew our leases; return what deserves an event.

        Args:
            fleets: All fleets.
            listings: The listing of each provider, by `id(provider)`. If it is not complete for a fleet, the fleet's
                lease stays as it is.
            rows_by_fleet: Returns the rows of a provider's listing by fleet, given `id(provider)`.
            now_s: The current time.
        """
        if not self._name:
            return []
        if self._was_away():
            self._doubt()
        notes, self._notes = self._notes, []
        acting = {fleet.name: fleet for fleet in fleets if fleet.policy.act}
        self._of = {name: self._of.get(name) or Lease(self._name, self._run) for name in acting}
        self._turns = {
            key: self._turns.get(key) or asyncio.Semaphore(AT_ONCE)
            for key in {id(fleet.provider) for fleet in acting.values()}
        }
        # A write that hangs must not keep the leases of other fleets from being renewed.
        writing = Counter(id(acting[name].provider) for name in self._writing if name in acting)
        for name, fleet in acting.items():
            lease, before = self._of[name], self._of[name].held_by
            listing = listings[id(fleet.provider)]
            if not fleet.listing_error:
                rows = rows_by_fleet(id(fleet.provider)).get(name, ())
                lease.see(rows, listing.requested_at_s, now_s)
            if lease.held_by != before:
                notes.append(_changed(name, before, lease.held_by))
            _hold(fleet, lease, now_s)
            may_wait_s = 0.0 if writing[id(fleet.provider)] < AT_ONCE else LATE_S
            if name not in self._writing and lease.due(now_s, may_wait_s):
                writing[id(fleet.provider)] += 1
                self._writing[name] = asyncio.create_task(
                    self._write_in_turn(fleet, lease, self._turns[id(fleet.provider)])
                )
        return notes

    def set_ahead_by(self, by_s: float) -> None:
        """Tell every lease that the clock was set ahead by `by_s` seconds."""
        for lease in self._of.values():
            lease.set_ahead_by(by_s)
        if by_s > AWAY_S:
            # The machine may have slept, which its monotonic clock does not show.
            self._doubt()

    def _was_away(self) -> bool:
        """Return whether this process did not run for so long that another daemon may have taken over."""
        now_s, before_s, usual_s = self._clock.monotonic(), self._followed_s, self._gap_s
        self._gap_s = 0.0 if before_s is None else now_s - before_s
        self._followed_s = now_s
        return self._gap_s > max(AWAY_S, 2.0 * usual_s)

    def _doubt(self) -> None:
        for lease in self._of.values():
            lease.doubt()

    async def finish(self) -> None:
        """Cancel the writes in flight: the tags written before stay valid for a while."""
        tasks = [*self._writing.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)

    async def _write_in_turn(self, fleet: Fleet, lease: Lease, turns: asyncio.Semaphore) -> None:
        try:
            async with turns:
                # Meanwhile another daemon may have been seen to act on the fleet.
                if vm_ids := lease.due(self._clock.now()):
                    await self._write(fleet, lease, vm_ids)
        finally:
            self._writing.pop(fleet.name, None)

    async def _write(self, fleet: Fleet, lease: Lease, vm_ids: Sequence[str]) -> None:
        tags = {LEASE_TAG: str(lease.mark(self._clock.now()))}
        try:
            trouble = _trouble(await within(lambda: fleet.provider.tag(vm_ids, tags), WRITE_WITHIN_S))
        except TimeoutError:
            trouble = f"the call had no answer within {WRITE_WITHIN_S:g} s"
        except AutoscalerError as error:
            trouble = f"the call could not be made ({error})"
        except Exception as error:  # noqa: BLE001  a lease that cannot be written holds no fleet
            trouble = f"the call failed unexpectedly; please report ({type(error).__name__}: {error})"
        lease.wrote(self._clock.now(), done=not trouble)
        if not trouble:
            self._refused.discard(fleet.name)
        elif fleet.name not in self._refused:
            self._refused.add(fleet.name)
            text = f"its VMs could not be tagged as ours, so another daemon may act on them too: {trouble}"
            self._notes.append(Note("lease_not_written", fleet.name, text))


_WORDS = {
    OutcomeKind.DENIED: "we may not write their tags; allow ec2:CreateTags on them, or set AUTOSCALER_LEASE=false",
    OutcomeKind.THROTTLED: "the account's API budget had no room for the call",
    OutcomeKind.REFUSED: "the provider refuses these tags",
    OutcomeKind.UNKNOWN: "it is not known whether the call was carried out",
}


def _trouble(outcomes: Iterable[Outcome]) -> str:
    """Return why not all VMs carry the tag, in our words and then the provider's; empty if they do."""
    bad = [outcome for outcome in outcomes if outcome.kind is not OutcomeKind.ACCEPTED]
    if not bad:
        return ""
    # A denial comes first, because only a person can repair it.
    told = next((outcome for outcome in bad if outcome.kind is OutcomeKind.DENIED), bad[0])
    words = _WORDS.get(told.kind, "the provider did not write their tags")
    detail = f"{told.code} {told.message}".strip()
    return f"{words} ({detail})" if detail else words


def _hold(fleet: Fleet, lease: Lease, now_s: float) -> None:
    """Hold a fleet while another daemon may act on it."""
    fleet.leased_to = lease.held_by
    fleet.inventory.acted_on_elsewhere = bool(lease.held_by)
    if not lease.may_act(now_s):
        fleet.held_until_s = math.inf
    elif fleet.held_until_s == math.inf:
        fleet.held_until_s = -math.inf


def _changed(fleet: str, before: str, now: str) -> Note:
    if now:
        text = f"the daemon {now} acts on it: nothing is done here until that one has been silent for {VALID_S:g} s"
        return Note("lease_of_another", fleet, text)
    return Note(
        "lease_free", fleet, f"the daemon {before} has not renewed its lease: the fleet is taken over"
    )
