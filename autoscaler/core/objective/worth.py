"""How many VMs earn more than they cost, read from a predictive distribution.

The k-th VM of capacity c serves `W_k = (E[(D - (k-1)c)+] - E[(D - kc)+]) / c` of a VM's work, so at a price p of unserved work it is
worth p * W_k VM-ticks per tick. W decreases in k, so the VMs that earn more than a price can be counted directly: the newsvendor's rule
for whole VMs, which loses nothing to rounding in small fleets.

`inversion` finds the demand that is exceeded with the break-even odds, and one more VM is weighed by all the work that it would serve. For
few distributions (many lanes on the same series, or few lanes), they are computed in full, for a whole page of ticks if there is one;
the answers are bit-identical. Everything is in 32 bits, as distributions are stored: most of a tick's time is passes over such numbers.

Rules of this file: element-wise only, no state. A distribution is unknown if its level is NaN; no VM is worth anything there.
"""

from __future__ import annotations

import numpy as np

from autoscaler.core.column_groups import ColumnGroups
from autoscaler.core.law_grid import LawPage
from autoscaler.core.objective.inversion import Last, Table
from autoscaler.core.objective.prepared_law import Law, read
from autoscaler.core.rules import ROUNDING
from autoscaler.core.types import LAW_BINS, MOST_VMS, Bool, Float, Horizon, Int, Laws, SmallFloat

MOST_TABLED, MOST_PAGED = 64, 256
"""Up to this many laws, of one tick and of a page, are tabulated in full. For more, searching for the answers is faster."""
_ONE, _LAST_VM, _ROUNDING = (np.float32(number) for number in (1.0, MOST_VMS - 1.0, ROUNDING))


