"""Draining VMs of all fleets in a tick: checks them, chooses the next step, and restores them after a restart.

Rules of this file: balancers are queried concurrently, each within its time limit. Every decision waits for the slowest answer, so a
balancer that uses up its time rests for a while (`slow_answers`), and VMs leave later. A fleet without a balancer is planned as
if this module did not exist, except for `guards.stop_share`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from autoscaler.daemon.acts.drain import Drains, drained
from autoscaler.daemon.acts.planning import WantedVms
from autoscaler.daemon.fleets import Fleet
from autoscaler.daemon.recording import Recorder
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.daemon.vms.inventory import FleetInventory, Phase
from autoscaler.ports import ActionIntent, ActionRecord, Clock, Note, ReadinessProbe

_LEAVING = frozenset({Phase.DRAINING, Phase.STOPPING})
_SLACK_S = 600.0
"""Most seconds by which an action can be older than the drain that it began."""
NAMED_S = 86400.0
"""How far back from startup, in seconds, VMs are looked up that were draining or being tried, to report those of fleets
that are no longer drained or acted on.
"""


async def recall(fleets: Sequence[Fleet], recording: Recorder, began_at_s: float) -> None:
    """Read from the journal which VMs an earlier run was draining, and report those that this run does not drain.

    Raises:
        JournalError: The journal cannot be read.
    """
    draining = {f.name: f.drains for f in fleets if f.drains is not None}
    longest_s = max((drains.section.timeout_s for drains in draining.values()), default=0.0) + _SLACK_S
    actions: dict[str, list[ActionRecord]] = {}
    for action in await recording.recent_actions(began_at_s - max(longest_s, NAMED_S)):
        actions.setdefault(action.intent.fleet, []).append(action)
    known = {fleet.name for fleet in fleets}
    notes = []
    for name, of in sorted(actions.items()):
        if name in draining:
            since_s = began_at_s - longest_s
            draining[name].recall(a for a in of if a.settled_at_s is None or a.settled_at_s >= since_s)
        elif left := sorted(drained(of)):
            why = "its policy names no load balancer" if name in known else "the fleet has no policy"
            was = f"{', '.join(left)}: draining when the daemon ended, and {why} any more"
            text = f"{was}; put those that should serve back into the load balancer by hand"
            notes.append(Note("drain_left", name, text))
    await recording.note(notes, began_at_s)


def probe_of(fleet: Fleet) -> ReadinessProbe:
    """Return the probe that finds VMs ready.

    If another daemon may act on the fleet, the probe changes nothing on VMs or in the balancer.
    """
    if is_ours(fleet):
        return fleet.probe
    probe = fleet.own_probe
    if fleet.arrivals is not None and not fleet.leased_to:
        # It is not known yet whose fleet this is: a VM that this daemon's last run started must not serve without the
        # command.
        probe = fleet.arrivals.after(probe)
    return probe if fleet.drains is None else fleet.drains.watching(probe)


def is_ours(fleet: Fleet) -> bool:
    """Return whether it is known that no other daemon acts on the fleet."""
    return fleet.held_until_s != math.inf


async def follow(fleets: Sequence[Fleet], clock: Clock, timeout_s: float, telemetry: Telemetry) -> list[Note]:
    """Ask all balancers about the draining VMs, and return what deserves an event.

    Args:
        fleets: All fleets.
        clock: The source of time.
        timeout_s: Longest wait for one request, in seconds of the event loop.
        telemetry: Where failing and recovered balancers are logged.
    """
    notes: list[Note] = []
    asked = []
    for fleet in fleets:
        if fleet.drains is None:
            continue
        silent = fleet.drains.silent and f"its load balancer does not answer: {fleet.drains.silent}"
        fleet.inventory.hear(silent, clock.now())
        if not is_ours(fleet):
            fleet.drains.watch(fleet.leased_to)
            continue
        notes += fleet.drains.resume(fleet.inventory, clock.now())
        due = clock.now() >= fleet.held_until_s and fleet.drains.members.is_due(clock.now())
        if (due or fleet.drains.leaving) and not fleet.drains.members.slow.rests():
            asked.append(_asked(fleet.drains, fleet.inventory, clock, timeout_s, due=due))
    for found in await asyncio.gather(*asked) if asked else ():
        notes += found
    notes += _told(fleets, clock.now(), telemetry)
    return notes


def _told(fleets: Sequence[Fleet], now_s: float, telemetry: Telemetry) -> list[Note]:
    """Return news about what balancers have; log balancers that have begun or ceased to fail."""
    notes: list[Note] = []
    for fleet in fleets:
        if fleet.drains is None:
            continue
        notes += fleet.drains.members.take_news()
        trouble = fleet.drains.trouble(now_s)
        if trouble != fleet.balancer_error:
            fleet.balancer_error = trouble
            if fleet.balancer_error:
                telemetry.log.warning("balancer_failed", fleet=fleet.name, text=fleet.balancer_error)
            else:
                text = "the balancer does what it is asked again"
                telemetry.log.info("balancer_recovered", fleet=fleet.name, text=text)
    return notes


async def _asked(
    drains: Drains, inventory: FleetInventory, clock: Clock, timeout_s: float, *, due: bool
) -> list[Note]:
    with drains.members.slow.timed(timeout_s) as slow:
        if due:
            await drains.admit_in_service(inventory, clock.now(), timeout_s)
        if drains.leaving and not slow.is_over():
            return await drains.look(inventory, clock.now(), timeout_s)
    return []


def choose(
    fleet: Fleet,
    wanted: WantedVms,
    now_s: float,
    planned: Callable[[WantedVms], list[ActionIntent]],
    *,
    may_stop: bool,
) -> list[ActionIntent]:
    """Return what is done for a fleet: draining VMs return before any VM is started, and VMs drain before they stop.

    Args:
        fleet: The fleet.
        wanted: The numbers of the decision.
        now_s: The current time.
        planned: Chooses VMs for such numbers.
        may_stop: Whether operators allow stops.
    """
    inventory, drains = fleet.inventory, fleet.drains
    stop = at_most(fleet.policy.guards.stop_share, inventory, wanted.stop)
    if drains is None:
        return planned(wanted if stop == wanted.stop else replace(wanted, stop=stop))
    if drains.members.holds or drains.refusals.holds_all(now_s):
        stop, wanted = 0, replace(wanted, replaced=())
    back = drains.returns(inventory, wanted.start, now_s, wanted.sentence)
    taken = frozenset(vm_id for intent in back for vm_id in intent.vm_ids)
    chosen = planned(replace(wanted, start=wanted.start - len(taken), stop=stop))
    ends = drains.ends(inventory, now_s, taken, may_stop=may_stop)
    return [*back, *drains.replace_stops(inventory, chosen), *ends]


def at_most(share: float, inventory: FleetInventory, count: int) -> int:
    """Return how many of `count` VMs may leave now: at most a share of those in service or leaving, but at least one."""
    if share >= 1.0 or not count:
        return count
    leaving = sum(t.phase in _LEAVING for t in inventory.vms.values())
    serving = len(inventory.in_phase(Phase.IN_SERVICE))
    most = max(int(share * (serving + leaving)), 1)
    return max(min(count, most - leaving), 0)
