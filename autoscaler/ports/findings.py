"""Findings of an examination: one value per question asked, for a person who will act on it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad a finding is; ordered from best to worst."""

    OK = "ok"
    UNKNOWN = "unknown"
    """Could not be examined; the text says why."""
    WARNING = "warning"
    """Works today, and will cost something on a bad day."""
    PROBLEM = "problem"
    """The daemon cannot do its work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer to one question.

    Attributes:
        check: What was asked, a short name that stays the same.
        level: How bad it is.
        text: What was seen, with numbers.
        fix: What to do; empty where all is well.
        fleet: Whom it concerns; empty where it concerns all.
    """

    check: str
    level: Level
    text: str
    fix: str = ""
    fleet: str = ""
