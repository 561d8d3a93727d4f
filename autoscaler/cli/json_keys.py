"""Top-level keys of each command's `--json` output, for the reference.

Rules of this file: names only. Keys may be added; they are renamed or removed only with an entry in the changelog. A test
compares them with the output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FORM = 1
"""Version of every object below that has a `version`, unless the object has a version of its own. Keys may be added without a new one."""


@dataclass(frozen=True, slots=True)
class Printed:
    """The shape of a command's JSON output.

    Attributes:
        keys: Keys of each object.
        form: One object, a list of objects, or one object per line.
        more: More to know about it, as the end of a sentence.
    """

    keys: tuple[str, ...]
    form: Literal["object", "list", "lines"] = "object"
    more: str = ""

    def __str__(self) -> str:
        """Return a sentence for the reference."""
        what = {"object": "one object", "list": "a list of objects", "lines": "an object a line"}[self.form]
        keys = f" with {', '.join(f'`{key}`' for key in self.keys)}" if self.keys else ""
        return f"`--json` prints {what}{keys}{f'; {self.more}' if self.more else ''}."


_RUN = ("version", "conclusion", "identity", "totals", "card", "details")
_SWEPT = ("version", "conclusion", "identity", "card", "details", "sweep")
_WRITTEN = Printed(
    (
        "version",
        "file",
        "kind",
        "interval_s",
        "start",
        "end",
        "rows",
        "missing",
        "censored",
        "digest",
        "notes",
    )
)
_HELD = Printed(("version", "sentences", "changes", "in_force"))
_CHORE = Printed(("version", "sentences"))

JSON_OF: dict[str, Printed] = {
    "benchmark": Printed(("version", "partial", "failed", "levels", "shares", "traces")),
    "check": Printed(("version", "policy", "trace", "holds", "guards")),
    "cloud": Printed(("version", "url", "region", "fleet", "vms", "seed", "speed", "faults"), more="it is printed once the cloud listens"),
    "compare": Printed((*_RUN, "differences")),
    "demo": Printed(("version", "identity", "totals", "baselines", "details")),
    "doctor": Printed(("check", "level", "text", "fix", "fleet"), "list"),
    "events": Printed(("id", "at", "at_s", "fleet", "kind", "text"), "lines"),
    "explain": Printed(
        ("version", "fleet", "provider", "tick", "at", "at_s", "decision", "actions"),
        more="`provider` is empty where there is one place; with `--since` instead `version`, `fleet`, `from_s`, `to_s`, sums, and "
        "`lines` with `at`, `at_s`, `what`, `text`; of all fleets `version`, `from_s`, `to_s` and `fleets`, a list of these",
    ),
    "export": Printed(
        ("version", "fleet", "file", "what", "rows", "from", "to", "notes"),
        more="of a trace also `kind`, `interval_s`, `ticks`, `unknown_ticks`, `gap_intervals`, `censored_rows` and `digest`",
    ),
    "operations": Printed(("version", "at_s", "tick_s", "in_force", "sentences")),
    "override": _HELD,
    "pause": _HELD,
    "plan": Printed(("version", "fleet", "traffic", "span_s", "fields", "figures", "differences", "certainty", "doubts", "whole")),
    "policy show": Printed((), more="the effective policy, by the names of [its fields](../policies/REFERENCE.md)"),
    "pool adopt": _CHORE,
    "pool disown": _CHORE,
    "pool evict": _CHORE,
    "pool exercise": _CHORE,
    "pool list": Printed(("version", "at_s", "vms")),
    "pool quarantine": _CHORE,
    "pool refresh": _CHORE,
    "pool release": _CHORE,
    "recommend": Printed((*_SWEPT, "recommendation")),
    "replay": Printed(_RUN),
    "resume": _HELD,
    "scenario run": Printed(("scenario", "file", "holds", "expectations"), "list"),
    "shadow report": Printed(
        (
            "fleet", "start_s", "end_s", "total", "days", "episodes", "longest", "worst", "left_out_s", "censored_s",
            "capacity_unknown_s", "restarts", "conclusive", "conclusion", "caveats",
        ),
        "list",
    ),
    "status": Printed(
        (
            "version", "at_s", "tick", "tick_s", "healthy", "problems", "policies", "journal", "ticks_skipped", "operations",
            "providers", "fleets",
        ),
        more="watched, an object a line, of `version` and `error` alone where no daemon answers",
    ),
    "sweep": Printed(_SWEPT),
    "trace cut": _WRITTEN,
    "trace import": _WRITTEN,
    "trace info": Printed(
        (
            "file", "shape", "kind", "interval_s", "start", "end", "span_s", "rows", "vms", "gaps", "missing",
            "longest_gap", "gap_starts", "mean", "peak", "peak_to_mean", "quantiles", "zero_share", "variation",
            "dispersion", "daily_correlation", "censored", "digest", "notes", "warnings",
        ),
        "list",
    ),
    "trace merge": _WRITTEN,
    "trace record": _WRITTEN,
    "trace synth": _WRITTEN,
    "validate": Printed(("version", "valid", "policies", "errors", "warnings")),
    "version": Printed(("autoscaler", "python", "numpy", "aiobotocore", "botocore")),
}  # fmt: skip
"""The shape of the output by command."""
