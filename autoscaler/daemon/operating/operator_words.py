"""Describes pauses and overrides: for answers to commands, the status, the log and the journal.

Rules of this file: pure functions. A text names what happens and until when, then who ordered it and why.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from itertools import groupby

from autoscaler.ports import ALL_FLEETS, PAUSABLE, ChangeRecord, OperatorChange, Verb
from autoscaler.words import counted

_DONE = {
    Verb.START: "started",
    Verb.PROVISION: "provisioned",
    Verb.STOP: "stopped",
    Verb.REFILL: "made for the warm pool",
}
_NOUNS = {
    Verb.START: "starts",
    Verb.PROVISION: "provisioning",
    Verb.STOP: "stops",
    Verb.REFILL: "refills",
}


def where(fleet: str) -> str:
    """Name a fleet, or all fleets."""
    return "any fleet" if fleet == ALL_FLEETS else fleet


def end_in_words(expires_at_s: float | None) -> str:
    """Say when a change ends by itself."""
    return "until an operator ends it" if expires_at_s is None else f"until {time(expires_at_s)}"


def time(at_s: float) -> str:
    """Format a time in UTC."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def nouns(verbs: Iterable[Verb]) -> str:
    """Name what is paused: `starts, provisioning and stops`."""
    named = set(verbs)
    return _listed([_NOUNS[verb] for verb in PAUSABLE if verb in named], "and")


def effect(verbs: Iterable[Verb], change: OperatorChange) -> str:
    """Say what a pause means: `nothing is stopped in web end_in_words …`."""
    named = set(verbs)
    done = _listed([_DONE[verb] for verb in PAUSABLE if verb in named], "or")
    return f"nothing is {done} in {where(change.fleet)} {end_in_words(change.expires_at_s)}"


def goes_on(verbs: Iterable[Verb]) -> str:
    """Say what a pause leaves alone; empty if that is nothing."""
    named = set(verbs)
    if Verb.PROVISION in named:
        # A refill is a kind of provisioning.
        named.add(Verb.REFILL)
    left = nouns(verb for verb in PAUSABLE if verb not in named)
    return f"{left} {'goes' if left == _NOUNS[Verb.PROVISION] else 'go'} on" if left else ""


def bounds(change: OperatorChange) -> str:
    """Say what an override means: `from 4 to 9 VMs are wanted in web end_in_words …`."""
    if change.floor is not None and change.ceiling is not None:
        count = f"from {change.floor} to {change.ceiling} VMs are"
    elif change.floor is not None:
        count = f"at least {counted(change.floor, 'VM is', 'VMs are')}"
    else:
        count = f"at most {counted(change.ceiling or 0, 'VM is', 'VMs are')}"
    return f"{count} wanted in {change.fleet} {end_in_words(change.expires_at_s)}"


def standing(change: OperatorChange, verbs: Iterable[Verb] = ()) -> str:
    """Describe one pause or override in force, with who made it and why."""
    what = bounds(change) if change.verb is None else effect(verbs or (change.verb,), change)
    return f"{what} ({change.who}: {change.reason})"


def in_force(records: Sequence[ChangeRecord], fleets: Collection[str]) -> list[str]:
    """Describe everything in force, in one sentence per command and fleet.

    Args:
        records: The changes in force.
        fleets: The names of the policies in use; sentences about other fleets say that the change has no effect.
    """

    def together(record: ChangeRecord) -> tuple[object, ...]:
        change = record.change
        kind = change.verb is None
        return record.at_s, change.fleet, kind, change.who, change.reason, change.expires_at_s or 0.0

    said = []
    for _, group in groupby(sorted(records, key=together), key=together):
        changes = [record.change for record in group]
        verbs = [change.verb for change in changes if change.verb is not None]
        said.append(standing(changes[0], verbs) + without_effect(changes[0], fleets))
    return said


def without_effect(change: OperatorChange, fleets: Collection[str]) -> str:
    """Say that a change has no effect, and why; empty if it has one."""
    if change.fleet == ALL_FLEETS or change.fleet in fleets:
        return ""
    return f"; without effect, since no policy in use is for {change.fleet}"


def unknown_fleet(name: str, fleets: Collection[str]) -> str:
    """Say that there is no such fleet, and name the nearest one."""
    near = difflib.get_close_matches(name, fleets, 1)
    hint = f"did you mean {near[0]}?" if near else f"known are: {', '.join(sorted(fleets)) or 'none'}"
    return f"no policy in use is for a fleet {name}; {hint}"


def _listed(words: Sequence[str], last: str) -> str:
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"
