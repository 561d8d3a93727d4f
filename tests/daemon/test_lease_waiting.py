"""A daemon that waits for another only watches the balancer, and the VMs that the other one drains, starts or exercises; and when it may act."""

from autoscaler.balancers.simulated import SimulatedBalancer
from autoscaler.daemon.acts.arrival_command import Arrivals
from autoscaler.daemon.vms.lease import SETTLE_S, UNSEEN_S, VALID_S, Lease, Mark
from autoscaler.daemon.vms.pool_tags import POOL_TAG, PREPARING
from autoscaler.daemon.vms.tracked import Phase
from autoscaler.ports import Outcome, OutcomeKind
from autoscaler.providers.memory import MemoryProvider
from tests.daemon.builders import SimulatedHook, steady, virtual
from tests.daemon.test_lease import Two, _Named, marked, seesaw


class Counted(SimulatedBalancer):
    """A balancer that records the changes requested of it."""

    def __init__(self, clock, shared, **more):
        super().__init__(clock, **more)
        self._cordoned_at_s = shared
        self.asked = []

    async def admit(self, vms):
        self.asked.append("admit")
        return await super().admit(vms)

    async def cordon(self, vms):
        self.asked.append("cordon")
        return await super().cordon(vms)


@virtual
async def test_one_that_waits_neither_puts_vms_into_the_balancer_nor_takes_them_out():
    two = Two(steady((0, 800), (300, 400), (450, 1000)))
    shared = {}
    fronts = {name: Counted(two.clock, shared, busy_s=1e6) for name in "ab"}
    two.begin("a", balancer=fronts["a"])
    await two.run_until(400)
    out = set(shared)
    assert len(out) == 4
    # It begins while the first drains, and sees others start.
    hook = SimulatedHook(two.clock)
    two.begin("b", balancer=fronts["b"], arrivals=Arrivals(hook, two.clock))
    await two.run_until(440)
    assert set(shared) == out
    inventory = two.daemons["b"].fleets.by_name["web"].inventory
    assert inventory.counts(two.clock.now(), 0.0).in_service == 4
    await two.run_until(520)
    assert fronts["b"].asked == []
    assert hook.runs == []
    assert inventory.counts(two.clock.now(), 0.0).in_service == 10
    for name in "ab":
        await two.kill(name)


@virtual
async def test_what_one_was_draining_is_not_drained_on_once_another_acts_on_the_fleet():
    two = Two(steady((0, 1000), (300, 600), (330, 1000)))
    shared = {}
    fronts = {name: Counted(two.clock, shared, busy_s=1e6) for name in "ab"}
    two.begin("b", balancer=fronts["b"])
    two.begin("a", balancer=fronts["a"])
    await two.run_until(325)
    first = "a" if fronts["a"].asked.count("cordon") else "b"
    other = "b" if first == "a" else "a"
    assert len(shared) == 4
    await two.kill(first)
    await two.run_until(325 + VALID_S + SETTLE_S + 60)
    assert shared == {}
    fronts[first].asked.clear()
    two.begin(first, balancer=fronts[first])
    await two.run_until(325 + VALID_S + SETTLE_S + 200)
    assert fronts[first].asked == []
    assert shared == {}
    assert two.daemons[other].fleets.by_name["web"].inventory.counts(two.clock.now(), 0.0).in_service == 10
    for name in "ab":
        await two.kill(name)


@virtual
async def test_what_one_was_trying_is_not_tried_on_once_another_acts_on_the_fleet():
    two = Two(lambda _: 300.0, vms=4)
    hooks = {name: SimulatedHook(two.clock, took_s=3000.0) for name in "ab"}
    own = {"warm_pool": {"minimum": 0}, "freshness": {"exercise": {"every": "1h"}}}
    for name in "ab":
        two.begin(name, own=own, hook=hooks[name])
        await two.run_until(60)
    await two.run_until(3700)
    assert (len(hooks["a"].runs), len(hooks["b"].runs)) == (1, 0)
    await two.kill("a")
    await two.run_until(3700 + VALID_S + SETTLE_S + 60)
    two.begin("a", own=own, hook=hooks["a"])
    await two.run_until(3700 + VALID_S + SETTLE_S + 300)
    assert two.daemons["a"].fleets.by_name["web"].leased_to == "b"
    assert len(hooks["a"].runs) == 1
    for name in "ab":
        await two.kill(name)


