"""Whether VMs missing from a balancer count as drained, or the balancer never had them.

Why: if a policy is given another balancer while VMs serve, or a balancer's entries are replaced, the balancer has none of
the fleet. Whatever sent work to those VMs before may still do so, and a VM missing from the balancer is not known to be idle.

Rules of this file: absence counts if the balancer has at least half of the VMs in service or, if none is in service, if it
had these VMs before. Otherwise it is doubted: no VM leaves, that is reported once, and the balancer is queried again every
minute. A doubt ends after an hour, with a report, so that nothing stays blocked for ever.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from autoscaler.daemon.slow_answers import SlowAnswers
from autoscaler.ports import Member, Note, Rotation, RotationView

DOUBTED_S = 3600.0
"""Time after which a doubt ends and the balancer is believed, in seconds."""
ASK_EVERY_S = 60.0
"""Time between two requests about VMs in service, while the balancer is doubted or VMs are to be admitted, in seconds."""


class Membership:
    """Judges which VMs of one fleet its balancer has.

    Args:
        fleet: Name of the fleet.
    """

    def __init__(self, fleet: str) -> None:
        self.doubt = ""
        """For people, what the balancer lacks; empty if it is not doubted."""
        self.holds = False
        """Whether the doubt keeps VMs from leaving."""
        self.to_admit: set[str] = set()
        """VMs in service that may get no work: they came into service behind another balancer, or a cordon seemed to fail."""
        self.slow = SlowAnswers()
        self._fleet = fleet
        self._had: set[str] = set()
        self._since_s = 0.0
        self._next_s = float("-inf")
        self._news: list[Note] = []

    def hear(self, view: RotationView) -> None:
        """Note which VMs the balancer has in any answer: VMs that it once had may later be missing because they left."""
        self._had.update(vm_id for vm_id, member in view.members.items() if member.known)

    def is_due(self, now_s: float) -> bool:
        """Return whether it is time to ask about the VMs in service."""
        # A clock that was set back must not delay this.
        return bool(self.doubt or self.to_admit) and not now_s < self._next_s <= now_s + ASK_EVERY_S

    def judge(self, serving: Mapping[str, Member], of: int, now_s: float) -> None:
        """Judge the balancer by what it reports of VMs in service; a report on fewer than half of them changes nothing.

        Args:
            serving: Those VMs in service on which it reports.
            of: Number of all VMs in service.
            now_s: The current time.
        """
        self._next_s = now_s + ASK_EVERY_S
        self.to_admit -= {vm_id for vm_id, member in serving.items() if member.rotation is Rotation.IN}
        if not serving or 2 * len(serving) < of:
            return
        has = sum(member.known for member in serving.values())
        if 2 * has < len(serving):
            self._doubts(f"the load balancer has {has} of the {len(serving)} VMs in service", now_s)
        elif self.doubt:
            text = f"the load balancer has {has} of the {len(serving)} VMs in service; VMs leave as usual"
            self._news.append(Note("balancer_has_vms", self._fleet, text))
            self.doubt, self.holds = "", False

    def doubted(self, absent: set[str], serving: Mapping[str, Member], of: int, now_s: float) -> set[str]:
        """Return those of the absent VMs that must not be taken as drained.

        Args:
            absent: Leaving VMs that the balancer does not have.
            serving: What it reports of VMs in service, asked just now.
            of: Number of all VMs in service.
            now_s: The current time.
        """
        self.judge(serving, of, now_s)
        if of:
            # A report on fewer than half of the VMs in service is no basis for a judgement.
            heard = 2 * len(serving) >= of
            return absent if self.holds or not heard else set()
        unknown = absent - self._had
        if unknown:
            self._doubts(f"the load balancer has no entry for {', '.join(sorted(unknown)[:3])}", now_s)
        return unknown if self.holds else set()

    def keep(self, vm_ids: Collection[str]) -> None:
        """Forget all VMs but these."""
        if len(self._had) > len(vm_ids):
            self._had.intersection_update(vm_ids)

    def take_news(self) -> list[Note]:
        """Return what deserves an event since the last call."""
        news, self._news = self._news, []
        return news

    def _doubts(self, what: str, now_s: float) -> None:
        begins = not self.doubt
        self._since_s = now_s if begins else min(self._since_s, now_s)
        self.doubt = (
            f"{what}; check `balancer` in the policy, and that the VMs are entered there. Until it has half of "
            "them no VM leaves"
        )
        if begins:
            self.holds, self._next_s = True, now_s + ASK_EVERY_S
            text = f"{self.doubt}, for {DOUBTED_S / 60.0:.0f} min at most; scaling out continues"
            self._news.append(Note("balancer_lacks_vms", self._fleet, text))
        elif self.holds and now_s - self._since_s >= DOUBTED_S:
            self.holds = False
            text = f"{what}, for {DOUBTED_S / 60.0:.0f} min: absent VMs count as drained from now on"
            self._news.append(Note("balancer_believed", self._fleet, text))
        if not self.holds:
            self.doubt = f"{what}; check `balancer` in the policy. Absent VMs count as drained"
