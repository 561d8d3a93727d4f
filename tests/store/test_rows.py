"""The bytes of a tick's rows are those of the structured array that reads them."""

from __future__ import annotations

import math
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.core.types import Stage
from autoscaler.errors import InvariantError
from autoscaler.store import rows
from tests.contracts.test_journal_contract import fleet_tick

FLOATS = st.floats() | st.sampled_from([math.nan, -0.0, math.inf])
COUNTS = st.integers(-(2**63), 2**63 - 1)
TICKS = st.builds(
    lambda demand, cost, wish, floor, stages, reasons, flags: fleet_tick(
        demand=demand,
        cost=cost,
        wish=wish,
        floor=floor,
        stages=tuple(stages),
        reasons=tuple(reasons),
        censored=flags[0],
        may_start=flags[1],
        may_stop=flags[2],
    ),
    FLOATS,
    FLOATS,
    COUNTS,
    COUNTS,
    st.lists(COUNTS, min_size=len(Stage), max_size=len(Stage)),
    st.lists(st.integers(0, 255), min_size=len(Stage), max_size=len(Stage)),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
)


@given(st.lists(TICKS, min_size=1, max_size=4))
def test_rows_are_packed_as_numpy_lays_them_out(ticks):
    dtype = rows.row_dtype(len(Stage))
    laid_out = np.array([tuple(getattr(tick, name) for name in dtype.names) for tick in ticks], dtype)
    assert zlib.decompress(rows.encode(ticks)).endswith(laid_out.tobytes())
    assert rows.numbers(rows.FORMAT, rows.encode(ticks)).tobytes() == laid_out.tobytes()


@pytest.mark.parametrize("wrong", [{"wish": 2**63}, {"freshness": 256}, {"demand": "much"}, {"stop": 1.5}])
def test_what_does_not_fit_is_refused(wrong):
    with pytest.raises(InvariantError, match="cannot store"):
        rows.encode([replace(fleet_tick(), **wrong)])


def test_texts_that_stay_are_put_into_words_once_and_those_that_change_anew():
    first, other = fleet_tick(), fleet_tick(sentence="holding 3")
    heads = [zlib.decompress(rows.encode([tick])) for tick in (first, other, first)]
    assert heads[0] == heads[2]
    (back,) = rows.decode(rows.FORMAT, rows.encode([other]), ["web"], [0])
    assert back.sentence == "holding 3"
