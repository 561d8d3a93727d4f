"""The warm pool for operators: one row per VM, and the commands that change it.

    asked ─ checked against the VMs that are known ─ journal (who and why) ─ tags on the VM ─ in force ─ answered

Rules of this file: nothing is done that the journal does not have. Information that must outlive the daemon (a quarantine, the
owner) is a tag on the VM; if it could not be written, the answer says so. A command names VMs of one fleet, and applies to all
of them or to none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from autoscaler.daemon.bounded import within
from autoscaler.daemon.fleets import Fleet
from autoscaler.daemon.loop import Daemon
from autoscaler.daemon.operating.operator_words import unknown_fleet
from autoscaler.daemon.vms.pool_tags import (
    GROUP_TAG,
    MADE_AT_TAG,
    QUARANTINED_TAG,
    SPEC_TAG,
    TERMINABLE_TAG,
    VERSION_TAG,
    baked_at_s,
    may_be_deleted,
)
from autoscaler.daemon.vms.tracked import PROTECTED_TAG, Phase, TrackedVm
from autoscaler.daemon.warm.exercise import last_well_s
from autoscaler.daemon.warm.freshness import made_at_s
from autoscaler.daemon.warm.warm_pool import BY_OPERATOR, FOREVER, WarmPool
from autoscaler.errors import ChangeRefusedError
from autoscaler.ports import FLEET_TAG, Note, Outcome, OutcomeKind
from autoscaler.words import some

LONGEST_REASON = 200
"""Most characters of a reason; a tag holds 256."""
_TAG_WITHIN_S = 10.0
_STAY = (
    "must stay ({}): the daemon did not make it, or it is protected; the tag "
    f"{TERMINABLE_TAG}=true lets the daemon delete what others made, and `autoscaler pool evict` deletes it once"
)
_IN_SHADOW = "{} runs in shadow, where no VM is really changed"
_RESTING = (Phase.STOPPED, Phase.STOPPING)


@dataclass(frozen=True, slots=True)
class PoolCommand:
    """A command of an operator.

    Attributes:
        fleet: The fleet of the VMs.
        vms: Their ids.
        who: The user, for people.
        reason: The user's reason.
    """

    fleet: str
    vms: tuple[str, ...]
    who: str
    reason: str


class PoolCommands:
    """Carries out operators' commands on warm pools.

    Args:
        daemon: The daemon with the pools.
    """

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    # ── looking ────────────────────────────────────────────────────────────────────────────────────────

    def shown(self, fleet: str | None) -> list[dict[str, Any]]:
        """Return one row per VM that exists, ordered by fleet, phase and id.

        Raises:
            ChangeRefusedError: There is no such fleet.
        """
        names = [fleet] if fleet is not None else list(self._daemon.fleets.by_name)
        rows = []
        for name in names:
            found, pool = self._fleet(name)
            stale = {each.tracked.vm.id: each.why for each in pool.stale}
            phases = list(Phase)
            vms = [t for t in found.inventory.vms.values() if t.phase is not Phase.LOST]
            vms.sort(key=lambda t: (phases.index(t.phase), t.vm.id))
            rows += [self._row(name, t, pool, stale.get(t.vm.id, "")) for t in vms]
        return rows

    def _row(self, fleet: str, t: TrackedVm, pool: WarmPool, stale: str) -> dict[str, Any]:
        now_s = self._daemon.clock.now()
        held = t.quarantined_until_s > now_s
        return {
            "fleet": fleet,
            "vm": t.vm.id,
            "phase": str(t.phase),
            "type": t.vm.vm_type,
            "zone": t.vm.zone,
            "address": t.vm.address,
            "public_address": t.vm.public_address,
            "image": t.vm.image,
            "version": t.vm.tags.get(VERSION_TAG) or None,
            "baked_s": None if (baked_s := baked_at_s(t.vm)) is None else now_s - baked_s,
            "spec": t.vm.tags.get(SPEC_TAG),
            "age_s": now_s - made_at_s(t),
            "age_is_known": MADE_AT_TAG in t.vm.tags,
            "last_ran_s": now_s - last_well_s(t),
            "out_of_date": stale or None,
            "quarantine": t.quarantine_reason if held else None,
            "quarantined_for_s": t.quarantined_until_s - now_s
            if held and t.quarantined_until_s != FOREVER
            else None,
            "hibernated": t.vm.hibernates,
            "protected": PROTECTED_TAG in t.vm.tags,
            "may_be_deleted": may_be_deleted(t.vm),
            "being_deleted": t.vm.id in pool.deleting,
        }

    # ── changing ───────────────────────────────────────────────────────────────────────────────────────

    async def exercise(self, word: PoolCommand) -> str:
        """Try these stopped VMs, one after the other, once no VM is on its way for demand; without ids, all stopped VMs.

        Raises:
            ChangeRefusedError: The command makes no sense; the text says why.
            JournalError: The command could not be recorded, so it is not carried out.
        """
        fleet, pool = self._fleet(word.fleet)
        vms = self._vms(fleet, word.vms) if word.vms else fleet.inventory.in_phase(Phase.STOPPED)
        ids = [t.vm.id for t in vms if t.phase is Phase.STOPPED]
        wrong = [f"{t.vm.id} is {t.phase}" for t in vms if t.phase is not Phase.STOPPED]
        if wrong or not ids:
            raise ChangeRefusedError(f"only stopped VMs are exercised: {', '.join(wrong) or 'there is none'}")
        await self._record("pool_exercise", word, f"asked to try {some(ids)}")
        pool.asked.exercise.update(ids)
        calm_s = pool.calm_s(fleet)
        return (
            f"{some(ids)} of {word.fleet} will be exercised, as soon as no VM has been on its way for demand for {calm_s:g} s; "
            f"`autoscaler events` will show the result.{await self._keep()}{_shadow(fleet)}"
        )

    async def refresh(self, word: PoolCommand) -> str:
        """Replace VMs that are out of date now, outside of windows too, at most the policy's share at a time.

        Raises:
            ChangeRefusedError, JournalError: As in `exercise`.
        """
        fleet, pool = self._fleet(word.fleet)
        if fleet.policy.provision is None or fleet.policy.refill is None:
            raise ChangeRefusedError(
                f"the policy of {word.fleet} makes no VMs for its pool, so none can be replaced; it needs the sections "
                "provision and refill"
            )
        if not pool.stale and not pool.template.is_known(fleet):
            raise ChangeRefusedError(
                f"it is not known which VMs of {word.fleet} are out of date, since its launch template "
                f"{fleet.policy.provision.launch_template} "
                + (
                    f"cannot be read: {pool.template.trouble}; see `autoscaler doctor`"
                    if pool.template.trouble
                    else "has not been read yet: try again in a minute"
                )
            )
        if not pool.stale:
            return f"Nothing in the pool of {word.fleet} is out of date."
        ids = [t.vm.id for t in (each.tracked for each in pool.stale) if may_be_deleted(t.vm)]
        stay = len(pool.stale) - len(ids)
        if not ids:
            raise ChangeRefusedError(f"the out-of-date VMs of {word.fleet} {_STAY.format(stay)}")
        await self._record("pool_refresh", word, f"asked to replace VMs that are out of date ({len(ids)})")
        pool.asked.refresh.update(ids)
        others = f" What else is {_STAY.format(stay)}." if stay else ""
        return f"{len(ids)} out of date in {word.fleet} will be replaced, the new ones first.{others}{await self._keep()}{_shadow(fleet)}"

    async def evict(self, word: PoolCommand) -> str:
        """Delete these stopped VMs for good.

        Raises:
            ChangeRefusedError, JournalError: As in `exercise`.
        """
        fleet, pool = self._fleet(word.fleet)
        vms = self._vms(fleet, word.vms)
        wrong = [f"{t.vm.id} is {t.phase}" for t in vms if t.phase not in _RESTING]
        wrong += [f"{t.vm.id} is protected" for t in vms if PROTECTED_TAG in t.vm.tags]
        wrong += [f"{t.vm.id} is in an Auto Scaling group" for t in vms if GROUP_TAG in t.vm.tags]
        if wrong:
            raise ChangeRefusedError(f"only stopped, unprotected VMs can be evicted: {', '.join(wrong)}")
        await self._record("pool_evict", word, f"evicted {some(word.vms)}: deleted for good")
        pool.asked.evict.update(word.vms)
        return f"{some(word.vms)} of {word.fleet} will be deleted for good, at the next tick.{await self._keep()}{_shadow(fleet)}"

    async def quarantine(self, word: PoolCommand) -> str:
        """Keep these VMs from being started until they are released; VMs in service stay in service.

        Raises:
            ChangeRefusedError, JournalError: As in `exercise`.
        """
        fleet, _ = self._fleet(word.fleet)
        vms = self._vms(fleet, word.vms)
        await self._record("pool_quarantine", word, f"quarantined {some(word.vms)}")
        said = f"{word.who}: {word.reason}"
        for t in vms:
            if t.phase in _RESTING:
                t.quarantined_until_s, t.quarantine_reason = FOREVER, BY_OPERATOR + said
        fleet.inventory.touch()
        lost = _lost(await self._tag(fleet, word.vms, {QUARANTINED_TAG: said}))
        return f"{some(word.vms)} of {word.fleet} will not be started until released.{lost}{_shadow(fleet)}"

    async def release(self, word: PoolCommand) -> str:
        """Allow these VMs to be started again, whatever the reason of their quarantine.

        Raises:
            ChangeRefusedError, JournalError: As in `exercise`.
        """
        fleet, _ = self._fleet(word.fleet)
        vms = self._vms(fleet, word.vms)
        await self._record("pool_release", word, f"released {some(word.vms)}")
        for t in vms:
            t.quarantined_until_s, t.quarantine_reason = float("-inf"), ""
        fleet.inventory.touch()
        lost = _lost(await self._tag(fleet, word.vms, {QUARANTINED_TAG: ""}))
        return f"{some(word.vms)} of {word.fleet} may be started again.{lost}{_shadow(fleet)}"

    async def adopt(self, word: PoolCommand) -> str:
        """Tag these VMs as the fleet's, so that they belong to it from the next listing on.

        Raises:
            ChangeRefusedError, JournalError: As in `exercise`.
        """
        fleet, _ = self._fleet(word.fleet)
        _named(word)
        _must_act(fleet)
        await self._record("pool_adopt", word, f"adopted {some(word.vms)}")
        if why := await self._tag(fleet, word.vms, {FLEET_TAG: word.fleet}):
            raise ChangeRefusedError(
                f"not all of {some(word.vms)} could be adopted, since the tag {FLEET_TAG} could not be written: {why}"
            )
        self._give_up(fleet, word.vms, up=False)
        return f"{some(word.vms)} belong to {word.fleet} as soon as a listing shows the tag {FLEET_TAG}."

    async def disown(self, word: PoolCommand) -> str:
        """Take these VMs out of their fleet; they stay as they are.

        Raises:
            ChangeRefusedError, JournalError: As in `exercise`.
        """
        fleet, _ = self._fleet(word.fleet)
        self._vms(fleet, word.vms)
        _must_act(fleet)
        await self._record("pool_disown", word, f"disowned {some(word.vms)}: they stay as they are")
        self._give_up(fleet, word.vms, up=True)  # before a tick can come in between
        if why := await self._tag(fleet, word.vms, {FLEET_TAG: ""}):
            self._give_up(fleet, word.vms, up=False)
            raise ChangeRefusedError(
                f"not all of {some(word.vms)} could be given up, since the tag {FLEET_TAG} could not be written: {why}"
            )
        return f"{some(word.vms)} of {word.fleet} no longer belong to a fleet and stay as they are."

    def _give_up(self, fleet: Fleet, ids: Iterable[str], *, up: bool) -> None:
        """Set whether VMs are given up: listings show them for a while, in which they must be neither started nor stopped."""
        for vm_id in ids:
            if (t := fleet.inventory.vms.get(vm_id)) is not None:
                t.disowned = up
        fleet.inventory.touch()

    @property
    def by_name(self) -> dict[str, Callable[[PoolCommand], Awaitable[str]]]:
        """Every command that changes something, by name."""
        return {
            "exercise": self.exercise,
            "refresh": self.refresh,
            "evict": self.evict,
            "quarantine": self.quarantine,
            "release": self.release,
            "adopt": self.adopt,
            "disown": self.disown,
        }

    # ── checks and records ─────────────────────────────────────────────────────────────────────────────

    def _fleet(self, name: str) -> tuple[Fleet, WarmPool]:
        fleets = self._daemon.fleets.by_name
        if name not in fleets:
            raise ChangeRefusedError(unknown_fleet(name, fleets.keys()))
        return fleets[name], self._daemon.warm_pools.by_name[name]

    def _vms(self, fleet: Fleet, ids: Sequence[str]) -> list[TrackedVm]:
        if not ids:
            raise ChangeRefusedError("no VM is named")
        unknown = [i for i in ids if i not in fleet.inventory.vms]
        if unknown:
            raise ChangeRefusedError(
                f"{fleet.name} has no VM {', '.join(unknown[:5])}; `autoscaler pool list --fleet {fleet.name}` shows them"
            )
        return [fleet.inventory.vms[i] for i in ids]

    async def _record(self, kind: str, word: PoolCommand, what: str) -> None:
        reason = word.reason
        if not reason.strip() or len(reason) > LONGEST_REASON or not reason.isprintable():
            raise ChangeRefusedError(
                f"a reason is needed, one line of 1 to {LONGEST_REASON} characters, for those who read it later"
            )
        note = Note(kind, word.fleet, f"{word.who} {what} ({reason})")
        daemon = self._daemon
        await daemon.recorder.changes(daemon.clock.now(), (), [note], lambda _: None)
        daemon.telemetry.log.info("operator", fleet=note.fleet, kind=note.kind, text=note.text)

    async def _keep(self) -> str:
        """Store the requests on pools; return a sentence for people if that fails, else ""."""
        if await self._daemon.keeping.keep_asked(self._daemon.clock.now()):
            return ""
        return " But it could not be written to the journal, so it may not outlive the daemon."

    async def _tag(self, fleet: Fleet, ids: Sequence[str], tags: dict[str, str]) -> str:
        """Write tags; return, for people, why some could not be written, else ""."""

        async def call() -> tuple[Outcome, ...]:
            return await fleet.provider.tag(ids, tags)

        try:
            outcomes = await within(call, _TAG_WITHIN_S)
        except TimeoutError:
            return f"no answer within {_TAG_WITHIN_S:g} s"
        except Exception as error:  # noqa: BLE001  the operator is told, and the daemon continues
            return f"{type(error).__name__}: {error}"
        failed = [o for o in outcomes if o.kind is not OutcomeKind.ACCEPTED]
        return f"{failed[0].vm_id} {failed[0].code} {failed[0].message}".strip() if failed else ""


def _lost(why: str) -> str:
    """Say that a quarantine ends with the daemon because its tag could not be written; "" if it was."""
    tag = QUARANTINED_TAG
    return (
        f" But the tag {tag} could not be written ({why}), so it does not outlive the daemon: try again."
        if why
        else ""
    )


def _shadow(fleet: Fleet) -> str:
    """Say that nothing really happens in a fleet in shadow; "" if it acts."""
    return "" if fleet.policy.act else f" {_IN_SHADOW.format(fleet.name)}."


def _must_act(fleet: Fleet) -> None:
    """Refuse what would only be a tag on VMs, because in shadow no tag is written."""
    if not fleet.policy.act:
        raise ChangeRefusedError(
            f"{_IN_SHADOW.format(fleet.name)}: set `act: true` first, or change the tag {FLEET_TAG} of the VMs yourself"
        )


def _named(word: PoolCommand) -> None:
    if not word.vms:
        raise ChangeRefusedError("no VM is named")
