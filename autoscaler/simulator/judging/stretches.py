"""Sums one long lane by cutting it into stretches that are summed in parallel.

A tick of one lane costs numpy as much as a tick of a hundred. So a block of one lane is cut into about as many stretches as
each stretch has cells. They are summed as lanes and joined; `Sums.followed_by` gives the same bits as an uncut run.
"""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import numpy as np

from autoscaler.simulator.judging.block import Block
from autoscaler.simulator.judging.ledger import Sums, grid_ticks


def sums_of_one(block: Block, vm_capacity: float) -> Sums:
    """Return the sums over all rows of a block.

    Args:
        block: A block of one lane with all figures tick by tick and no totals.
        vm_capacity: Work per second of one VM at the objective.
    """
    ticks, grid = len(block.desired), grid_ticks(block.tick_s)
    stretches = max(math.isqrt(ticks // grid), 1)
    length = ticks // grid // stretches * grid
    whole = stretches * length
    sums = Sums(block.tick_s, np.full(stretches, vm_capacity))
    sums.add(_beside(block, stretches, length))
    joined = sums.taken(slice(0, 1))
    for at in range(1, stretches):
        joined = joined.followed_by(sums.taken(slice(at, at + 1)))
    rest = Sums(block.tick_s, np.array([vm_capacity]))
    rest.add(block, slice(whole, None))
    return joined.followed_by(rest)


def _beside(block: Block, stretches: int, length: int) -> Block:
    """Return the first rows of a one-lane block as lanes, one per stretch of `length` ticks."""
    parts: dict[str, Any] = {field.name: getattr(block, field.name) for field in fields(Block)}
    for name, rows in parts.items():
        if isinstance(rows, np.ndarray):
            cut = rows[: stretches * length].reshape(stretches, length)
            parts[name] = np.ascontiguousarray(cut.T)
    return Block(**parts)
