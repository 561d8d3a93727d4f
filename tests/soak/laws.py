"""Laws: what no call of a daemon may do and no tick may decide, given the true state of the world, not the daemon's belief.

Rules of this file: a law is checked where the call arrives, but not while the daemon cannot yet know the true state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

from autoscaler.cloud.vms import State
from autoscaler.daemon.vms.pool_tags import POOL_TAG, PREPARING, QUARANTINED_TAG
from autoscaler.daemon.vms.tracked import PROTECTED_TAG, Phase
from autoscaler.daemon.warm.refill import preparing_timeout_s
from autoscaler.ports import ActionIntent, Verb
from tests.soak.households import DRAIN_S, HOOK_S

if TYPE_CHECKING:
    from tests.soak.lives import House

HOUR_S = 3600.0
KNOWN_AFTER_S = 30.0
"""A complete listing shows everything that was done this many seconds before it, even if it lags."""


class Laws:
    """Checks calls and ticks against the true state of the world, and records violations."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._tokens: dict[str, int] = {}
        self._out_since: dict[str, float] = {}

    def starting(self, vm_ids) -> None:
        """Check a start: hands off VMs that a person has stopped, one recorded action per VM, and no more VMs than may be on."""
        self._count("start", vm_ids)
        for fleet, of in self._by_fleet(vm_ids).items():
            self._hands_off(fleet, "stop", of)
            self.recorded((Verb.START, Verb.EXERCISE), fleet, _vms, of)
            tried = {i for i in of if self._phase(fleet, i) is Phase.PREPARING}
            self._most(fleet, len(set(of) - tried), "starts")

    def provisioning(self, spec, count, token) -> None:
        """Check a provision: no more VMs than may exist or be on, one recorded action, and always the same count for a token."""
        self._count("provision", range(count))
        if self._tokens.setdefault(token, count) != count:
            self._wrong(f"token {token} asks for {count} after {self._tokens[token]}")
        fleet = self._house.daemon.fleets.by_name[spec.fleet]
        self.recorded((Verb.PROVISION, Verb.REFILL), spec.fleet, lambda intent: (intent.token,), [token])
        gone = State.SHUTTING_DOWN, State.TERMINATED
        exist = sum(v.state not in gone for v in self._house.views(spec.fleet))
        if exist + count > fleet.policy.max_provisioned:
            self._wrong(f"{spec.fleet}: {count} made beside {exist} of {fleet.policy.max_provisioned}")
        if spec.tags.get(POOL_TAG) != PREPARING:
            self._most(spec.fleet, count, "makes")

    def stopping(self, vm_ids) -> None:
        """Check a stop: no VM that is protected, gets work, or has work left within its drain time."""
        self._count("stop", vm_ids)
        for fleet, of in self._by_fleet(vm_ids).items():
            self._hands_off(fleet, "start", of)
            self.recorded((Verb.STOP, Verb.STORE), fleet, _vms, of)
            policy, front = self._house.daemon.fleets.by_name[fleet].policy, self._house.fronts.get(fleet)
            for vm_id in of:
                if vm_id in self._house.protected_known():
                    self._wrong(f"{fleet}: {vm_id} is stopped and protected")
                if front is None or policy.balancer is None or vm_id not in self._house.ready(fleet):
                    continue
                if front.works(vm_id):
                    self._wrong(f"{fleet}: {vm_id} is stopped and gets work ({self._phase(fleet, vm_id)})")
                elif front.busy(vm_id):
                    waited_s = self._house.true.now() - front.out_s[vm_id][0]
                    over = policy.drain.on_timeout == "stop" and waited_s >= policy.drain.timeout_s - 1.0
                    if not over:
                        self._wrong(
                            f"{fleet}: {vm_id} is stopped with work {waited_s:.0f} s after its cordon"
                        )

    def _hands_off(self, name: str, done: str, vm_ids) -> None:
        """Check that a recent change by a person is not undone, once a listing must have shown it."""
        fleet, house = self._house.daemon.fleets.by_name[name], self._house
        hands_off_s, now_s = fleet.policy.guards.hands_off_s, house.true.now()
        for vm_id in vm_ids:
            at_s = house.hands_s.get((done, vm_id), -np.inf)
            if at_s < house.set_s + KNOWN_AFTER_S:
                # After a restart, or with a clock that was just set, the daemon has not seen the VM before the change.
                continue
            if at_s < house.listed_s - KNOWN_AFTER_S and now_s - at_s < hands_off_s:
                self._wrong(f"{name}: {vm_id} is undone, {now_s - at_s:.0f} s after a person's {done}")

    def terminating(self, vm_ids) -> None:
        """Check a deletion: no VM that is protected or in service."""
        self._count("terminate", vm_ids)
        for fleet, of in self._by_fleet(vm_ids).items():
            self.recorded((Verb.TERMINATE,), fleet, _vms, of)
            for vm_id in of:
                if vm_id in self._house.protected_known():
                    self._wrong(f"{fleet}: {vm_id} is deleted and protected")
                if self._phase(fleet, vm_id) in (Phase.IN_SERVICE, Phase.DRAINING):
                    self._wrong(f"{fleet}: {vm_id} is deleted and serves")

    def ticked(self, record) -> None:
        """Check a tick: its decisions, how long each VM has been in its phase, and which VMs get no work."""
        # The clock may have been set since the tick: take the earlier time, so that no VM appears to wait too long.
        house, now_s = self._house, min(record.at_s, self._house.clock.now())
        house.lived.ticks += 1
        for row in record.fleets:
            fleet = house.daemon.fleets.by_name[row.fleet]
            policy = fleet.policy
            if row.stop and row.in_service - row.stop < policy.bounds.minimum:
                self._wrong(f"{row.fleet}: {row.stop} of {row.in_service} leave")
            if not policy.act:
                continue
            timeout_s = preparing_timeout_s(fleet) + HOOK_S + 400.0
            patience = fleet.inventory.patience
            for t in fleet.inventory.vms.values():
                limit_s = {
                    Phase.STARTING: patience.written_off_s(new=t.new),
                    Phase.PROVISIONING: patience.written_off_s(new=t.new),
                    Phase.RUNNING: patience.never_ready_s(new=t.new) + 2.0 * HOUR_S,
                    Phase.STOPPING: patience.stuck_s,
                    Phase.PREPARING: timeout_s + 2.0 * HOUR_S,
                    Phase.DRAINING: DRAIN_S + 2.0 * HOUR_S,
                }.get(t.phase, np.inf)
                kept = PROTECTED_TAG in t.vm.tags or t.disowned
                if now_s - t.phase_since_s > limit_s + 400.0 and not kept:
                    self._wrong(f"{row.fleet}: {t.vm.id} is {t.phase} for {now_s - t.phase_since_s:.0f} s")
            self._cordoned(fleet, timeout_s + 2.0 * HOUR_S, house.true.now())

    def _cordoned(self, fleet, longest_s: float, now_s: float) -> None:
        """Check that no VM is ready but out of the balancer for ever."""
        front = self._house.fronts.get(fleet.name)
        if front is None:
            return
        for vm_id in self._house.ready(fleet.name):
            kept = {PROTECTED_TAG, QUARANTINED_TAG} & self._house.view(vm_id).tags.keys()
            if front.works(vm_id) or kept:
                self._out_since.pop(vm_id, None)
            elif now_s - self._out_since.setdefault(vm_id, now_s) > longest_s:
                self._wrong(f"{fleet.name}: {vm_id} runs and gets no work ({self._phase(fleet.name, vm_id)})")
        for vm_id in self._out_since.keys() - set(self._house.ready()):
            del self._out_since[vm_id]

    def _most(self, name: str, count: int, what: str) -> None:
        """Check that `count` more VMs do not exceed the most that may be in service or coming, known to the daemon or not."""
        fleet = self._house.daemon.fleets.by_name[name]
        on = 0
        for view in self._house.views(name):
            if view.state not in (State.PENDING, State.RUNNING):
                continue
            t = fleet.inventory.vms.get(view.id)
            # VMs for the pool, late ones that are not counted on, and those on their way out do not count.
            on += t is None or t.coming or t.phase is Phase.IN_SERVICE
        most = max(fleet.policy.bounds.maximum, fleet.inventory.wanted or 0)
        if on + count > most + self._house.beside(name):
            self._wrong(f"{name}: {what} {count} beside {on} of {most}")

    def recorded(self, verbs, fleet: str, said: Callable[[ActionIntent], Iterable[str]], wanted) -> None:
        """Check that everything a call changes belongs to exactly one recorded action that is still open."""
        with self._house.journal.reader() as reader:
            open_now = [a.intent for a in reader.open_actions() if a.intent.fleet == fleet]
        of = Counter(each for intent in open_now if intent.verb in verbs for each in said(intent))
        for each in wanted:
            if of[each] != 1:
                self._wrong(f"{fleet}: {verbs[0]} of {each} is of {of[each]} recorded actions")

    def _by_fleet(self, vm_ids) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for vm_id in vm_ids:
            if (view := self._house.view(vm_id)) is not None:
                found.setdefault(view.fleet, []).append(vm_id)
        return found

    def _phase(self, fleet: str, vm_id: str) -> Phase | None:
        t = self._house.daemon.fleets.by_name[fleet].inventory.vms.get(vm_id)
        return None if t is None else t.phase

    def _count(self, what: str, vms) -> None:
        self._house.lived.met[what] += len(vms)

    def _wrong(self, text: str) -> None:
        self._house.lived.wrong.append(f"{self._house.clock.monotonic():.0f}: {text}")


def _vms(intent: ActionIntent) -> tuple[str, ...]:
    return intent.vm_ids
