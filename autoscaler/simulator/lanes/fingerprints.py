"""Digests of decisions: runs that decided alike in every tick have equal digests, however they were computed.

A lane's digest covers the integers of each tick (desired, starts, stops, provisions) in time order. The integers of a tick
are mixed into a word of 32 bits, and the words are the coefficients of a polynomial modulo 2^64 (Karp and Rabin 1987), kept
as one number per lane. So the digest can be streamed, costs a few operations per block, and the digests of adjoining
segments join to that of the uncut run, to the bit. It tells runs apart that differ by accident. It is not secure against
constructed collisions.

Rules of this file: wrapping unsigned integers only, which are exact in any order of addition.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from autoscaler.core.types import SmallInt
from autoscaler.simulator.judging.summing import rows_together

_BASE = 0x9E37_79B9_7F4A_7C15
_WEIGHTS = tuple(np.uint32(w) for w in (0x9E37_79B1, 0x85EB_CA77, 0xC2B2_AE3D, 0x27D4_EB2F))
"""Odd, so that multiplying by them loses no information."""
_WORD = 2**64


class Fingerprints:
    """Running digests of L lanes.

    Attributes:
        words: uint64 (L,), the value of the polynomial over the ticks so far.
        ticks: Number of ticks so far.
    """

    __slots__ = ("_room", "_terms", "_together", "ticks", "words")

    def __init__(self, lanes: int) -> None:
        self.words: NDArray[np.uint64] = np.zeros(lanes, np.uint64)
        self.ticks = 0
        self._together = rows_together(lanes)
        self._room: NDArray[np.uint32] = np.empty((2, self._together, lanes), np.uint32)
        self._terms: NDArray[np.uint64] = np.empty((self._together, lanes), np.uint64)

    def add(
        self, desired: SmallInt, starts: SmallInt, stops: SmallInt, provisions: SmallInt | None = None
    ) -> None:
        """Add ticks, in time order.

        Args:
            desired: int32 or int16 (n, L), not negative, like the other counts.
            starts: int (n, L).
            stops: int (n, L).
            provisions: int (n, L); None if no lane has any.
        """
        count = len(desired)
        powers = _powers(count)[:, np.newaxis]
        arrays = (desired, starts, stops) if provisions is None else (desired, starts, stops, provisions)
        self.words *= np.uint64(pow(_BASE, count, _WORD))
        for first in range(0, count, self._together):
            rows = slice(first, min(first + self._together, count))
            self._mix([array[rows] for array in arrays], powers[rows])
        self.ticks += count

    def _mix(self, arrays: Sequence[SmallInt], powers: NDArray[np.uint64]) -> None:
        """Add the rows that these powers belong to."""
        count = len(powers)
        total, part = self._room[:, :count]
        _weighed(arrays[0], _WEIGHTS[0], total)
        for rows, weight in zip(arrays[1:], _WEIGHTS[1:], strict=False):
            _weighed(rows, weight, part)
            total += part
        terms = self._terms[:count]
        np.copyto(terms, total)
        terms *= powers
        self.words += terms[0] if count == 1 else np.add.reduce(terms, axis=0)

    def taken(self, lanes: Iterable[int]) -> Fingerprints:
        """Return the digests of some of the lanes, as a copy."""
        words = self.words[list(lanes)]
        new = Fingerprints(len(words))
        new.words, new.ticks = words, self.ticks
        return new

    def followed_by(self, second: Fingerprints) -> Fingerprints:
        """Return the digests of two adjoining segments joined."""
        new = self.taken(range(len(self.words)))
        new.words *= np.uint64(pow(_BASE, second.ticks, _WORD))
        new.words += second.words
        new.ticks += second.ticks
        return new

    def digests(self) -> tuple[str, ...]:
        """Return the digest of each lane, as 32 hexadecimal digits."""
        return tuple(
            hashlib.blake2b(f"decisions 1 {self.ticks} {word}".encode(), digest_size=16).hexdigest()
            for word in self.words.tolist()
        )


def _weighed(rows: SmallInt, weight: np.uint32, out: NDArray[np.uint32]) -> None:
    """Write counts times a weight, modulo 2^32, to `out`."""
    if rows.dtype.itemsize == out.dtype.itemsize:
        np.multiply(rows.view(np.uint32), weight, out=out)
        return
    # Two passes are faster than one, in which numpy would widen narrow numbers through a buffer.
    np.copyto(out, rows, casting="unsafe")
    out *= weight


def fingerprint(rows: Iterable[tuple[int, int, int, int]]) -> str:
    """Return the digest of one fleet's ticks, given as (desired, starts, stops, provisions) in time order."""
    table = np.array([*rows], np.int32).reshape(-1, 4)
    one = Fingerprints(1)
    for first in range(0, len(table), 4096):
        part = table[first : first + 4096]
        one.add(*(np.ascontiguousarray(part[:, [column]]) for column in range(4)))
    return one.digests()[0]


@cache
def _powers(count: int) -> NDArray[np.uint64]:
    """Return uint64 (count,), from the highest power of the base down to 1."""
    return np.array([pow(_BASE, count - 1 - at, _WORD) for at in range(count)], np.uint64)
