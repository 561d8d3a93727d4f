"""An inventory with one VM, driven by listings and orders: for tests of what they mean together."""

from autoscaler.daemon.vms.inventory import FleetInventory, Patience
from autoscaler.ports import Outcome, OutcomeKind, Verb, VmState
from tests.daemon.builders import listing, reconcile, vm

RUNNING, STOPPED = VmState.RUNNING, VmState.STOPPED


class Fleet:
    """An inventory with one VM, driven by listings and orders."""

    def __init__(self, state=STOPPED, **patience):
        self.inventory = FleetInventory("web", Patience(**patience))
        self.launched = 0.0
        self.see(state, at=0)

    def see(self, state, at, *, launched=None, reason="", complete=True, tags=None):
        if launched is not None:
            self.launched = launched
        shown = vm(state=state, launched=self.launched, reason=reason, tags=tags)
        return [
            n.kind for n in reconcile(self.inventory, listing(shown, at=at, complete=complete), [shown], at)
        ]

    def miss(self, at, *, complete=True):
        """A listing with another VM, and without this one."""
        other = vm("i-other", STOPPED)
        return [
            n.kind for n in reconcile(self.inventory, listing(other, at=at, complete=complete), [other], at)
        ]

    def order(self, verb, at, kind=OutcomeKind.ACCEPTED, code="", back_at=None):
        self.inventory.sent(verb, ["i-1"], 1, 7, at)
        if kind is None:
            return []
        outcome = Outcome("i-1", kind, code, "words")
        return self.inventory.settle(verb, [outcome], at, at if back_at is None else back_at)

    def ready(self, at):
        self.inventory.mark_ready(["i-1"], at)

    @property
    def vm(self):
        return self.inventory.vms["i-1"]

    @property
    def phase(self):
        return self.vm.phase

    def counts(self, at, on_time=0.0):
        return self.inventory.counts(at, on_time)


def in_service(at=100.0, **patience):
    """Make the VM in service since `at`, by our own start 20 s before; its order is too old to matter."""
    fleet = Fleet(**patience)
    fleet.order(Verb.START, at - 20)
    fleet.see(RUNNING, at - 1, launched=at - 20)
    fleet.ready(at)
    return fleet
