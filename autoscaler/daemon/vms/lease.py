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
tag that it could not write itself. The exception is a daemon that did not run for minutes: it looks before it acts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from autoscaler.ports import Vm, VmState

LEASE_TAG = "autoscaler:lease"
"""Tag that says which daemon acts on the VM's fleet: its name, its run, how many times it has written, and when."""
RENEW_S = 150.0
"""Time between two writes of the tag, in seconds."""
VALID_S = 420.0
"""Time without a change after which another daemon's tag no longer counts, in seconds."""
SETTLE_S = 15.0
"""Age from which an own tag that is still seen counts, in seconds: by then another daemon that began at the same moment
would have overwritten it.
"""
UNSEEN_S = 90.0
"""Time after which a claim holds the daemon back no longer, even if no listing shows it, in seconds: listings lag, and
writing tags may be refused.
"""
SKEW_S = 900.0
"""Largest clock error of daemons that the provider still serves, in seconds."""
RETRY_S = 30.0
"""Time after which a failed write is repeated, in seconds."""
AWAY_S = VALID_S - RENEW_S - RETRY_S
"""Time for which a daemon may not have run (frozen, or its machine was) before another may have taken over, in seconds."""
CARRIERS, MOST_CARRIERS = 2, 20
"""How many VMs of a fleet carry the tag (the first by id), and how many at most together with those that carry an old one."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The content of a lease tag.

    Attributes:
        name: Name of the daemon, the same across restarts.
        run: Identifier of its run.
        number: How many times this run has written.
        at_s: When it was written, by that daemon's clock.
    """

    name: str
    run: str
    number: int
    at_s: float

    def __str__(self) -> str:
        """Return the text of the tag."""
        return f"{self.name} {self.run} {self.number} {self.at_s:.0f}"

    @classmethod
    def of(cls, text: str) -> Mark | None:
        """Parse the text of a tag; None if it is not a lease."""
        try:
            name, run, number, at = text.split()
            found = cls(name, run, int(number), float(at))
        except ValueError:
            return None
        return found if math.isfinite(found.at_s) else None


class Lease:
    """The lease of one daemon on one fleet.

    Args:
        name: Name of this daemon, the same across restarts; without spaces.
        run: Identifier of this run, different each time; without spaces.
    """

    def __init__(self, name: str, run: str) -> None:
        self._name, self._run = name, run
        self.held_by = ""
        """Name of the other daemon that acts on the fleet; empty if there is none."""
        self.ours = False
        """Whether own tags have been seen, and no other daemon's since."""
        self._doubted = False
        self._began_s: float | None = None
        self._other: Mark | None = None
        self._changed_s = -math.inf
        self._ahead_s = 0.0
        """By how much the clock was set ahead since the start, in seconds."""
        self._written = 0
        self._asked_s: float | None = None
        """When the first tag of the present claim was about to be written."""
        self._taken_s: float | None = None
        """When the first tag of the present claim was accepted."""
        self._due_s = -math.inf
        self._carriers: tuple[str, ...] = ()

    def see(self, vms: Iterable[Vm], requested_at_s: float, now_s: float) -> None:
        """Apply the fleet's rows of a complete listing.

        Args:
            vms: The fleet's rows.
            requested_at_s: When the listing was requested.
            now_s: The current time.
        """
        self._set_back_to(now_s)
        self._doubted = False
        alive = sorted((vm for vm in vms if vm.state is not VmState.TERMINATED), key=lambda vm: vm.id)
        marked = [(vm.id, mark) for vm in alive if (mark := Mark.of(vm.tags.get(LEASE_TAG, ""))) is not None]
        carriers = {vm.id for vm in alive[:CARRIERS]} | {vm_id for vm_id, _ in marked}
        self._carriers = tuple(sorted(carriers)[:MOST_CARRIERS])
        marks = [mark for _, mark in marked]
        if self._began_s is None:
            self._began_s = now_s
            # A recent tag under our name means that an earlier run of this daemon acted until just now.
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
        own = [mark for mark in marks if mark.run == self._run]
        if self._taken_s is None and any(self._is_of_this_claim(mark) for mark in own):
            # The answer to the write was lost or late, but the tag is there.
            self._taken_s = now_s
        settled = self._taken_s is not None and requested_at_s - self._taken_s >= SETTLE_S
        if settled and own:
            self.ours = True

    def _set_back_to(self, now_s: float) -> None:
        """Move times that lie ahead of a clock that was set back to now, so that neither holds nor renewals wait for them."""
        self._changed_s = min(self._changed_s, now_s)
        self._due_s = min(self._due_s, now_s + RENEW_S)
        self._asked_s = None if self._asked_s is None else min(self._asked_s, now_s)
        self._taken_s = None if self._taken_s is None else min(self._taken_s, now_s)

    def set_ahead_by(self, by_s: float) -> None:
        """Move noted times with a clock that was set ahead: another daemon's tag is no older than before."""
        self._ahead_s += by_s
        self._changed_s += by_s
        self._asked_s = None if self._asked_s is None else self._asked_s + by_s
        self._taken_s = None if self._taken_s is None else self._taken_s + by_s

    def doubt(self) -> None:
        """Hold the fleet, and write no tag over another's, until the next complete listing shows whether there is one."""
        self._doubted = True

    def _is_of_this_claim(self, mark: Mark) -> bool:
        """Whether an own tag was written since the present claim began; tags hold whole seconds."""
        return self._asked_s is not None and mark.at_s >= self._asked_s - 1.0

    def _is_anothers(self, mark: Mark, began_s: float) -> bool:
        if mark.name == self._name:
            # Another run of the same name still writes, so a copy of the state directory is in use elsewhere.
            return mark.run != self._run and mark.at_s > began_s
        return True

    def may_act(self, now_s: float) -> bool:
        """Return whether this daemon may act on the fleet now."""
        if self.held_by or self._doubted:
            return False
        if self.ours or not self._carriers:
            return True
        return self._asked_s is not None and now_s - self._asked_s >= UNSEEN_S

    def due(self, now_s: float, since_s: float = 0.0) -> tuple[str, ...]:
        """Return the VMs on which a `mark` must be written now, if it has been due for `since_s` seconds; called after each
        listing.

        The first mark has always been due: until it is seen, the fleet waits.
        """
        if self.held_by or self._doubted or self._began_s is None or now_s - since_s < self._due_s:
            return ()
        return self._carriers

    def mark(self, now_s: float) -> Mark:
        """Return the mark to write next; `due` is then empty for a while."""
        self._written += 1
        self._due_s = now_s + RENEW_S
        if self._asked_s is None:
            self._asked_s = now_s
        return Mark(self._name, self._run, self._written, now_s)

    def wrote(self, now_s: float, *, done: bool) -> None:
        """Note whether the mark was written."""
        if done and self._taken_s is None:
            self._taken_s = now_s
        if not done:
            self._due_s = min(self._due_s, now_s + RETRY_S)
