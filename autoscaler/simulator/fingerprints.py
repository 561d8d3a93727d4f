"""Digests of decisions: two runs that decided alike in every tick have the same, however they were computed.

A lane's digest covers the integers of each tick (desired, starts, stops, provisions) in time order. It is a polynomial
in those words modulo 2^64 (Karp and Rabin 1987), kept as one number per lane, so it streams, costs a few
operations per block, and adjoining segments join to the bits of the uncut run. It tells runs apart that differ
by accident; it does not withstand somebody who constructs a collision.

Rules of this file: wrapping unsigned integers only, which are exact in any order of addition.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.types import SmallInt

_BASE = 0x9E37_79B9_7F4A_7C15
_WEIGHTS = tuple(
    np.uint64(w)
    for w in (0xBF58_476D_1CE4_E5B9, 0x94D0_49BB_1331_11EB, 0xD6E8_FEB8_6659_FD93, 0xA076_1D64_78BD_642F)
)
_WORD = 2**64


class Fingerprints:
    """Running digests of L lanes.

    Attributes:
        words: uint64 (L,), the polynomial of the ticks so far.
        ticks: How many those are.
    """

    __slots__ = ("_scratch", "ticks", "words")

    def __init__(self, lanes: int) -> None:
        self.words: NDArray[np.uint64] = np.zeros(lanes, np.uint64)
        self.ticks = 0
        self._scratch: NDArray[np.uint64] = np.empty((2, 0, lanes), np.uint64)

    def add(
        self, desired: SmallInt, starts: SmallInt, stops: SmallInt, provisions: SmallInt | None = None
    ) -> None:
        """Add rows in time order.

        Args:
            desired: int32 (n, L), none negative, like the others.
            starts: int32 (n, L).
            stops: int32 (n, L).
            provisions: int32 (n, L); None for none in any lane.
        """
        count = len(desired)
        if self._scratch.shape[1] < count:
            self._scratch = np.empty((2, count, len(self.words)), np.uint64)
        total, part = self._scratch[:, :count]
        np.multiply(desired.view(np.uint32), _WEIGHTS[0], out=total)
        rest = (starts, stops) if provisions is None else (starts, stops, provisions)
        for rows, weight in zip(rest, _WEIGHTS[1:], strict=False):
            np.multiply(rows.view(np.uint32), weight, out=part)
            total += part
        total *= _powers(count)[:, np.newaxis]
        self.words *= np.uint64(pow(_BASE, count, _WORD))
        self.words += np.add.reduce(total, axis=0)
        self.ticks += count

    def taken(self, lanes: Iterable[int]) -> Fingerprints:
        """Those of some of the lanes; shares nothing with these."""
        new = Fingerprints(0)
        new.words, new.ticks = self.words[list(lanes)], self.ticks
        new._scratch = np.empty((2, 0, len(new.words)), np.uint64)
        return new

    def followed_by(self, second: Fingerprints) -> Fingerprints:
        """Those of two adjoining segments."""
        new = self.taken(range(len(self.words)))
        new.words *= np.uint64(pow(_BASE, second.ticks, _WORD))
        new.words += second.words
        new.ticks += second.ticks
        return new

    def digests(self) -> tuple[str, ...]:
        """One per lane: 32 hexadecimal digits."""
        return tuple(
            hashlib.blake2b(f"decisions 1 {self.ticks} {word}".encode(), digest_size=16).hexdigest()
            for word in self.words.tolist()
        )


def fingerprint(rows: Iterable[tuple[int, int, int, int]]) -> str:
    """The digest of one fleet's ticks, given as (desired, starts, stops, provisions) in time order."""
    table = np.array([*rows], np.int32).reshape(-1, 4)
    one = Fingerprints(1)
    for first in range(0, len(table), 4096):
        part = table[first : first + 4096]
        one.add(*(np.ascontiguousarray(part[:, [column]]) for column in range(4)))
    return one.digests()[0]


@cache
def _powers(count: int) -> NDArray[np.uint64]:
    """uint64 (count,), from the highest power of the base down to 1."""
    return np.array([pow(_BASE, count - 1 - at, _WORD) for at in range(count)], np.uint64)
