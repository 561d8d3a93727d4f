"""Shared phrasing of counts and lists in messages, and sanitising of text from outside.

Rules of this file: wording of messages only; it measures nothing and imports nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun: `1 VM`, `3 VMs`; `many` is the plural if it is not `one` with an s."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def some(names: Sequence[str], shown: int = 3) -> str:
    """The first names, and the number of the others: `a, b, c and 4 more`."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def printable(text: str) -> str:
    """Replace control characters in text from outside: a terminal would obey them, and the operator may be root."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
