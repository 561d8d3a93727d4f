"""Failed provider calls as values, with messages short enough to read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from autoscaler.ports import Outcome, OutcomeKind

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


def shorten(message: str) -> str:
    """Collapse a message to one line of at most MESSAGE_LIMIT characters."""
    line = " ".join(message.split())
    return line if len(line) <= MESSAGE_LIMIT else line[: MESSAGE_LIMIT - 1] + "…"
