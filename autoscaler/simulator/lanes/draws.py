"""Random numbers for simulated fleets: counter-based streams, addressed by key and never consumed in sequence.

Rules of this file: a draw is addressed by (seed, fleet, purpose, index, place). No position in a stream is remembered, so
asking for one more draw, in another order, for another setting or in another number of lanes shifts nothing. All variants of
a sweep face the same luck (common random numbers; Law, Simulation Modeling and Analysis, 2015, section 11.2). The generator
is Philox (Salmon et al. 2011), whose streams are prefix-stable: the first n draws are the same however many are asked for.
"""

from __future__ import annotations

import hashlib
from enum import IntEnum

import numpy as np

from autoscaler.core.types import Float

FURTHEST_NORMAL = 4.0
"""Normal draws are clipped to plus or minus this many standard deviations, so that every duration has a longest value."""


class Purpose(IntEnum):
    """What a draw is for; part of its address, so the values must never be renumbered."""

    START = 1
    PROVISION = 2
    START_FAILS = 3
    START_STUCK = 4
    PROVISION_STUCK = 5
    DRY_SPELL = 6
    METRIC_LOSS = 7
    VARIANT = 8
    BOOTSTRAP = 9
    WORLD = 10


class Luck:
    """All random streams of one fleet.

    Args:
        seed: Zero or more; all draws follow from it.
        fleet: Name of the fleet; two fleets have independent draws from the same seed.
    """

    def __init__(self, seed: int, fleet: str) -> None:
        if seed < 0:
            raise ValueError(f"a seed must be zero or more, not {seed}")
        digest = hashlib.blake2b(fleet.encode(), digest_size=8).digest()
        self._key = [seed, int.from_bytes(digest, "big")]

    def _stream(self, purpose: Purpose, index: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=self._key, counter=[0, 0, index, int(purpose)]))

    def uniforms(self, purpose: Purpose, index: int, count: int) -> Float:
        """Return float64 (count,) in [0, 1): the first `count` draws of the stream with this address."""
        return self._stream(purpose, index).random(count)

    def normals(self, purpose: Purpose, index: int, count: int) -> Float:
        """Return float64 (count,), standard normal draws clipped to +-FURTHEST_NORMAL."""
        return np.clip(self._stream(purpose, index).standard_normal(count), -FURTHEST_NORMAL, FURTHEST_NORMAL)

    def exponentials(self, purpose: Purpose, index: int, count: int) -> Float:
        """Return float64 (count,), exponential draws with mean 1."""
        return self._stream(purpose, index).standard_exponential(count)
