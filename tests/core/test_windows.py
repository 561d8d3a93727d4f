"""The rolling maximum against a plain one that keeps everything."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.core import windows


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 200), min_size=4, max_size=4),
    st.lists(st.tuples(st.integers(1, 70), st.integers(0, 50), st.booleans()), min_size=1, max_size=120),
)
def test_it_is_the_maximum_of_at_least_the_window_and_at_most_a_bucket_more(lengths, pushes):
    window = np.array(lengths)
    rolling = windows.RollingMax.empty(window)
    tick, seen = 1_000, []
    for step, value, known in pushes:
        tick += step if step > 60 else 1  # mostly every tick, now and then a long gap
        if known:
            seen.append((tick, value))
        got = rolling.push_and_max(tick, np.full(4, value), np.full(4, known))
        for lane, length in enumerate(np.maximum(window, 1)):
            per_bucket = 1 if length <= windows.SLOTS else -(-length // (windows.SLOTS - 1))
            least = max([v for t, v in seen if t > tick - length], default=0)
            most = max([v for t, v in seen if t > tick - length - 2 * per_bucket], default=0)
            if per_bucket == 1:
                assert got[lane] == least
            else:
                assert least <= got[lane] <= most
