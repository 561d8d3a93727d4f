"""Reading a million rows of CSV and a million lines of an access log: how long, against peers in the same run.

Peers: pyarrow's CSV reader with the same columns and forms, and a loop of the csv module with fromisoformat.
"""

from __future__ import annotations

import csv
import tempfile
from datetime import datetime
from pathlib import Path

import numpy as np
from pyarrow import csv as arrow_csv

from autoscaler.traces.access_logs import read_access_logs
from autoscaler.traces.reading import read_trace
from autoscaler.traces.trace import TraceKind
from benchmarks.calibration import Result, kernel_s, timed

ROWS = 1_000_000
ROUNDS = 3


def run() -> list[Result]:
    with tempfile.TemporaryDirectory() as folder:
        table, log = Path(folder) / "t.csv", Path(folder) / "access.log"
        _write(table, log)
        ours = _best(lambda: read_trace(table, kind=TraceKind.COUNT))
        arrow = _best(lambda: arrow_csv.read_csv(table))
        plain = _best(lambda: _plain(table))
        lines = _best(lambda: read_access_logs([log], 60.0))
    kernel = kernel_s()
    return [
        Result(
            "read and check 1 M rows of CSV", ours, "s", f"{ours / kernel:,.0f} kernels, best of {ROUNDS}"
        ),
        Result("time of pyarrow / ours", arrow / ours, "x", "it checks neither order, grid nor values"),
        Result("time of csv and fromisoformat / ours", plain / ours, "x", "more is better"),
        Result(
            "count 1 M lines of an access log", lines, "s", f"{lines / kernel:,.0f} kernels, best of {ROUNDS}"
        ),
    ]


def _best(call: object) -> float:
    return min(timed(call) for _ in range(ROUNDS))  # type: ignore[arg-type]


def _write(table: Path, log: Path) -> None:
    counts = np.random.default_rng(1).integers(0, 100_000, ROWS).tolist()
    stamps = np.datetime_as_string((1_600_000_000 + 60 * np.arange(ROWS)).astype("datetime64[s]")).tolist()
    rows = (f"{stamp}Z,{count}\n" for stamp, count in zip(stamps, counts, strict=True))
    table.write_text("timestamp,value\n" + "".join(rows))
    log.write_text(
        "".join(
            f"10.0.0.{at % 250} - - [01/Mar/2026:{at // 180_000:02}:{at // 3000 % 60:02}:{at // 50 % 60:02} +0000] "
            f'"GET /p/{at} HTTP/1.1" 200 {at % 5000} "-" "Mozilla/5.0 (X11; Linux x86_64)"\n'
            for at in range(ROWS)
        )
    )


def _plain(table: Path) -> tuple[list[float], list[float]]:
    with table.open(newline="") as lines:
        reader = csv.reader(lines)
        next(reader)
        rows = [(datetime.fromisoformat(stamp).timestamp(), float(value)) for stamp, value in reader]
    stamps, values = zip(*rows, strict=True)
    return list(stamps), list(values)
