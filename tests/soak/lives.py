"""Long lives of fleets of all kinds at once, with random troubles, watched from outside.

Real: the shipped policies with every optional feature switched on (`households`), wiring, reloads that move fleets to shadow
and back, restarts after crashes from the journal, operators, people who change VMs themselves. The provider, the balancer
and the source have troubles of their own (`fronts`), and each call is checked by the `laws`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np

from autoscaler.clock import run_virtual
from autoscaler.cloud.billing import Prices
from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.cloud.setup import CloudSetup, FleetSetup
from autoscaler.cloud.vms import State
from autoscaler.config.policy import Policy
from autoscaler.daemon.acts.uncordoning import give_back
from autoscaler.daemon.loop import Daemon, LoopSettings
from autoscaler.daemon.operating.operators import ChangeRequest
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.daemon.vms.tracked import PROTECTED_TAG, Phase
from autoscaler.daemon.warm.pool_words import PoolCommand, PoolCommands
from autoscaler.errors import AutoscalerError, ProviderError
from autoscaler.ports import PAUSABLE
from autoscaler.ports.hooks import HookResult
from autoscaler.store import SqliteJournal
from autoscaler.wiring import Wiring
from tests.daemon.builders import SimulatedHook
from tests.soak.clocks import SetClock
from tests.soak.fronts import KINDS, Front, Provider, Source, Troubles
from tests.soak.households import CHANGES, HOOK_S, TYPES, VMS, policy_of
from tests.soak.laws import Laws
from tests.soak.troubles import bad_days

ORIGIN_S = 1_795_478_400.0  # a midnight
HOUR_S = 3600.0
TICK_S, LAG_S, QUIET_S, ZONES = 10.0, 30.0, HOUR_S, "ab"
FAULTY_H = 4.0
"""Lives shorter than this, in hours, have no faults of the cloud, which need quiet hours before and after."""
FAILURES = frozenset({"tick_failed", "act_failed", "journal_failed", "task_failed", "journal_recovered"})
"""Events that no trouble may cause."""


@dataclass
class Lived:
    """Results of a life.

    Attributes:
        wrong: Every violation of a law, with place and time.
        met: How often each trouble and each kind of call occurred.
        costs: By fleet, the cost of undisturbed runs by the daemon's ledger and by the world's bill.
    """

    wrong: list[str] = field(default_factory=list)
    met: Counter[str] = field(default_factory=Counter)
    costs: dict[str, tuple[float, float]] = field(default_factory=dict)
    ticks: int = 0


class House:
    """The world with its people and troubles, and a daemon that is replaced after each crash."""

    def __init__(self, seed: int, hours: float, *, jumps: bool = False) -> None:
        self.seed, self.hours = seed, hours
        self.lived = Lived()
        self.until_s = hours * HOUR_S - QUIET_S
        """Time after which nothing goes wrong, and no person does anything."""
        self.jumps = jumps
        self.clock = SetClock(ORIGIN_S)
        """Clock of the daemon and its surroundings."""
        self.true = SetClock(ORIGIN_S)
        """Clock of the cloud and the laws."""
        self.rng = np.random.default_rng(seed)
        self.troubles = Troubles(self.rng, self.until_s - 1000.0, KINDS, self.lived.met)
        names = tuple(CHANGES)
        faults = bad_days(seed, hours / 24.0, names, ZONES).faults if hours >= FAULTY_H else ()
        self.world = CloudSetup(
            seed=seed,
            fleets=tuple(FleetSetup(n, VMS, vm_type=TYPES[0], hibernation=n == "batch") for n in names),
            faults=tuple(map(_rare, (f for f in faults if f.end_s <= self.until_s))),
            zones=ZONES,
            prices=Prices(0.1, 0.005),
        ).world(ORIGIN_S)
        self.policies = {name: policy_of(name) for name in names}
        self.fronts = {n: Front(self, n) for n, p in self.policies.items() if p.balancer is not None}
        self.listed_s = -np.inf
        self.protected_s: dict[str, float] = {}
        self.by_hand: set[str] = set()
        self.hands_s: dict[tuple[str, str], float] = {}
        """Time of each change by a person, by kind and VM. Cleared when the daemon can no longer know of it."""
        self.disturbed: set[str] = set()
        self.set_s = -np.inf
        """Time at which the clock was last set, or the daemon began."""
        self.laws = Laws(self)
        self.journal = SqliteJournal(":memory:", inline=True)
        self.provider = Provider(self)
        self.wiring = Wiring(
            self.provider,
            self.clock,
            lambda policy: Source(self, self._demand(policy)),
            lambda policy: self.fronts.get(policy.fleet) if policy.act and policy.balancer else None,
            lambda policy: (
                None
                if policy.freshness.exercise is None
                else SimulatedHook(self.clock, took_s=HOOK_S, answer=self._answer)
            ),
        )
        self.events: Counter[str] = Counter()
        self.daemon: Daemon | None = None

    # ── the truth ──────────────────────────────────────────────────────────────────────────────────────

    def views(self, fleet=None):
        return self.world.views(self.true.now(), fleet)

    def view(self, vm_id):
        return next((view for view in self.views() if view.id == vm_id), None)

    def ready(self, fleet=None) -> tuple[str, ...]:
        return self.world.serving(self.true.now(), fleet)

    def protected_known(self) -> set[str]:
        """VMs that are protected, as a complete listing must have shown."""
        return {vm_id for vm_id, at_s in self.protected_s.items() if at_s < self.listed_s - LAG_S}

    def beside(self, fleet: str) -> int:
        """Number of VMs that people started and that may still be on."""
        return sum(view.id in self.by_hand for view in self.views(fleet))

    def _answer(self, vm):
        del vm
        return HookResult(well=bool(self.rng.random() > 0.1) or None)

    def _demand(self, policy: Policy):
        """Make a demand in work per second: two peaks a day, crowds, and for one fleet nothing at night."""
        rng = np.random.default_rng((self.seed, len(policy.fleet), VMS))
        phase, capacity = rng.uniform(), policy.vm.capacity_per_s
        crowds = [
            (float(s), float(s + rng.uniform(120, 900)), float(rng.uniform(1, 4)))
            for s in rng.uniform(0, self.hours * HOUR_S, max(1, round(2 * self.hours)))
        ]
        least = 0.0 if policy.bounds.minimum == 0 else 1.0

        def at(second: float) -> float:
            level = least + 1.5 * (1 + np.sin(2 * np.pi * (second / (8 * HOUR_S) + phase)))
            level += sum(more for begin, end, more in crowds if begin <= second < end)
            return float(capacity * max(level - (2.0 if least == 0.0 else 0.0), 0.0))

        return at

    # ── what happens ───────────────────────────────────────────────────────────────────────────────────

    async def live(self) -> Lived:
        """Live from beginning to end, and return the results."""
        beside = (self._people(), self._operators(), self._reloads(), self._set_clock())
        mine = [asyncio.create_task(part) for part in beside]
        crashes = sorted(self.rng.uniform(1800.0, self.until_s, max(1, round(self.hours / 6))))
        for end_s in (*crashes, self.hours * HOUR_S):
            await self._life(end_s, mine)
        for task in mine:
            task.cancel()
        await asyncio.gather(*mine, return_exceptions=True)
        self._compare()
        await self.journal.close()
        return self.lived

    def begin(self) -> Daemon:
        """Begin a daemon from what its predecessors left in the journal."""
        self.set_s = self.true.now()
        setups = self.wiring.wire(tuple(self.policies.values())).setups
        settings = LoopSettings(TICK_S)
        self.daemon = Daemon(
            self.clock, setups, self.journal, Telemetry(log=self), settings, self.laws.ticked
        )
        return self.daemon

    async def _life(self, end_s: float, mine) -> None:
        """Run the daemon once, and end it abruptly."""
        began = {name: self.world.bill(self.true.now(), name).money for name in self.policies}
        daemon = self.begin()
        known = {name: fleet.meter for name, fleet in daemon.fleets.by_name.items()}
        running = asyncio.create_task(daemon.run())
        await self.clock.sleep_until(end_s)
        ours = {asyncio.current_task(), *mine}
        left = [running, *(task for task in asyncio.all_tasks() if task not in {*ours, running})]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for name, meter in known.items():
            fleet = daemon.fleets.by_name.get(name)
            if fleet is None or fleet.meter is not meter or name in self.disturbed:
                continue
            spent = self.world.bill(self.true.now(), name).money - began[name]
            before = self.lived.costs.get(name, (0.0, 0.0))
            self.lived.costs[name] = (before[0] + meter.total.money, before[1] + spent)
        self.disturbed.clear()
        self.hands_s.clear()

    async def _each(self, per_h: float):
        """Yield fleets at random times, until nothing may happen any more."""
        while True:
            wait_s = float(self.rng.exponential(HOUR_S / per_h))
            await self.clock.sleep_until(self.clock.monotonic() + wait_s)
            if self.clock.monotonic() >= self.until_s:
                return
            if self.daemon is not None:
                yield str(self.rng.choice(list(CHANGES)))

    async def _people(self) -> None:
        """Change VMs as a person would in the console."""
        async for fleet in self._each(1.5):
            what = str(self.rng.choice(["stop", "start", "delete", "protect", "template"]))
            wanted = {"stop": State.RUNNING, "protect": State.RUNNING}.get(what, State.STOPPED)
            found = [view.id for view in self.views(fleet) if view.state is wanted]
            if not found:
                continue
            vm_id, now_s = str(self.rng.choice(found)), self.true.now()
            with suppress(ProviderError):
                if what == "stop" and PROTECTED_TAG not in self.view(vm_id).tags:
                    self.world.stop(now_s, [vm_id])
                    self.hands_s["stop", vm_id] = now_s
                elif what == "start":
                    self.world.start(now_s, [vm_id])
                    self.by_hand.add(vm_id)
                    self.hands_s["start", vm_id] = now_s
                elif what == "delete":
                    self.world.terminate(now_s, [vm_id])
                elif what == "protect" and not any(
                    i for i in self.protected_s if i in {v.id for v in self.views(fleet)}
                ):
                    self.world.tag(now_s, [vm_id], {PROTECTED_TAG: "by hand"})
                    self.protected_s[vm_id] = now_s
                elif what == "template":
                    book = self.world.templates
                    template = book.find("", fleet)
                    data = replace(
                        template.version("$Default").data, image=f"ami-{int(self.rng.integers(1 << 30)):08x}"
                    )
                    template.default = book.add_version(template, data, now_s).number
                self.lived.met[f"somebody: {what}"] += 1

    async def _operators(self) -> None:
        async for fleet in self._each(1.5):
            daemon, words = self.daemon, PoolCommands(self.daemon)
            what = str(
                self.rng.choice(
                    ["pause", "exercise", "refresh", "evict", "quarantine", "release", "disown", "override"]
                )
            )
            ids = [view.id for view in self.views(fleet) if view.state is State.STOPPED]
            until_s = self.clock.now() + float(self.rng.uniform(300, 2400))
            with suppress(AutoscalerError, TimeoutError):
                if what == "pause":
                    await daemon.operators.pause(
                        ChangeRequest((fleet,), "alice", "a check", until_s),
                        [PAUSABLE[int(self.rng.integers(len(PAUSABLE)))]],
                    )
                elif what == "override":
                    await daemon.operators.override(
                        ChangeRequest((fleet,), "alice", "a match", until_s),
                        int(self.rng.integers(1, 5)),
                        None,
                    )
                elif ids:
                    if what == "disown":
                        # The VM takes its whole account along.
                        self.disturbed.add(fleet)
                    await getattr(words, what)(
                        PoolCommand(fleet, (str(self.rng.choice(ids)),), "alice", "a check")
                    )
                self.lived.met[f"operator: {what}"] += 1

    async def _reloads(self) -> None:
        async for name in self._each(0.6):
            policies = dict(self.policies)
            kind = str(self.rng.choice(["shadow", "away", "bounds"]))
            self.lived.met[f"reload: {kind}"] += 1
            self.disturbed.add(name)
            if kind == "shadow":
                policies[name] = policies[name].model_copy(update={"act": False})
            elif kind == "away":
                del policies[name]
            else:
                policies[name] = policy_of(name, bounds={"maximum": VMS - 2})
            await self._take_over(policies)
            await self.clock.sleep_until(self.clock.monotonic() + float(self.rng.uniform(60.0, 2000.0)))
            self.disturbed.add(name)
            await self._take_over(self.policies)

    async def _set_clock(self) -> None:
        """Set the clock by an hour at the worst of times, while VMs drain and just after orders, or by seconds."""
        rng = np.random.default_rng((self.seed, 77))
        while self.jumps and self.clock.monotonic() < self.until_s - 1200.0:
            await self.clock.sleep_until(self.clock.monotonic() + float(rng.uniform(2.0, 12.0)))
            if self.daemon is None:
                continue
            vms = [t for fleet in self.daemon.fleets.all for t in fleet.inventory.vms.values()]
            by_s, ahead_s = 0.0, self.clock.ahead_s
            ordered = any(t.order is not None and not t.order.confirmed for t in vms)
            # Never off by more than about an hour, since pauses and overrides end by the clock.
            if ordered and ahead_s > -HOUR_S / 2 and rng.uniform() < 0.2:
                by_s = -HOUR_S
            elif any(t.phase is Phase.DRAINING for t in vms) and ahead_s < HOUR_S / 2 and rng.uniform() < 0.2:
                by_s = HOUR_S
            elif rng.uniform() < 0.01:
                by_s = float(rng.uniform(-25.0, 25.0))
            if by_s:
                self.clock.ahead_s += by_s
                self.lived.met["the clock is set back" if by_s < 0.0 else "the clock is set ahead"] += 1
                # With a clock that was set, the daemon cannot know costs and changes by people as the world does.
                self.disturbed.update(self.policies)
                self.hands_s.clear()
                self.set_s = self.true.now()

    async def _take_over(self, policies) -> None:
        daemon = self.daemon
        self.hands_s.clear()
        before = daemon.fleets.all
        wired = self.wiring.wire(tuple(policies.values()), [fleet.setup for fleet in before])
        await daemon.take_over(wired.setups)
        await give_back(daemon, before)
        self.hands_s.clear()
        for adapter in wired.retired:
            await adapter.close()

    # ── the log ────────────────────────────────────────────────────────────────────────────────────────

    def info(self, event: str, **facts: object) -> None:
        self.events[event if event != "vm" else str(facts.get("kind"))] += 1
        if event in FAILURES:
            self.lived.wrong.append(f"{self.clock.monotonic():.0f}: {event}: {facts.get('text', '')}")

    debug = warning = error = exception = info

    # ── the end ────────────────────────────────────────────────────────────────────────────────────────

    def _compare(self) -> None:
        """Check, at the end, that ledger and cloud agree, and that VMs in service get work."""
        for name, fleet in self.daemon.fleets.by_name.items():
            truth = {v.id: v for v in self.views(name) if v.state is not State.TERMINATED}
            known = {
                i: t for i, t in fleet.inventory.vms.items() if t.phase is not Phase.LOST and not t.disowned
            }
            for vm_id in sorted(known.keys() | truth.keys()):
                phase = known[vm_id].phase if vm_id in known else None
                state = truth[vm_id].state if vm_id in truth else None
                if phase is None and vm_id in fleet.inventory.vms:
                    continue  # given up by an operator, or stuck in the cloud for good
                if state not in STATES.get(phase, ()):
                    self.lived.wrong.append(
                        f"{name}: {vm_id} is {phase} in the ledger and {state} in the cloud"
                    )
                if phase is Phase.IN_SERVICE and name in self.fronts and not self.fronts[name].works(vm_id):
                    self.lived.wrong.append(f"{name}: {vm_id} is in service and gets no work")
            if fleet.inventory.unsettled_actions():
                self.lived.wrong.append(f"{name} has unsettled actions")


STATES = {
    Phase.PROVISIONING: (State.PENDING, State.RUNNING),
    Phase.STARTING: (State.PENDING, State.RUNNING),
    Phase.RUNNING: (State.RUNNING,),
    Phase.PREPARING: (State.PENDING, State.RUNNING),
    Phase.IN_SERVICE: (State.RUNNING,),
    Phase.DRAINING: (State.RUNNING,),
    Phase.STOPPING: (State.RUNNING, State.STOPPING, State.STOPPED),
    Phase.STOPPED: (State.STOPPED,),
}


def _rare(fault: Fault) -> Fault:
    """Make missing rows rare: a VM that three listings in a row omit counts as gone, which is not a bug of the daemon."""
    return replace(fault, probability=0.01) if fault.kind is FaultKind.MISSING_ROWS else fault


def live(seed: int, hours: float, *, jumps: bool = False) -> Lived:
    """Live for some hours of virtual time. With `jumps`, the daemon's clock is set now and then."""
    return run_virtual(lambda: House(seed, hours, jumps=jumps).live())
