"""Actions of an earlier run without an outcome, and those that a listing may not show yet.

Why: listings lag. Right after a restart a VM that was just started still looks stopped, and one that was just provisioned
is not listed; a daemon that trusted such a listing would start or make it again.

Rules of this file: no call is repeated. While a listing may be older than a call in the journal, the call counts as in
flight; then the first complete listing settles it.
"""

from __future__ import annotations

from collections.abc import Mapping

from autoscaler.daemon.acts.intent_executor import new_vm
from autoscaler.daemon.fleets import Fleet
from autoscaler.daemon.recording import Recorder
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.daemon.vms.inventory import FleetInventory, Note
from autoscaler.daemon.vms.tracked import Order, Phase, TrackedVm
from autoscaler.ports import ActionRecord, Listing, OutcomeKind, Settled, Verb


class OpenActions:
    """Settles the actions that an earlier run left open.

    Args:
        recording: The journal.
        telemetry: The log.
        began_at_s: When this run began; the calls of the earlier run were made before.
    """

    def __init__(self, recording: Recorder, telemetry: Telemetry, began_at_s: float) -> None:
        self._recording = recording
        self._telemetry = telemetry
        self._began_at_s = began_at_s
        self._actions: dict[int, ActionRecord] = {}
        self._recalled: set[tuple[int, str]] = set()

    async def load(self, longest_lag_s: float) -> None:
        """Read the open and the recent actions from the journal.

        Args:
            longest_lag_s: The longest time that a listing of any fleet may lag.

        Raises:
            JournalError: The journal cannot be read.
        """
        found = await self._recording.recent_actions(self._began_at_s - longest_lag_s)
        self._actions = {action.id: action for action in found}

    def __bool__(self) -> bool:
        """Return whether any action still waits for a listing."""
        return bool(self._actions)

    def settle(self, fleets: Mapping[str, Fleet], listings: Mapping[int, Listing], now_s: float) -> None:
        """After the listings were applied, hold actions that they may not show yet, and close the others."""
        for action in list(self._actions.values()):
            fleet = fleets.get(action.intent.fleet)
            if fleet is not None:
                listing = listings[id(fleet.provider)]
                if self._holds(action, fleet, listing, now_s):
                    continue
                if fleet.listing_error:
                    continue
            del self._actions[action.id]
            if action.settled_at_s is None:
                self._recording.outcomes_after_starts(self._closed(action, fleet, now_s))

    def _holds(self, action: ActionRecord, fleet: Fleet, listing: Listing, now_s: float) -> bool:
        if action.intent.simulated:
            # No listing will ever show a simulated action.
            return False
        patience = fleet.inventory.patience
        # When the call of an open action was made is not known, but it was within the lifetime of the earlier run.
        latest_s = min(max(self._began_at_s, action.at_s), action.at_s + patience.start_s)
        answered_s = latest_s if action.settled_at_s is None else action.settled_at_s
        until_s = answered_s + patience.consistency_s
        # A clock that was set back must not hold a VM for as long as it was set back.
        if listing.requested_at_s >= until_s or action.at_s > now_s:
            return False
        if action.intent.verb not in (Verb.START, Verb.STOP, Verb.STORE, Verb.PROVISION):
            # Other chores: balancers and tags show what became of them (`drain`, `warm_pool`).
            return False
        if action.intent.verb is Verb.PROVISION:
            self._expect(action, fleet, until_s)
        else:
            self._hold(action, fleet.inventory, answered_s)
        return True

    def _hold(self, action: ActionRecord, inventory: FleetInventory, answered_s: float) -> None:
        unknown = (
            set(action.intent.vm_ids) if action.settled_at_s is None else _of(action, OutcomeKind.UNKNOWN)
        )
        # A VM that returns to the warm pool after a trial is stopped by us, not by someone else.
        verb = Verb.STOP if action.intent.verb is Verb.STORE else action.intent.verb
        for vm_id in sorted(unknown | _of(action, OutcomeKind.ACCEPTED)):
            if vm_id in inventory.vms and self._first(action, vm_id):
                inventory.recall(
                    verb,
                    (vm_id,),
                    action.id,
                    action.at_s,
                    answered_at_s=answered_s,
                    unknown=vm_id in unknown,
                )

    def _expect(self, action: ActionRecord, fleet: Fleet, until_s: float) -> None:
        inventory, token = fleet.inventory, action.intent.token
        for vm_id in sorted(_of(action, OutcomeKind.ACCEPTED)):
            if vm_id and self._first(action, vm_id) and vm_id not in inventory.vms:
                new = TrackedVm(new_vm(fleet, vm_id, action.at_s), Phase.PROVISIONING, action.at_s, new=True)
                new.order = Order(Verb.PROVISION, action.at_s, action.id, answered_at_s=until_s)
                inventory.await_vm(new)
        # Only a complete listing shows which of the VMs exist already.
        in_doubt = action.settled_at_s is None or _of(action, OutcomeKind.UNKNOWN)
        if in_doubt and not fleet.listing_error and self._first(action, ""):
            inventory.expect(action.id, action.intent.count, token, action.at_s, until_s)

    def _first(self, action: ActionRecord, vm_id: str) -> bool:
        """Return whether this VM of the action is met for the first time; later it may have new orders."""
        known = (action.id, vm_id) in self._recalled
        self._recalled.add((action.id, vm_id))
        return not known

    def _closed(self, action: ActionRecord, fleet: Fleet | None, now_s: float) -> Settled:
        intent = action.intent
        text = f"{intent.verb} of {intent.count}: {_found(fleet, action)}"
        self._telemetry.log.warning("action_settled", fleet=intent.fleet, text=text)
        return Settled(action.id, now_s, (), [Note("action_settled", intent.fleet, text)])


def _of(action: ActionRecord, kind: OutcomeKind) -> set[str]:
    return {outcome.vm_id for outcome in action.outcomes if outcome.kind is kind}


def _found(fleet: Fleet | None, action: ActionRecord) -> str:
    if fleet is None:
        return "the fleet is no longer in the policies"
    vms = fleet.inventory.vms
    if action.intent.verb is Verb.PROVISION:
        ids = fleet.inventory.made_by(action.intent.token)
    else:
        ids = [vm_id for vm_id in action.intent.vm_ids if vm_id in vms]
    return ", ".join(f"{vm_id} is {vms[vm_id].vm.state}" for vm_id in ids) or "none of its VMs is listed"
