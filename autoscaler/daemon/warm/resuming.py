"""Continues exercises of an earlier run: these VMs do not serve until they have passed.

Why: nothing on a VM shows that it runs for an exercise. A later run would take it for one in service, and give it work while a
hook patches it, or after it failed.

Rules of this file: the journal says which VMs were exercised. A VM's launch time shows whether it still runs from that
start, and its tag `autoscaler:exercised-at` whether it has passed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from autoscaler.daemon.acts.fleet_drains import NAMED_S
from autoscaler.daemon.fleets import Fleet
from autoscaler.daemon.recording import Recorder
from autoscaler.daemon.vms.pool_tags import EXERCISED_AT_TAG, moment_of
from autoscaler.daemon.vms.tracked import ON_THE_WAY, Phase, TrackedVm
from autoscaler.daemon.warm.refill import preparing_timeout_s
from autoscaler.daemon.warm.warm_pool import WarmPool
from autoscaler.ports import ActionRecord, Note, Verb, VmState

_SLACK_S = 600.0
"""Time that everything around a trial takes, in seconds."""


class InterruptedTrials:
    """Trials of an earlier run that have not been resumed yet."""

    def __init__(self) -> None:
        self._at_s: dict[str, dict[str, float]] = {}
        """By fleet and VM, when its trial was ordered."""

    async def load(self, fleets: Sequence[Fleet], recording: Recorder, began_at_s: float) -> None:
        """Read from the journal which VMs an earlier run was trying, and report those of fleets that are not acted on.

        Raises:
            JournalError: The journal cannot be read.
        """
        longest_s = max((_longest_s(fleet) for fleet in fleets), default=0.0)
        found = await recording.recent_actions(began_at_s - max(longest_s, NAMED_S))
        self.recall(found)
        acting = {fleet.name for fleet in fleets if fleet.policy.act}
        known, notes = {fleet.name for fleet in fleets}, []
        for name in sorted(self._at_s.keys() - acting):
            why = "the fleet is in shadow" if name in known else "the fleet has no policy any more"
            was = f"{', '.join(sorted(self._at_s[name]))}: being tried when the daemon ended, and {why}"
            text = f"{was}; out of its load balancer, if it has one: stop by hand those that still run"
            notes.append(Note("exercise_left", name, text))
        since_s = began_at_s - longest_s
        recent = [a for a in found if a.settled_at_s is None or a.settled_at_s >= since_s]
        self._at_s = {}
        self.recall(action for action in recent if action.intent.fleet in acting)
        await recording.note(notes, began_at_s)

    def recall(self, actions: Iterable[ActionRecord]) -> None:
        """Add the trials among these actions, oldest first, that no other action on the VM followed."""
        for action in actions:
            intent, of = action.intent, self._at_s.setdefault(action.intent.fleet, {})
            if intent.simulated:
                continue
            refused = {o.vm_id for o in action.outcomes if not o.kind.perhaps_done}
            for vm_id in intent.vm_ids:
                if intent.verb is not Verb.EXERCISE:
                    of.pop(vm_id, None)
                elif vm_id not in refused:
                    of[vm_id] = action.at_s
        self._at_s = {fleet: of for fleet, of in self._at_s.items() if of}

    def go_on(self, fleets: Iterable[Fleet], warm_pools: Mapping[str, WarmPool], now_s: float) -> None:
        """Keep the present trials across a clock that was set back, before everything known of VMs is forgotten."""
        for fleet in fleets:
            vms = fleet.inventory.vms
            tried = [
                vms[i] for i, each in warm_pools[fleet.name].preparing.items() if each.trying and i in vms
            ]
            begun_s = {t.vm.id: t.vm.launched_at_s if t.vm.state is VmState.RUNNING else now_s for t in tried}
            if begun_s:
                self._at_s.setdefault(fleet.name, {}).update(begun_s)

    def take_up(self, fleet: Fleet, now_s: float) -> list[Note]:
        """After a listing and before any probe, resume the trials of VMs that still run for one."""
        of, notes = self._at_s.get(fleet.name), []
        if not of or not fleet.inventory.listed or fleet.leased_to:
            # The VMs of a fleet on which another daemon acts are its concern.
            return []
        for vm_id, at_s in list(of.items()):
            t = fleet.inventory.vms.get(vm_id)
            if t is None or t.phase is not Phase.RUNNING:
                # Its start may not be listed yet.
                coming = t is None or t.phase in (*ON_THE_WAY, Phase.STOPPED)
                if coming and 0.0 <= now_s - at_s < fleet.inventory.patience.written_off_s(new=False):
                    continue
            elif _is_on_trial(t, at_s):
                t.move(Phase.PREPARING, now_s)
                fleet.inventory.touch()
                text = f"{vm_id} was being exercised before, its exercise continues"
                notes.append(Note("exercise_resumed", fleet.name, text))
            del of[vm_id]
        return notes


def _longest_s(fleet: Fleet) -> float:
    return preparing_timeout_s(fleet) + (0.0 if fleet.hook is None else fleet.hook.timeout_s) + _SLACK_S


def _is_on_trial(t: TrackedVm, at_s: float) -> bool:
    well_s = moment_of(t.vm, EXERCISED_AT_TAG) or -math.inf
    return t.order is None and t.vm.launched_at_s >= math.floor(at_s) and well_s < math.floor(at_s)
