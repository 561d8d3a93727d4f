"""Values that are the same in many columns are recognised, to the bit."""

from __future__ import annotations

import numpy as np

from autoscaler.core.column_groups import ColumnGroups, one_of


def test_a_number_that_all_columns_have_is_one():
    assert one_of(np.full(5, 3.0)).tolist() == [3.0]
    assert one_of(np.array([3.0, 3.0, 4.0])).tolist() == [3.0, 3.0, 4.0]
    rows = np.array([[1.0, 1.0], [2.0, 2.0]])
    assert one_of(rows).tolist() == [[1.0], [2.0]]
    rows[1, 1] = 3.0
    assert one_of(rows) is rows
    unknown = np.full(2, np.nan)
    assert one_of(unknown) is unknown


def test_what_is_unknown_everywhere_in_a_group_is_the_same_to_the_bit():
    alike = ColumnGroups(np.array([0, 0, 0, 0]))
    rows = np.full((3, 4), np.nan, np.float32)
    assert not alike.hold(rows.astype(np.float64))
    assert alike.hold_bits(rows)
    rows[2, 3] = 1.0
    assert not alike.hold_bits(rows)
