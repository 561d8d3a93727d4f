"""Values that several architecture tests need."""

import pytest

from autoscaler.core.types import Freshness, Stage
from autoscaler.ports import FleetTick


@pytest.fixture(name="a_tick")
def _a_tick():
    return FleetTick(
        fleet="web", demand=250.0, observed_at_s=0.0, freshness=int(Freshness.FRESH), coverage=0.5, censored=False,
        in_service=3, starting=0, draining=0, stopping=0, stopped=5, provisioned=8, stoppable=3, forecast=250.0,
        forecast_hi=300.0, wish=3, desired=3, start=0, provision=1, stop=0, warm_target=2, capacity=300.0, shortage=0.0,
        cost=0.0, stages=(3,) * len(Stage), reasons=(0,) * len(Stage), sentence="",
    )  # fmt: skip
