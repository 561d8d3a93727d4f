"""Examples of each command, shown at the end of its help and in the reference.

Rules of this file: each line works as it is, if the files that it names exist. A test checks the options against those of
the commands.
"""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "benchmark": ("benchmark --generated --vms 8 --out bench", "benchmark recordings --only web --out bench"),
    "check": ("check policies/web.yaml",),
    "cloud": ("cloud --vms 20 --fleet api", "cloud --speed 60 --faults simulations/faults/bad-morning.yaml"),
    "compare": ("compare policies/web.yaml changed/web.yaml day.csv --out out",),
    "demo": ("demo", "demo --for 40s --out out", "demo --trace day.csv --kind count --scale-to-vms 50"),
    "doctor": ("doctor", "doctor --all"),
    "events": ("events --since 2h", "events --follow"),
    "explain": ("explain web", "explain web --at 2026-03-02T10:00Z", "explain web --since 2h", "explain --since 12h"),
    "export": ("export web day.csv --from 7d", "export web line.parquet --what timeline"),
    "operations": ("operations",),
    "override": ('override web --floor 12 --for 4h --reason "the match"', 'override web --clear --reason "it is over"'),
    "pause": ('pause stop --fleet web --for 2h --reason "release"', "pause all --all-fleets --for 30m --reason audit"),
    "plan": ("plan changed/web.yaml", "plan changed/web.yaml --since 2d --out plan.md"),
    "policy results": ("policy results policies",),
    "policy schema": ("policy schema > policy.schema.json",),
    "policy show": ("policy show web",),
    "pool adopt": ('pool adopt web i-0123456789abcdef0 --reason "was made by hand"',),
    "pool disown": ('pool disown web i-0123456789abcdef0 --reason "to be looked at"',),
    "pool evict": ('pool evict web i-0123456789abcdef0 --reason "bad disk"',),
    "pool exercise": ('pool exercise web --reason "after the release"',),
    "pool list": ("pool list", "pool list --fleet web --older-than 30d"),
    "pool quarantine": ('pool quarantine web i-0123456789abcdef0 --reason "slow"',),
    "pool refresh": ('pool refresh web --reason "new image"',),
    "pool release": ('pool release web i-0123456789abcdef0 --reason "well again"',),
    "recommend": (
        "recommend policies/web.yaml day.csv",
        "recommend policies/web.yaml day.csv --at-most unserved=0.1%",
    ),
    "replay": (
        "replay policies/web.yaml day.csv --out out",
        "replay policies/web.yaml day.csv --scale-to-vms 20 --tick 10s",
    ),
    "report": ("report out",),
    "resume": ('resume stop --fleet web --reason "released"', "resume all --all-fleets --reason audited"),
    "run": ("run", "run --region us-east-1 --endpoint-url http://127.0.0.1:4599"),
    "scenario results": ("scenario results simulations",),
    "scenario run": ("scenario run simulations", "scenario run simulations/flash-crowd.yaml"),
    "shadow report": ("shadow report", "shadow report web --since 7d"),
    "status": ("status web api", "status", "status --watch"),
    "sweep": (
        "sweep policies/web.yaml day.csv --vary reactive.headroom=10%..60%/6",
        "sweep policies/web.yaml day.csv --vary guards.stabilisation=1m,5m",
    ),
    "trace cut": ("trace cut day.csv part.csv --from 2026-03-03 --to 2026-03-05", "trace cut day.csv hours.csv --every 1h"),
    "trace import": (
        "trace import export.csv day.csv --kind count --value requests",
        "trace import grafana.csv day.csv --shape wide --kind gauge",
        "trace import access.log day.csv",
    ),
    "trace info": ("trace info day.csv",),
    "trace merge": ("trace merge monday.csv tuesday.csv days.csv",),
    "trace record": ("trace record policies/web.yaml day.csv --for 1h",),
    "trace synth": (
        "trace synth day.csv --recipe simulations/recipes/two-weeks.yaml",
        "trace synth day.csv --length 7d --seed 3",
    ),
    "validate": ("validate", "validate policies/web.yaml"),
    "version": ("version", "version --json"),
}  # fmt: skip
"""The text after `autoscaler`, by command."""
