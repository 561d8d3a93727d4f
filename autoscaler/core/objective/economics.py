"""Reports the numbers behind the economic stage, so that a decision can say what VMs earn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autoscaler.core.objective.bands import Drivers
from autoscaler.core.objective.models import CAREFUL, MODELS, PRICE_FACTORS, Kind, Window
from autoscaler.core.objective.prepared_law import Law, read
from autoscaler.core.types import LAW_BINS, Bool, Float, Horizon, Int, Laws

_HORIZON_OF = {Window.NOW: Horizon.LEAD, Window.SHORT: Horizon.KEEP}
_KEEPS: Int = np.array([_HORIZON_OF.get(model.window, Horizon.HOLD) for model in MODELS], np.int64)
"""int64 (M,), the horizon over which each model keeps VMs; for models without a forecast, the hold window."""
_MULTIPLE: Float = np.array([PRICE_FACTORS[m.knob] if m.kind is Kind.WORTH else 1.0 for m in MODELS])
"""float64 (M,), the multiple of the price of shortage at which each model values work; 1 for models without a forecast."""
_BY_FORECAST = next(at for at, model in enumerate(MODELS) if model.kind is Kind.WORTH)
"""Place in `MODELS` of the model that is named where orders meet a known event."""


@dataclass(slots=True)
class Economics:
    """The numbers behind what the economic stage wants; n of L lanes have an objective.

    Attributes:
        lanes: int64 (n,), the lanes with an objective.
        series: int64 (n,), the series of each lane.
        column: int64 (n,), the column of each lane in `drivers`.
        drivers: The models that drive.
        price: float64 (n,), price of a VM-tick of unserved work, in VM-ticks.
        start_cost: float64 (n,), what a start costs for each tick of the hold window, in VM-ticks.
        capacity: float64 (n,), work per second of one VM.
        ordered: int (n,), VMs in service and on their way.
        low, high: int64 (n,), the stage orders up to `low` VMs, and goes down to `high`.
        laws: The laws in force at the decision.
        by_event: int64 (n,), up to how many VMs are ordered for a known event, by the forecast; 0 where it orders none. None
            if there are none in any lane.
        doubted: int64 (n,), VMs kept for demand that fell suddenly and may return; 0 where there are none. None if
            there are none in any lane.
    """

    lanes: Int
    series: Int
    column: Int
    drivers: Drivers
    price: Float
    start_cost: Float
    capacity: Float
    ordered: Int
    low: Int
    high: Int
    laws: Laws
    by_event: Int | None = None
    doubted: Int | None = None

    def models(self, vms: Int) -> Int:
        """Return the model that drives the last of these VMs, or the first if there are none, as a place in `models.MODELS`: int64 (n,)."""
        vms = np.maximum(vms, 1)
        found = np.where(self.unknown, CAREFUL, self.drivers.of(vms, self.column))
        return found if self.by_event is None else np.where(vms <= self.by_event, _BY_FORECAST, found)

    def worth(self, vms: Int) -> Float:
        """Return what the last of these VMs earns, and what one more would, as a multiple of its cost: float64 (2, n).

        The figures are those that the model driving each VM compares, so a VM that it starts or keeps earns at least its cost,
        and one that it does not earns less. A VM to start is judged by demand at the lead time and bears a part of its start; a
        VM to keep is judged by the highest demand in the model's window. NaN without a forecast.

        Args:
            vms: int64 (n,), numbers of VMs.
        """
        asked = np.stack([np.maximum(vms, 1), np.maximum(vms, 0) + 1])
        models = np.stack([self.models(each) for each in asked])
        # A VM within `low` is worth starting as well as keeping; one above it that is not kept could only be started.
        starting = self.low >= self.ordered
        starts = np.stack([starting | (vms <= self.low), starting | (vms < self.high)])
        horizon = np.where(starts, int(Horizon.LEAD), _KEEPS.take(models))
        row = self.series * len(Horizon) + horizon
        unit, scale, spread, unknown = read(self.laws, self.series, row)
        law = Law(self.laws.excess.reshape(-1), row * (LAW_BINS + 1), unit, scale, spread)
        capacity = self.capacity.astype(np.float32)
        last = asked.astype(np.float32) * capacity
        first = last - capacity
        share = (law.beyond(first) - law.beyond(last)) / capacity
        # Odds are taken to be linear between the middles of bins where VMs are counted, which matters in wide bins.
        np.minimum(np.maximum(share, law.odds(last), out=share), law.odds(first), out=share)
        found: Float = share * (self.price * _MULTIPLE.take(models))
        found /= np.where(horizon == Horizon.LEAD, 1.0 + self.start_cost, 1.0)
        found[unknown] = np.nan
        return found

    @property
    def unknown(self) -> Bool:
        """Whether there is no forecast, so that the careful model drives: bool (n,)."""
        found: Bool = np.isnan(self.laws.level[self.series, int(Horizon.LEAD)])
        return found