@virtual
async def test_one_that_waits_writes_no_tag_on_a_vm_that_serves_under_the_other_until_it_takes_over():
    two = Two(lambda _: 300.0, vms=4)
    tagged = []

    class Notes(_Named):
        async def tag(self, vm_ids, tags):
            if POOL_TAG in tags:
                tagged.append((self._name, round(two.clock.monotonic()), tuple(vm_ids)))
            # The first daemon's permission to tag anything but its lease is gone.
            if self._name == "a" and POOL_TAG in tags:
                return tuple(Outcome(i, OutcomeKind.DENIED, "UnauthorizedOperation", "no") for i in vm_ids)
            return await self._inner.tag(vm_ids, tags)

    marked = min(view.id for view in two.world.views(two.clock.now(), "web"))
    two.world.tag(two.clock.now(), [marked], {POOL_TAG: PREPARING})
    two.world.start(two.clock.now(), [marked])
    begin = {name: Notes(MemoryProvider(two.world, two.clock), two, name) for name in "ab"}
    two.begin("a", provider=begin["a"])
    await two.run_until(4000)
    two.begin("b", provider=begin["b"])
    await two.run_until(4600)
    assert two.daemons["b"].fleets.by_name["web"].leased_to == "a"
    assert {name for name, *_ in tagged} == {"a"}
    assert two.daemons["b"].fleets.by_name["web"].inventory.vms[marked].phase is Phase.IN_SERVICE
    await two.kill("a")
    await two.run_until(4600 + VALID_S + SETTLE_S + 100)
    assert [(name, ids) for name, _, ids in tagged if name == "b"] == [("b", (marked,))]
    await two.kill("b")


@virtual
async def test_what_the_one_that_acts_starts_and_stops_is_not_taken_for_a_persons_doing():
    two = Two(seesaw)
    own = {"guards": {"hands_off": "10m"}}
    two.begin("a", own=own)
    await two.run_until(60)
    two.begin("b", own=own)
    await two.run_until(800)
    assert {made[2] for made in two.ordered("a")} == {"start", "stop"}
    assert not {"started_outside", "stopped_outside"} & set(two.kinds("b"))
    vms = two.daemons["b"].fleets.by_name["web"].inventory.vms.values()
    assert [t.vm.id for t in vms if max(t.quarantined_until_s, t.hands_off_until_s) > two.clock.now()] == []
    for name in "ab":
        await two.kill(name)


def test_a_tag_that_is_seen_was_written_even_if_the_answer_to_it_was_lost():
    lease = Lease("a", "1")
    lease.see(marked(None, None, None), 1000.0, 1000.0)
    mark = lease.mark(1000.4)
    lease.wrote(1001.0, done=False)
    for at_s, acts in ((1010.0, False), (1010.0 + SETTLE_S - 1.0, False), (1010.0 + SETTLE_S, True)):
        lease.see(marked(str(mark), str(mark)), at_s, at_s)
        assert lease.may_act(at_s) is acts
    # A tag of an earlier claim says nothing about the present one.
    theirs = Mark("b", "7", 1, 1030.0)
    lease.see(marked(str(theirs), str(mark)), 1030.0, 1030.0)
    free_s = 1030.0 + VALID_S
    lease.see(marked(str(theirs), str(mark)), free_s, free_s)
    assert lease.held_by == ""
    lease.mark(free_s)
    lease.wrote(free_s + 1.0, done=False)
    for after_s in (10.0, 10.0 + SETTLE_S, UNSEEN_S - 1.0):
        lease.see(marked(str(theirs), str(mark)), free_s + after_s, free_s + after_s)
        assert not lease.may_act(free_s + after_s)
