"""Failed provider calls as values, with messages short enough to read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from autoscaler.ports import Outcome, OutcomeKind

MESSAGE_LIMIT: Final = 400
"""Characters of a provider's message that are kept: an HTML page is not a message for a person."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that was answered with an error, or whose answer is not known.

    Attributes:
        kind: What it means.
        code: The provider's own code or one that the daemon knows, `HTTP503` where there was only a status, or a code of ours.
        message: For a person, at most MESSAGE_LIMIT characters.
    """

    kind: OutcomeKind
    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    def of(self, vm_id: str) -> Outcome:
        """The outcome for one VM."""
        return Outcome(vm_id, self.kind, self.code, self.message)


def shorten(message: str) -> str:
    """One line of at most MESSAGE_LIMIT characters."""
    line = " ".join(message.split())
    return line if len(line) <= MESSAGE_LIMIT else line[: MESSAGE_LIMIT - 1] + "…"
