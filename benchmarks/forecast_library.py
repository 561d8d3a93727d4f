"""What seasonal naive, AutoETS and AutoTheta of statsforecast forecast on some days of a recording: slow, so it can be kept.

Each is fitted anew on each of some days and carried forward over the day. Nothing of ours changes what they said, so
`python -m benchmarks forecast --against FILE` keeps it in a file, and reads from there what is about the same recordings
and was asked in the same way.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.calibration import timed

Float = NDArray[np.float64]

PEERS = ("SeasonalNaive", "AutoETS", "AutoTheta")
DAYS, ORIGINS, POINTS = 8, 48, 2000
"""Days of each recording on which they are fitted, forecasts on each, and points that they see."""
BANDS = [80, 90, 98]
"""Two-sided bands whose upper ends are, after the mean, the levels of an Outlook."""


@dataclass(frozen=True, slots=True)
class Told:
    """What they said about one recording.

    Attributes:
        origins: Ticks at which they were asked, for `lead` ticks later.
        quantiles: By peer, (N, Q).
        fit_s: By peer, seconds of one fit.
    """

    origins: list[int]
    quantiles: dict[str, list[list[float]]]
    fit_s: dict[str, float]


class Library:
    """Asks statsforecast, or the file that keeps what it said.

    Args:
        kept: The file; None where nothing is kept.
    """

    def __init__(self, kept: Path | None = None) -> None:
        self._file = kept
        self._kept: dict[str, Any] = (
            json.loads(kept.read_text()) if kept is not None and kept.exists() else {}
        )

    def told(self, name: str, demand: Float, first: int, lead: int, day: int) -> Told | None:
        """What they say about a recording; None where it is not kept and the library is not here.

        Args:
            name: Of the recording.
            demand: (T,), NaN where unknown.
            first: The first tick that is judged.
            lead: Ticks that a forecast looks ahead.
            day: Ticks of a day.
        """
        asked = hashlib.sha256(demand.tobytes() + repr((first, lead, day, DAYS, ORIGINS, POINTS)).encode())
        key = f"{name} {asked.hexdigest()[:16]}"
        if key not in self._kept:
            told = _ask(demand, first, lead, day)
            if told is None:
                return None
            self._kept[key] = asdict(told)
            if self._file is not None:
                self._file.write_text(json.dumps(self._kept))
        return Told(**self._kept[key])


def _ask(demand: Float, first: int, lead: int, day: int) -> Told | None:
    try:
        from statsforecast.models import AutoETS, AutoTheta, SeasonalNaive
    except ImportError:
        return None
    season = day if day * 2 < POINTS else 1
    # Seasons longer than the points seen, or than a library bears, are left to the one that only looks back.
    makers: dict[str, Callable[[], Any]] = {
        "SeasonalNaive": lambda: SeasonalNaive(season_length=day),
        "AutoETS": lambda: AutoETS(
            season_length=season if season <= 24 else 1, model="ZZN" if season > 24 else "ZZZ"
        ),
        "AutoTheta": lambda: AutoTheta(season_length=season),
    }
    known = _filled(demand)
    asked: list[int] = []
    quantiles: dict[str, list[list[float]]] = defaultdict(list)
    fit_s: dict[str, list[float]] = defaultdict(list)
    for begin in np.linspace(first, len(known) - lead - day - 1, DAYS).astype(int).tolist():
        origins = begin + np.linspace(0, day - 1, min(ORIGINS, day)).astype(int)
        origins = origins[~np.isnan(demand[origins + lead])]
        asked += origins.tolist()
        for name, make in makers.items():
            back = max(POINTS, 2 * day + 1) if name == "SeasonalNaive" else POINTS
            model = make()
            seen = known[max(0, begin - back) : begin]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fit_s[name].append(timed(lambda model=model, seen=seen: model.fit(seen)))  # type: ignore[misc]
                quantiles[name] += [
                    _issued(model, known[max(0, at + 1 - back) : at + 1], lead) for at in origins
                ]
    return Told(asked, dict(quantiles), {name: float(np.mean(times)) for name, times in fit_s.items()})


def _issued(model: Any, history: Float, lead: int) -> list[float]:
    """Quantiles of a fitted model carried forward to the end of this history."""
    told = model.forward(history, h=lead, level=BANDS)
    high = [told["mean"][-1], *(told[f"hi-{band}"][-1] for band in BANDS)]
    return [max(float(value), 0.0) for value in high]


def _filled(demand: Float) -> Float:
    """The last known value where it is unknown, since the library takes no gaps."""
    at = np.maximum.accumulate(np.where(np.isnan(demand), 0, np.arange(len(demand))))
    return np.nan_to_num(demand[at])
