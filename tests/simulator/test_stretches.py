"""One long lane summed in stretches has the sums of the uncut lane, to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from autoscaler.simulator.judging.ledger import Sums
from autoscaler.simulator.judging.stretches import sums_of_one
from tests.simulator.test_ledger import TICK_S, VM, assert_same, random_block


@pytest.mark.parametrize("ticks", [1, 63, 64, 65, 255, 256, 257, 1000, 64 * 64, 64 * 64 + 17])
@pytest.mark.parametrize("gaps", [0.0, 0.2])
def test_stretches_come_to_the_bits_of_the_uncut_lane(ticks: int, gaps: float) -> None:
    block = random_block(ticks, ticks, 1, gaps=gaps)
    whole = Sums(TICK_S, np.array([VM]))
    whole.add(block)
    assert_same(whole, sums_of_one(block, VM))