class Worth:
    """Evaluates what VMs are worth under the laws of L lanes.

    Args:
        series: int64 (L,), the series of each lane.
        capacity: float64 (L,), work per second of one VM.
        horizons: The law of each of Q questions; several questions may ask about one law.
        most_tabled: Up to this many laws are tabulated in full.

    Attributes:
        series, capacity: As given.
    """

    def __init__(
        self, series: Int, capacity: Float, horizons: tuple[Horizon, ...], most_tabled: int = MOST_TABLED
    ) -> None:
        self.series, self.capacity, self._capacity = series, capacity, capacity.astype(np.float32)
        asked = tuple(dict.fromkeys(horizons))
        times = len(horizons) // len(asked)
        if horizons != tuple(horizon for horizon in asked for _ in range(times)):
            asked, times = horizons, 1
        self._questions = len(horizons), len(series)
        # Questions are arranged as laws x times x lanes, so that what depends on the law alone is computed
        # once.
        self._shape = len(asked), times, len(series)
        self._row = (series * len(Horizon) + np.array(asked, np.int64)[:, np.newaxis])[:, np.newaxis]
        self._base = self._row * (LAW_BINS + 1)
        self._kinds, self._each_most = ColumnGroups(series, capacity), 0
        self._last: Last | None = None
        series_groups = ColumnGroups(series)
        few = len(asked) * len(series_groups.first) <= most_tabled
        self._table = Table(series_groups, series, asked, self._shape) if few else None
        self._horizons = horizons
        self._by_page: dict[int, Worth] = {}

    def vms(self, laws: Laws, share: Float) -> Int:
        """Return how many VMs serve at least a share of their work: int64 (Q, L).

        Args:
            laws: The laws of all series.
            share: float64 (Q, L), least share of its work that a VM must serve, 0..1; above 1 for no VM.
        """
        wanted = share.astype(np.float32).reshape(self._shape)
        if self._table is not None:
            law, unknown = self._table.read(laws)
            reached = self._table.reached(law, wanted)
        else:
            law, unknown = self._read(laws)
            if self._last is None:
                self._last = Last(self._row, self._shape)
            count, around = self._last.around(law, wanted)
            reached = around.reached(count, wanted)
        surely = reached
        surely /= self._capacity
        surely += _ROUNDING
        np.floor(surely, out=surely)
        np.minimum(surely, _LAST_VM, out=surely)
        # The next VM reaches across that demand, so it is judged by all the work that it would serve.
        surely += self._work_of_next(law, surely) >= wanted * self._capacity
        if np.count_nonzero(unknown):
            surely *= ~unknown
        found: Int = surely.astype(np.int64).reshape(self._questions)
        return found

    def vms_of_page(self, page: LawPage, share: Float, first: int = 0, ticks: int | None = None) -> Int:
        """Return the answers of `vms` for several ticks of a page at once: int64 (T, Q, L).

        Args:
            page: Laws of consecutive ticks.
            share: As in `vms`, the same at all ticks.
            first: The first tick, as a row of the page.
            ticks: How many; all from `first` on by default.
        """
        each = len(page.laws.scale) // page.ticks
        if ticks is None:
            ticks = page.ticks - first
        by_page = self._by_page.get(ticks)
        if by_page is None:
            series = self.series + np.arange(ticks)[:, np.newaxis] * each
            capacity = np.tile(self.capacity, ticks)
            by_page = self._by_page[ticks] = Worth(series.reshape(-1), capacity, self._horizons, MOST_PAGED)
        some = slice(first * each, (first + ticks) * each)
        of = page.laws
        laws = (
            of
            if ticks == page.ticks
            else Laws(of.level[some], of.spread[some], of.scale[some], of.excess[some])
        )
        found = by_page.vms(laws, np.tile(share, ticks)).reshape(len(share), ticks, -1)
        return found.swapaxes(0, 1).copy()

    def _work_of_next(self, law: Law, vms: SmallFloat) -> SmallFloat:
        """Return the work per second that one more VM than `vms` would serve: float32 (laws, times, lanes)."""
        kinds, most = len(self._kinds.first), 0
        if self._kinds.few:
            most = int(vms.max()) + 2
        if not most or most * kinds > 2 * self._shape[1] * self._shape[2]:
            ends = np.empty((2, *vms.shape), np.float32)
            ends[0] = vms
            np.add(vms, _ONE, out=ends[1])
            ends *= self._capacity
            beyond = law.beyond(ends)
            served: SmallFloat = beyond[0] - beyond[1]
            return served
        # If many lanes differ in few series and capacities, every number of VMs is evaluated once per kind
        # and looked up.
        if most != self._each_most:
            self._each_most = most
            each = np.arange(most, dtype=np.float32)[:, np.newaxis] * self._kinds.of_first(self._capacity)
            self._each = np.broadcast_to(each, (self._shape[0], most, kinds))
            self._offset = np.arange(self._shape[0])[:, np.newaxis, np.newaxis] * (kinds * (most - 1))
            self._offset = self._offset + self._kinds.group
        beyond = law.of_kinds(self._kinds).beyond(self._each)
        by_kind = beyond[:, :-1] - beyond[:, 1:]
        at = vms.astype(np.int64)
        at *= kinds
        at += self._offset
        return by_kind.reshape(-1).take(at)

    def share(self, laws: Laws, vms: Int) -> Float:
        """Return the share of its work that the last of these VMs serves: float64 (Q, L); NaN if the law is unknown.

        Args:
            laws: The laws of all series.
            vms: int (Q, L), numbers of VMs, at least 1.
        """
        law, unknown = self._read(laws)
        last = vms.reshape(self._shape).astype(np.float32)
        served = law.beyond((last - _ONE) * self._capacity)
        served -= law.beyond(last * self._capacity)
        served /= self._capacity
        return np.where(unknown, np.nan, served.astype(np.float64)).reshape(self._questions)

    def _read(self, laws: Laws) -> tuple[Law, Bool]:
        """Return the laws of the questions, laws x 1 x lanes, and a mask of those that are unknown."""
        unit, scale, spread, unknown = read(laws, self.series, self._row)
        return Law(laws.excess.reshape(-1), self._base, unit, scale, spread), unknown
