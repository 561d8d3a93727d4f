"""The state that `decide` keeps between ticks: arrays over lanes, allocated once, updated in place."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from autoscaler.core.objective.pricing import Budget
from autoscaler.core.objective.trial import Trial
from autoscaler.core.params import LaneParams
from autoscaler.core.remembered import Remembered
from autoscaler.core.sharing import SharedState
from autoscaler.core.trust_state import TrustState
from autoscaler.core.types import MOST_VMS, Float, Int
from autoscaler.core.warm.starting import Starting
from autoscaler.core.warm.waits import WarmPool
from autoscaler.core.windows import RollingMax

if TYPE_CHECKING:
    from autoscaler.core.decide import Chain

_LONG_AGO_S = -1e18


@dataclass(slots=True)
class LaneState(Remembered):
    """What `decide` remembers of L lanes.

    Attributes:
        wishes: Rolling maximum of wishes (stabilisation).
        peaks: Rolling maximum of desired (warm pool).
        trusted: What is remembered of good data.
        trial: Models that compete, in lanes that have an objective.
        budget: The price of shortage, in lanes that have an objective.
        warm_pool: How often wanted VMs rise, in lanes that have an objective.
        starting: What VMs had to do while they started, in lanes that have an objective and whose VMs may hibernate.
        shared: What is remembered for limits that lanes share.
        last_out_s: float64 (L,), last order of a scale-out.
        last_in_s: float64 (L,), last scale-in.
        last_starting_s: float64 (L,), last tick in which an ordered VM was not yet in service.
        tokens_out, tokens_in: float64 (L,), VMs that the rate limits still allow.
        refilled_s: When the tokens were last refilled.
        chain: The policies as `decide` last compiled them; not remembered.
        spent_out, spent_in: int64 (n,), lanes that hold fewer tokens than they can, some of them more than once; None
            where nobody knows. spent_by: The rule that keeps them. Likewise.
    """

    version: ClassVar[int] = 6
    wishes: RollingMax
    peaks: RollingMax
    trusted: TrustState
    trial: Trial
    budget: Budget
    warm_pool: WarmPool
    starting: Starting
    shared: SharedState
    last_out_s: Float
    last_in_s: Float
    last_starting_s: Float
    tokens_out: Float
    tokens_in: Float
    refilled_s: float
    chain: Chain | None = field(init=False, default=None, compare=False, repr=False)
    spent_out: Int | None = field(init=False, default=None, compare=False, repr=False)
    spent_in: Int | None = field(init=False, default=None, compare=False, repr=False)
    spent_by: object = field(init=False, default=None, compare=False, repr=False)

    @classmethod
    def empty(cls, params: LaneParams) -> LaneState:
        """A state without history: full token buckets, no cooldown running."""
        lanes = len(params.series)
        tokens_out, tokens_in = full_buckets(params)
        return cls(
            wishes=RollingMax.empty(params.stabilisation_ticks),
            peaks=RollingMax.empty(params.warm_memory_ticks),
            trusted=TrustState.empty(lanes),
            trial=Trial.empty(params),
            budget=Budget.empty(params),
            warm_pool=WarmPool.empty(params),
            starting=Starting.empty(params),
            shared=SharedState.empty(params),
            last_out_s=np.full(lanes, _LONG_AGO_S),
            last_in_s=np.full(lanes, _LONG_AGO_S),
            last_starting_s=np.full(lanes, _LONG_AGO_S),
            tokens_out=tokens_out,
            tokens_in=tokens_in,
            refilled_s=_LONG_AGO_S,
        )

    @classmethod
    def parts(cls) -> dict[str, type[Remembered]]:
        """The fields that are states themselves."""
        return {
            "wishes": RollingMax,
            "peaks": RollingMax,
            "trusted": TrustState,
            "trial": Trial,
            "budget": Budget,
            "warm_pool": WarmPool,
            "starting": Starting,
            "shared": SharedState,
        }

    def carried_over(self, after: LaneParams, lanes: Int) -> LaneState:
        """The state for other lanes, each of which may have been a lane of these; this one is not changed.

        Args:
            after: The parameters of the other lanes, N of them.
            lanes: int64 (N,), the lane that each was; -1 for one that is new and so starts without history.
        """
        new = LaneState.empty(after)
        known = lanes >= 0
        was = lanes[known]
        new.wishes = self.wishes.carried_over(after.stabilisation_ticks, lanes)
        new.peaks = self.peaks.carried_over(after.warm_memory_ticks, lanes)
        new.trusted = self.trusted.carried_over(lanes)
        new.trial = self.trial.carried_over(after, lanes)
        new.budget = self.budget.carried_over(after, lanes)
        new.warm_pool = self.warm_pool.carried_over(after, lanes)
        new.starting = self.starting.carried_over(after, lanes)
        new.shared = self.shared.carried_over(after, lanes)
        for name in ("last_out_s", "last_in_s", "last_starting_s", "tokens_out", "tokens_in"):
            getattr(new, name)[known] = getattr(self, name)[was]
        new.refilled_s = self.refilled_s
        # A bucket that has become smaller holds no more than it can.
        full_out, full_in = full_buckets(after)
        new.tokens_out = np.minimum(new.tokens_out, full_out)
        new.tokens_in = np.minimum(new.tokens_in, full_in)
        return new

    def take_in(self, lanes: Int, other: LaneState) -> None:
        """Know what some lanes have learned as another state does, of the same parameters and at the same tick.

        That is what models would have cost, prices, and what waits; what guards remember of orders stays, since those were real.

        Args:
            lanes: int64 (N,), lanes of both.
            other: Not used any more afterwards.

        Raises:
            ValueError: It is of other parameters, or at another tick; then nothing is to be made of this one either.
        """
        self.peaks.take_in(lanes, other.peaks, lanes)
        self.trial.take_in(lanes, other.trial)
        self.budget.take_in(lanes, other.budget)
        self.warm_pool.take_in(lanes, other.warm_pool)
        self.starting.take_in(lanes, other.starting)


def full_buckets(params: LaneParams) -> tuple[Float, Float]:
    """Tokens of full buckets, out and in: float64 (L,) each. No limit is more tokens than there can be VMs."""
    return np.minimum(params.rate_out_vms, float(MOST_VMS)), np.minimum(params.rate_in_vms, float(MOST_VMS))
