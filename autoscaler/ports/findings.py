"""Findings of an examination: one value per question asked, for a person who will act on it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """Severity of a finding, from best to worst."""

    OK = "ok"
    UNKNOWN = "unknown"
    """The question could not be examined; the text says why."""
    WARNING = "warning"
    """It works today, but will cost something on a bad day."""
    PROBLEM = "problem"
    """The daemon cannot do its work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer to one question of an examination.

    Attributes:
        check: Short, stable name of the question.
        level: Severity.
        text: What was found, with numbers.
        fix: What to do; empty if all is well.
        fleet: The fleet it concerns; empty if it concerns all.
    """

    check: str
    level: Level
    text: str
    fix: str = ""
    fleet: str = ""
