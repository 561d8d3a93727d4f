"""Leases on fleets: a daemon tags its VMs while it acts, and leaves alone fleets that another daemon recently tagged.

Why: two daemons with separate state directories on one fleet would both start VMs for the same demand, and stop each
other's. The VMs are the only thing that both see, and their tags come with every listing anyway. So a few VMs of each
fleet carry a tag with the daemon's name, rewritten every few minutes.

The age of another daemon's tag is not read from its clock: what counts is when the tag was last seen to change. Its
timestamp serves only to detect tags older than any possible clock error: the provider refuses calls from clocks that
are further off (EC2: 15 minutes).

    nobody's ──claim──► claimed ──own tag seen, some time after writing it──► ours
       ▲                   │                                                   │
       └── no change for VALID_S ── another's ◄── another's tag has changed ───┘

Rules of this file: pure values; time is an argument. In doubt a daemon acts: only another daemon's tag holds it, never a
tag that it could not write itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from autoscaler.ports import Vm, VmState

LEASE_TAG = "autoscaler:lease"
"""Who acts on the fleet of this VM: name of the daemon, its run, how often it has written, and when."""
RENEW_S = 150.0
"""The tag is written again so often."""
VALID_S = 420.0
"""Another daemon's tag that has not changed for so long holds nobody."""
SETTLE_S = 15.0
"""Own tags that are seen so long after they were written are not about to be found overwritten by another daemon that
began at the same moment."""
UNSEEN_S = 90.0
"""A claim that no listing shows for so long holds nobody any more: listings lag, and tags may be refused."""
SKEW_S = 900.0
"""Clocks of daemons that the provider serves are off by no more."""
RETRY_S = 30.0
"""A tag that could not be written is written again after this time."""
CARRIERS, MOST_CARRIERS = 2, 20
"""VMs of a fleet that carry the tag, the first by their ids; and how many at most, with those that carry an old one."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What a tag says.

    Attributes:
        name: Of the daemon, the same over its restarts.
        run: Of its run.
        number: How often this run has written.
        at_s: When, by its own clock.
    """

    name: str
    run: str
    number: int
    at_s: float

    def __str__(self) -> str:
        """As it is written."""
        return f"{self.name} {self.run} {self.number} {self.at_s:.0f}"

    @classmethod
    def of(cls, text: str) -> Mark | None:
        """What is written; None where that is no mark."""
        try:
            name, run, number, at = text.split()
            found = cls(name, run, int(number), float(at))
        except ValueError:
            return None
        return found if math.isfinite(found.at_s) else None


class Lease:
    """One fleet as one daemon sees it.

    Args:
        name: Of this daemon, the same over its restarts; without spaces.
        run: Of this run, different each time; likewise.
    """

    def __init__(self, name: str, run: str) -> None:
        self._name, self._run = name, run
        self.held_by = ""
        """The daemon that acts on the fleet; empty where it is not another one."""
        self.ours = False
        """Whether own tags have been seen, and nobody else's since."""
        self._began_s: float | None = None
        self._other: Mark | None = None
        self._changed_s = -math.inf
        self._ahead_s = 0.0
        """By how much the clock was set ahead since the start, in seconds."""
        self._written = 0
        self._asked_s: float | None = None
        """When this term's first tag was about to be written."""
        self._taken_s: float | None = None
        """When the first of them was taken."""
        self._due_s = -math.inf
        self._carriers: tuple[str, ...] = ()

    def see(self, vms: Iterable[Vm], requested_at_s: float, now_s: float) -> None:
        """Take in the fleet's rows of a whole listing, and when that was asked for."""
        self._set_back_to(now_s)
        alive = sorted((vm for vm in vms if vm.state is not VmState.TERMINATED), key=lambda vm: vm.id)
        marked = [(vm.id, mark) for vm in alive if (mark := Mark.of(vm.tags.get(LEASE_TAG, ""))) is not None]
        carriers = {vm.id for vm in alive[:CARRIERS]} | {vm_id for vm_id, _ in marked}
        self._carriers = tuple(sorted(carriers)[:MOST_CARRIERS])
        marks = [mark for _, mark in marked]
        if self._began_s is None:
            self._began_s = now_s
            # An earlier run of this daemon acted until just now.
            self.ours = any(m.name == self._name and 0.0 <= now_s - m.at_s < VALID_S for m in marks)
        other = max(
            (mark for mark in marks if self._is_anothers(mark, self._began_s)),
            key=lambda mark: (mark.at_s, mark.run, mark.number),
            default=None,
        )
        if other != self._other:
            self._other, self._changed_s = other, now_s
        may_be_new = other is not None and now_s - self._ahead_s - other.at_s < VALID_S + SKEW_S
        if other is not None and may_be_new and now_s - self._changed_s < VALID_S:
            self.held_by, self.ours = other.name, False
            self._asked_s = self._taken_s = None
            self._due_s = -math.inf
            return
        self.held_by = ""
        settled = self._taken_s is not None and requested_at_s - self._taken_s >= SETTLE_S
        if settled and any(mark.run == self._run for mark in marks):
            self.ours = True

    def _set_back_to(self, now_s: float) -> None:
        """What was noted by a clock that has been set back since is of now: neither holds nor renewals wait for it."""
        self._changed_s = min(self._changed_s, now_s)
        self._due_s = min(self._due_s, now_s + RENEW_S)
        self._asked_s = None if self._asked_s is None else min(self._asked_s, now_s)
        self._taken_s = None if self._taken_s is None else min(self._taken_s, now_s)

    def set_ahead_by(self, by_s: float) -> None:
        """The clock was set ahead: no such time has passed, so another daemon's tag is no older than before."""
        self._ahead_s += by_s
        self._changed_s += by_s
        self._asked_s = None if self._asked_s is None else self._asked_s + by_s
        self._taken_s = None if self._taken_s is None else self._taken_s + by_s

    def _is_anothers(self, mark: Mark, began_s: float) -> bool:
        if mark.name == self._name:
            # Another run of the same name that still writes: a copy of the state directory is in use elsewhere.
            return mark.run != self._run and mark.at_s > began_s
        return True

    def may_act(self, now_s: float) -> bool:
        """Whether anything may be done for the fleet now."""
        if self.held_by:
            return False
        if self.ours or not self._carriers:
            return True
        return self._asked_s is not None and now_s - self._asked_s >= UNSEEN_S

    def due(self, now_s: float) -> tuple[str, ...]:
        """The VMs on which a `mark` is to be written now; asked after each listing."""
        if self.held_by or self._began_s is None or now_s < self._due_s:
            return ()
        return self._carriers

    def mark(self, now_s: float) -> Mark:
        """What is about to be written; from now on it is not due for a while."""
        self._written += 1
        self._due_s = now_s + RENEW_S
        if self._asked_s is None:
            self._asked_s = now_s
        return Mark(self._name, self._run, self._written, now_s)

    def wrote(self, now_s: float, *, done: bool) -> None:
        """What became of it."""
        if done and self._taken_s is None:
            self._taken_s = now_s
        if not done:
            self._due_s = min(self._due_s, now_s + RETRY_S)
