"""The odds that waits end within the hour: a group without observations takes them from all groups."""

from __future__ import annotations

import numpy as np
import pytest

from autoscaler.core.warm.returns import FRESH, GROUPS, HITS, WAITS
from autoscaler.core.warm.wait_odds import FEW, Law


def law_of(counts, lanes=1):
    """The law of the next hour where one group has seen so many waits of each bin end and so many asked."""
    shape = GROUPS, WAITS, HITS, lanes
    law = Law(*(np.zeros(shape, np.float32) for _ in range(4)))
    for wait, (ended, asked) in counts.items():
        cells = np.arange(shape[-1]) + ((1 * WAITS + wait) * HITS + 0) * lanes
        law.note_ended(np.repeat(cells, ended))
        law.note_asked(np.repeat(cells, asked), np.ones(asked * lanes, np.float32))
    # What is noted counts from the next hour on.
    law.begin_hour(1.0, range(1, 3))
    law.begin_hour(1.0, range(1, 3))
    law.settle()
    return law


@pytest.mark.parametrize("lanes", [1, FEW])
@pytest.mark.parametrize("wait", [0, FRESH - 1, FRESH, WAITS - 1])
@pytest.mark.parametrize(("ended", "asked"), [(200, 1800), (1000, 1000), (1800, 200)])
def test_a_group_that_has_seen_nothing_goes_by_what_all_have_seen(ended, asked, wait, lanes):
    counts = {wait: (ended, asked)}
    if wait < FRESH:
        # Of waits of less than an hour, only those that outlast the last bin are asked.
        counts = {wait: (ended, 0), FRESH - 1: (ended * (wait == FRESH - 1), asked)}
    law = law_of(counts, lanes)
    assert ((law.odds >= 0.0) & (law.odds < 1.0)).all()
    assert ((law.lasts >= 0.0) & (law.lasts <= 1.0)).all()
    np.testing.assert_allclose(law.odds[2, wait, 0], law.odds[1, wait, 0], rtol=0.05)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_asked_of_many_lanes_is_computed_alone_as_among_all(seed):
    rng = np.random.default_rng(seed)
    shape = GROUPS, WAITS, HITS, FEW
    counts = np.zeros((2, *shape), np.float32)
    counts[:, 1:4] = rng.integers(0, 50, (2, 3, *shape[1:]))
    alone, among_all = (Law(*counts.copy(), *np.zeros((2, *shape), np.float32)) for _ in range(2))
    for law in (alone, among_all):
        law.begin_hour(0.5, range(1, 4))
    cells = rng.choice(np.arange(WAITS * HITS, 4 * WAITS * HITS), 12, replace=False)
    alone.ensure_known(cells)
    among_all.settle()
    for asked, told in ((alone.odds, among_all.odds), (alone.lasts, among_all.lasts)):
        np.testing.assert_array_equal(asked.reshape(-1, FEW)[cells], told.reshape(-1, FEW)[cells])
