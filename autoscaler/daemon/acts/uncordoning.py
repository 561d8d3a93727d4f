"""Puts cordoned VMs back into the balancer when the daemon stops acting on their fleet.

Why: if a fleet moves to shadow, or loses its policy or its balancer, it should be left whole. VMs that run without
getting work would cost money to no purpose, and would be missing when demand returns.

Draining VMs are put back, and so are exercised VMs that passed. VMs that are still being exercised, or made for the warm
pool, may not be fit to serve, or may have a hook running: they are only named.

Rules of this file: as for any drain, the journal has the intent before the balancer is called, through the adapter that took
the VMs out. VMs that cannot be put back are named, so that a person can do it.
"""

from __future__ import annotations

from collections.abc import Sequence

from autoscaler.daemon.fleets import Fleet
from autoscaler.daemon.loop import Daemon
from autoscaler.daemon.vms.inventory import Phase
from autoscaler.daemon.warm.warm_pool import WarmPool
from autoscaler.ports import ActionIntent, Note, Outcome, OutcomeKind, Settled, Verb

_SHADOW, _REMOVED, _UNBALANCED = (
    "the fleet is in shadow now",
    "the fleet's policy is gone",
    "the fleet's policy names no load balancer any more",
)


async def give_back(daemon: Daemon, before: Sequence[Fleet]) -> list[str]:
    """Put back the VMs of fleets that are no longer drained or acted on.

    Args:
        daemon: The daemon, with the fleets as they are now.
        before: The fleets as they were, with adapters that are not closed yet.

    Returns:
        What was put back, in sentences for people.
    """
    left = [(fleet, why) for fleet in before if (why := _why(fleet, daemon.fleets.by_name.get(fleet.name)))]
    pools = daemon.warm_pools.left
    draining = any(fleet.drains is not None and fleet.drains.open for fleet, _ in left)
    if draining or any(fleet.name in pools and pools[fleet.name].preparing for fleet, _ in left):
        # A cordon still in flight would take effect after the VM is put back.
        await daemon.chores.wait()
    told = []
    for fleet, why in left:
        well = await _prepared(daemon, fleet, pools.get(fleet.name), why)
        if fleet.drains is None:
            continue
        fleet.drains.stop_draining(fleet.inventory)
        if daemon.last_record is not None and (ids := tuple(sorted({*fleet.drains.let_go_of, *well}))):
            told.append(await _put_back(daemon, fleet, ids, why))
    return [text for text in told if text]


async def _prepared(daemon: Daemon, fleet: Fleet, pool: WarmPool | None, why: str) -> list[str]:
    """Return the exercised VMs that passed; report the other VMs that run for the warm pool."""
    vms = fleet.inventory.vms
    well, rest = list[str](), list[str]()
    for vm_id, each in sorted(pool.preparing.items()) if pool is not None else ():
        if vm_id not in vms or vms[vm_id].phase is not Phase.PREPARING:
            continue
        may_serve = each.trying and each.ready and not each.failed
        (well if may_serve and fleet.drains is not None else rest).append(vm_id)
    if rest:
        out = "" if fleet.drains is None else " out of the load balancer"
        text = f"{', '.join(rest)}: made for the warm pool or tried, and {why}; running on{out}, stop or delete them by hand"
        await daemon.recorder.note([Note("exercise_left", fleet.name, text)], daemon.clock.now())
    return well


def _why(before: Fleet, after: Fleet | None) -> str:
    """Return why a fleet is no longer acted on or drained; empty if it is, or never was by this daemon."""
    if not before.policy.act or before.leased_to:
        return ""
    if after is None:
        return _REMOVED
    if not after.policy.act:
        return _SHADOW
    return _UNBALANCED if before.drains is not None and after.drains is None else ""


async def _put_back(daemon: Daemon, fleet: Fleet, ids: tuple[str, ...], why: str) -> str:
    drains, recorder, clock = fleet.drains, daemon.recorder, daemon.clock
    assert drains is not None
    intent = ActionIntent(fleet.name, Verb.RETURN, ids, len(ids), "", f"put back, since {why}")
    assert daemon.last_record is not None
    recorded = await recorder.more(daemon.last_record.tick, clock.now(), [intent])
    outcomes: Sequence[Outcome] = ()
    if recorded:
        outcomes = await drains.carry_out(fleet.inventory, intent, clock.now(), daemon.settings.act_timeout_s)
        await recorder.outcomes(Settled(recorded[0], clock.now(), outcomes))
    back = [outcome.vm_id for outcome in outcomes if outcome.kind is OutcomeKind.ACCEPTED]
    out = [vm_id for vm_id in ids if vm_id not in back]
    if out:
        said = next((o.message for o in outcomes if o.vm_id in out), "the journal cannot be written")
        text = (
            f"{', '.join(out)} were out of the load balancer, and {why}; not put back, do it by hand: {said}"
        )
        await recorder.note([Note("return_failed", fleet.name, text)], clock.now())
    return f"put {', '.join(back)} of {fleet.name} back into the load balancer" if back else ""
