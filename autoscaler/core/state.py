"""What `decide` remembers between ticks: struct of arrays over lanes, allocated once, updated in place."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from autoscaler.core import windows
from autoscaler.core.params import LaneParams
from autoscaler.core.types import Float, Int, SmallInt

_VERSION = 1
_LONG_AGO_S = -1e18


@dataclass(slots=True)
class LaneState:
    """Attributes, all over L lanes.

    Attributes:
        wishes: int32 (SLOTS, L) and wish_bucket: int64 (L,), rolling maximum of wishes (stabilisation).
        peaks: int32 (SLOTS, L) and peak_bucket: int64 (L,), rolling maximum of desired (warm pool).
        wish_grid, peak_grid: int64 (2, L), how those windows are cut; from the parameters, kept here because
            they are needed every tick.
        last_out_s: float64 (L,), last order of a scale-out.
        last_in_s: float64 (L,), last scale-in.
        last_starting_s: float64 (L,), last tick in which an ordered VM was not yet in service.
        tokens_out, tokens_in: float64 (L,), VMs that the rate limits still allow.
        refilled_s: float64 (L,), when the tokens were last refilled.
    """

    wishes: SmallInt
    wish_bucket: Int
    peaks: SmallInt
    peak_bucket: Int
    wish_grid: Int
    peak_grid: Int
    last_out_s: Float
    last_in_s: Float
    last_starting_s: Float
    tokens_out: Float
    tokens_in: Float
    refilled_s: Float

    @classmethod
    def empty(cls, params: LaneParams) -> LaneState:
        """A state without history: full token buckets, no cooldown running."""
        lanes = len(params.series)
        wishes, wish_bucket = windows.empty(lanes)
        peaks, peak_bucket = windows.empty(lanes)
        return cls(
            wishes=wishes,
            wish_bucket=wish_bucket,
            peaks=peaks,
            peak_bucket=peak_bucket,
            wish_grid=windows.grid(params.stabilisation_ticks),
            peak_grid=windows.grid(params.warm_memory_ticks),
            last_out_s=np.full(lanes, _LONG_AGO_S),
            last_in_s=np.full(lanes, _LONG_AGO_S),
            last_starting_s=np.full(lanes, _LONG_AGO_S),
            tokens_out=params.rate_out_vms.copy(),
            tokens_in=params.rate_in_vms.copy(),
            refilled_s=np.full(lanes, _LONG_AGO_S),
        )

    def copy(self) -> LaneState:
        """A state that shares nothing with this one."""
        return LaneState(*(getattr(self, f.name).copy() for f in fields(self)))

    def carried_over(self, before: LaneParams, after: LaneParams, columns: Int) -> LaneState:
        """The state for other lanes, each of which may have been a lane of these; this one is not changed.

        Args:
            before: The parameters that this state was made with.
            after: Those of the other lanes, N of them.
            columns: int64 (N,), the lane that each was; -1 for one that is new and so starts without history.
        """
        new = LaneState.empty(after)
        known = columns >= 0
        was = columns[known]
        new.wishes, new.wish_bucket = windows.carried_over(
            self.wishes,
            self.wish_bucket,
            columns=columns,
            before_ticks=before.stabilisation_ticks,
            after_ticks=after.stabilisation_ticks,
        )
        new.peaks, new.peak_bucket = windows.carried_over(
            self.peaks,
            self.peak_bucket,
            columns=columns,
            before_ticks=before.warm_memory_ticks,
            after_ticks=after.warm_memory_ticks,
        )
        for name in ("last_out_s", "last_in_s", "last_starting_s", "tokens_out", "tokens_in", "refilled_s"):
            getattr(new, name)[known] = getattr(self, name)[was]
        # A bucket that has become smaller holds no more than it can.
        new.tokens_out = np.minimum(new.tokens_out, after.rate_out_vms)
        new.tokens_in = np.minimum(new.tokens_in, after.rate_in_vms)
        return new

    def dump(self) -> dict[str, Float | Int | SmallInt | int]:
        """All fields and a version, for `restore`."""
        return {"version": _VERSION} | {f.name: getattr(self, f.name).copy() for f in fields(self)}

    @classmethod
    def restore(cls, dumped: dict[str, Float | Int | SmallInt | int]) -> LaneState:
        """The state that was dumped.

        Raises:
            ValueError: If it was dumped by another version.
        """
        if dumped["version"] != _VERSION:
            msg = f"lane state version {dumped['version']} cannot be read, only {_VERSION}"
            raise ValueError(msg)
        return cls(*(np.array(dumped[f.name]) for f in fields(cls)))
