"""make bench: run the benchmarks and print what they found; they inform, they do not gate."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

_NOT_BENCHMARKS = {"__main__", "__init__", "calibration", "forecast_library"}
_WHEN_NAMED = {"policies", "scraped_hour", "soak"}
"""Take minutes, and check more than they measure."""


def main() -> int:
    here = Path(__file__).parent
    names = sorted(p.stem for p in here.glob("*.py") if p.stem not in _NOT_BENCHMARKS)
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        default=[n for n in names if n not in _WHEN_NAMED],
        help=f"which to run, of: {', '.join(names)}",
    )
    parser.add_argument(
        "--against",
        type=Path,
        metavar="FILE",
        help="forecast: keep there what the library said, or read it from there",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(names))
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are: {', '.join(names)}")
    found = {}
    for name in options.names:
        given = {"against": options.against} if name == "forecast" else {}
        results = importlib.import_module(f"benchmarks.{name}").run(**given)
        found[name] = [asdict(r) for r in results]
        if not options.json:
            print(f"\n{name}")
            for r in results:
                print(f"  {r.name:<52} {r.value:>12,.3f} {r.unit:<6} {r.note}")
    if options.json:
        json.dump(found, sys.stdout, indent=2)
        print()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
