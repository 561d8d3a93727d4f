"""A warm pool that knows the law of waits: by hand, and compared with every rule of waits and hours."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.simulator.benchmark.known_law import WAITS_S, law_books
from autoscaler.simulator.benchmark.tables import markdown_text, pool_sentence
from autoscaler.simulator.benchmark.warm_pools import PoolTerms, clairvoyant_books
from tests.simulator.test_benchmark import bout_of

pytest.importorskip("scipy")

TERMS = PoolTerms(tick_s=900.0, provision_s=1800.0, start_s=900.0, stopped_share=0.25)
"""Ticks of a quarter of an hour; making a VM costs two of them, holding one a quarter each."""
HOURS = TERMS.tick_s / 3600.0


def waits_of(wanted: list[int], level: int) -> list[tuple[list[tuple[int, int]], bool]]:
    """Each wait of a level as (bin of the wait, hour) per tick, and whether the level was wanted again."""
    found, waiting, seen, since = [], list[tuple[int, int]](), False, 0
    for tick, want in enumerate(wanted):
        if want >= level:
            found += [(waiting, True)] if waiting else []
            waiting, seen = [], True
        elif seen:
            since = since if waiting else tick
            waited_s = (tick - since) * TERMS.tick_s
            waiting.append((sum(waited_s >= end for end in WAITS_S.tolist()), tick // 4 % 24))
    return found + ([(waiting, False)] if waiting else [])


def by_every_rule(wanted: list[int], most_missed: int | None) -> tuple[float, int]:
    """The cheapest rule of each level in VM-ticks, tried one by one; None allows any number of misses, 0 none."""
    total, missed = 0.0, 0
    for level in range(1, max(wanted) + 1):
        waits = waits_of(wanted, level)
        cells = sorted({cell for wait, _ in waits for cell in wait})
        best = (np.inf, 0)
        for choice in itertools.product((False, True), repeat=len(cells)):
            held = dict(zip(cells, choice, strict=True))
            cost, lost = 0.0, 0
            for wait, again in waits:
                cost += sum(0.25 for cell in wait if held[cell])
                cost += sum(2.0 for a, b in itertools.pairwise(wait) if not held[a] and held[b])
                lost += again and not held[wait[-1]]
            if most_missed is None or lost <= most_missed:
                best = min(best, (cost + 2.0 * lost, lost))
        total, missed = total + best[0], missed + best[1]
    return total, missed


def test_a_wait_that_always_ends_soon_is_held_and_one_that_does_not_is_given_up() -> None:
    # The second VM is away for three ticks, comes back, and then never again.
    wanted = np.array([2, 1, 1, 1, 2, *[1] * 40], np.int64)
    found = law_books(wanted, TERMS, 0, most_missed=0.0)
    assert found is not None
    # Three ticks in hour 0; the second wait is given up in bins and hours that the first did not see.
    assert found.missed == 0
    assert found.cost == pytest.approx(3 * 0.25 * HOURS)
    # Over a whole night it is given up, and made again: that is missed, or made ahead for as much.
    late = np.array([2, *[1] * 40, 2], np.int64)
    missed = law_books(late, TERMS, 0, most_missed=1.0)
    ahead = law_books(late, TERMS, 0, most_missed=0.0)
    assert missed is not None
    assert ahead is not None
    assert (missed.missed, missed.cost) == (1, pytest.approx(2.0 * HOURS))
    assert ahead.missed == 0
    assert missed.cost < ahead.cost < 10.0 * HOURS


def test_what_was_never_wanted_before_is_made_and_not_missed() -> None:
    found = law_books(np.array([1, 1, 4, 4], np.int64), TERMS, 1, most_missed=0.0)
    assert found is not None
    assert (found.missed, found.cost) == (0, pytest.approx(3 * 2.0 * HOURS))


def test_only_scored_ticks_count() -> None:
    wanted = np.array([2, 1, 1, 2, 1, 1, 2], np.int64)
    found = law_books(wanted, TERMS, 5, most_missed=0.0)
    assert found is not None
    assert (found.missed, found.cost) == (0, pytest.approx(0.25 * HOURS))


@given(wanted=st.lists(st.integers(0, 2), min_size=2, max_size=11), scale=st.sampled_from([1, 3]))
@settings(max_examples=60, deadline=None)
def test_no_rule_of_waits_and_hours_is_cheaper(wanted: list[int], scale: int) -> None:
    series = [want for want in wanted for _ in range(scale)]
    first = series.index(max(series))
    # Begin where all levels have been wanted, so that none is new.
    series = series[first:]
    for most_missed, share in ((None, 1.0), (0, 0.0)):
        found = law_books(np.array(series, np.int64), TERMS, 0, most_missed=share)
        assert found is not None
        cost, missed = by_every_rule(series, most_missed)
        assert found.cost == pytest.approx(cost * HOURS, abs=1e-6)
        if share == 0.0:
            assert found.missed == missed == 0
            assert found.cost >= clairvoyant_books(np.array(series, np.int64), TERMS, 0) - 1e-9


def test_where_scipy_is_missing_the_tables_say_nothing_of_a_law() -> None:
    bout = bout_of("a", {"ours": (0.1, 0.2, math.inf), "google": (0.2, 0.3, 0.4)})
    pools = bout.fleets[0].warm_pools
    pools["ours"] = replace(pools["ours"], lawful=None)
    assert "| 1.25 x, 0 missed | - | 8.00 x, 4 missed |" in markdown_text([bout], "ours", "it", ("google",))
    assert "law" not in pool_sentence([bout], "ours")
