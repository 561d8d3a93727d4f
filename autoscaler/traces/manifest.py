"""Records a trace in the `manifest.csv` beside it, so that its kind need not be given again.

Rules of this file: other rows and columns of the manifest are kept. The file is replaced as a whole.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from autoscaler.errors import TraceError
from autoscaler.traces.reading import MANIFEST
from autoscaler.traces.trace import Trace
from autoscaler.traces.writing import write_whole

_COLUMNS = ["file", "kind", "interval_s"]


def read_manifest(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Return columns and rows of the manifest in a file's folder. Without a manifest, the usual columns and no rows.

    Raises:
        TraceError: The file there is not a manifest, or cannot be read.
    """
    manifest = path.parent / MANIFEST
    if not manifest.is_file():
        return list(_COLUMNS), []
    try:
        text = io.StringIO(manifest.read_text(encoding="utf-8"), newline="")
        reader = csv.DictReader(text, strict=True)
        columns, rows = list(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TraceError(f"{manifest}: the manifest cannot be read: {error}") from None
    if not set(_COLUMNS) <= set(columns) or any(None in row for row in rows):
        raise TraceError(f"{manifest}: this is not a manifest; it needs the columns {', '.join(_COLUMNS)}")
    return columns, rows


def note_in_manifest(path: Path, trace: Trace) -> None:
    """Write a trace's kind and interval into the manifest in the folder of its file.

    Raises:
        TraceError: The file there is not a manifest, or cannot be written.
    """
    columns, rows = read_manifest(path)
    mine = {"file": path.name, "kind": str(trace.kind), "interval_s": f"{trace.interval_s:.12g}"}
    if "rows" in columns:
        mine["rows"] = str(len(trace.values))
    kept = [row for row in rows if row["file"] != path.name]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows([*kept, mine])
    data = text.getvalue().encode()
    write_whole(path.parent / MANIFEST, lambda unfinished: _put(unfinished, data), overwrite=True)


def _put(path: Path, data: bytes) -> None:
    path.write_bytes(data)
