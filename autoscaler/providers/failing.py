"""Failed provider calls as values, with messages short enough to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from autoscaler.ports import ROOM_FOR_FEWER, Outcome, OutcomeKind

MESSAGE_LIMIT: Final = 400
"""Most characters of a provider's message that are kept: some answers are whole HTML pages."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that was answered with an error, or whose outcome is unknown.

    Attributes:
        kind: The class of the outcome.
        code: The provider's code, `HTTP503` if there was only a status, or one of our own codes.
        message: Message for a person, at most MESSAGE_LIMIT characters.
    """

    kind: OutcomeKind
    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    def of(self, vm_id: str) -> Outcome:
        """The outcome of this failure for one VM."""
        return Outcome(vm_id, self.kind, self.code, self.message)


def made_of(vm_ids: Sequence[str], count: int, why: str = "") -> tuple[Outcome, ...]:
    """The outcomes of a provision of `count` VMs that made these; if they are fewer, there was no room for more.

    Args:
        vm_ids: The VMs that were made; at least one.
        count: How many were requested.
        why: What the provider said about the others; empty if it said nothing.
    """
    accepted = tuple(Outcome(vm_id, OutcomeKind.ACCEPTED) for vm_id in vm_ids)
    if len(accepted) >= count:
        return accepted
    text = f"{len(accepted)} of {count} VMs were made, because there is no room for more"
    message = shorten(f"{text}: {why}") if why else text
    return (*accepted, Outcome("", OutcomeKind.NO_CAPACITY, ROOM_FOR_FEWER, message))


def shorten(message: str) -> str:
    """Collapse a message to one line of at most MESSAGE_LIMIT characters."""
    line = " ".join(message.split())
    return line if len(line) <= MESSAGE_LIMIT else line[: MESSAGE_LIMIT - 1] + "…"
