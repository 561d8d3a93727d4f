"""How long each phase of a start took, as the daemon observed it (`core.learned.lead_time` learns from this).

A change that a listing shows happened between it and the previous one, so phases are as exact as listings are frequent. The
total is exact: it begins and ends with what the daemon itself does and sees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from autoscaler.core.learned.lead_time import StartSource
from autoscaler.daemon.vms.tracked import TrackedVm


@dataclass(frozen=True, slots=True)
class MeasuredStart:
    """The durations of one start that came into service, in seconds; NaN for a phase that no listing showed.

    Attributes:
        source: The state that the start began from.
        pending_s: From the order until the cloud began the start.
        running_s: From then until the VM ran.
        ready_s: From then until it served.
        whole_s: From the order until it served.
    """

    source: StartSource
    pending_s: float
    running_s: float
    ready_s: float
    whole_s: float

    @property
    def parts(self) -> tuple[float, ...]:
        """The durations in the order of `core.learned.lead_time.Span`."""
        return self.pending_s, self.running_s, self.ready_s, self.whole_s


def measured(t: TrackedVm, ordered_at_s: float, served_at_s: float) -> MeasuredStart:
    """Return the durations of the start of a VM that now serves."""
    runs_s = t.run.from_s if t.run is not None and t.run.counts_start else math.nan
    pending_s = math.nan if t.pending_at_s is None else t.pending_at_s
    return MeasuredStart(
        source=t.source,
        pending_s=pending_s - ordered_at_s,
        running_s=runs_s - pending_s,
        ready_s=served_at_s - runs_s,
        whole_s=served_at_s - ordered_at_s,
    )
