"""The demo's history: a week that its fleet went through on virtual time, under the same daemon.

It is shipped because an installation is judged by its weeks, not by its first hour, and simulating a week takes minutes.
`week.zip` has what the daemon remembered at the end of that week, in the form in which its journal keeps it over a restart. So the
demo continues from it as a restarted daemon does. To make it again, with the same numbers:

    python -m autoscaler.cli.demo_week

Make it again when the demo's policy, its traffic or the layout of core's state changes; a test says when.

Rules of this file: the week's traffic and the played day come from different seeds, so nothing learned is about the
played day.
"""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import autoscaler
from autoscaler.cloud.billing import Prices
from autoscaler.cloud.setup import CloudSetup, FleetSetup
from autoscaler.config.loading import require_policy
from autoscaler.config.policy import Policy
from autoscaler.errors import ConfigError
from autoscaler.ports import ALL_FLEETS, Learned
from autoscaler.simulator.replay.identity import policy_digest
from autoscaler.simulator.replay.loopback import LoopRun, run_loop
from autoscaler.simulator.traffic.parts import DAY_S, DEFAULT_START_S, MORNING_S
from autoscaler.simulator.traffic.synth import morning_crowd, synth_day
from autoscaler.traces.trace import Trace

DAYS = 7
WEEK_SEED = 7_000
"""A seed that no user picks by chance; the same seed for the played day would draw the same noise."""
BEGIN_OF_DAY_S = 9.5 * 3600.0
"""Time of day at which the week ends and the played day begins, seconds after midnight."""
BEGIN_S = DEFAULT_START_S + BEGIN_OF_DAY_S
TICK_S = 10.0
VMS = 60
_ABOUT = "about.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)


def folder() -> Path:
    """Return the folder of the demo's files: beside the code in a checkout, inside the package in an installation."""
    package = Path(autoscaler.__file__).parent
    inside = package / "simulations" / "demo"
    return inside if inside.is_dir() else package.parent / "simulations" / "demo"


def policy_file() -> Path:
    """Return the file of the policy under which the week was simulated."""
    return folder() / "web.yaml"


def played_day(seed: int) -> Trace:
    """Return the traffic of the day that the demo plays."""
    return synth_day(seed, crowds=(morning_crowd(seed, DAYS),))


def week_before() -> Trace:
    """Return the traffic of the days before the demo, up to the night before it begins."""
    crowds = tuple(morning_crowd(WEEK_SEED, day, day * DAY_S + MORNING_S) for day in range(DAYS))
    return synth_day(WEEK_SEED, DEFAULT_START_S - DAYS * DAY_S, days=DAYS + 1, crowds=crowds)


def cloud_of(policy: Policy, vms: int, seed: int) -> CloudSetup:
    """Return the cloud with the demo's fleet, all VMs stopped."""
    prices = policy.prices
    return CloudSetup(
        seed=seed,
        fleets=(FleetSetup(policy.fleet, vms),),
        prices=Prices(prices.in_service_per_h, prices.stopped_per_h, prices.start),
    )


def live(policy: Policy, days: int = DAYS) -> tuple[Learned, ...]:
    """Simulate the last days of the week under a policy, and return what the daemon remembers at the end."""
    run = LoopRun(
        policy,
        week_before(),
        cloud_of(policy, VMS, WEEK_SEED),
        BEGIN_S - days * DAY_S,
        days * DAY_S,
        TICK_S,
        WEEK_SEED,
        remembers=True,
    )
    return run_loop(run).learned


def keep(file: Path, policy: Policy, learned: tuple[Learned, ...]) -> None:
    """Write what the daemon remembers to a file."""
    about = {
        "policy": policy_digest(policy),
        "states": [{"name": row.name, "version": row.version} for row in learned],
    }
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as into:
        for name, body in (
            (_ABOUT, json.dumps(about, indent=1).encode()),
            *((r.name, r.body) for r in learned),
        ):
            into.writestr(zipfile.ZipInfo(name, _EPOCH), body, zipfile.ZIP_DEFLATED)


def remembered(policy: Policy, file: Path | None = None) -> tuple[Learned, ...]:
    """Return what the daemon remembered at the end of the week.

    Args:
        policy: Must equal the policy under which the week was simulated.
        file: File to read; None reads the shipped one.

    Raises:
        ConfigError: The file cannot be read, or the week was simulated under another policy.
    """
    file = file or folder() / "week.zip"
    try:
        with zipfile.ZipFile(file) as kept:
            about = json.loads(kept.read(_ABOUT))
            learned = tuple(
                Learned(ALL_FLEETS, row["name"], row["version"], kept.read(row["name"]))
                for row in about["states"]
            )
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ConfigError(f"the week before cannot be read from {file}: {error}") from None
    if about.get("policy") != policy_digest(policy):
        raise ConfigError(f"the week before was lived under another policy than {policy.fleet}'s")
    return learned


def main() -> int:
    """Simulate the week again and write it; return the exit code."""
    policy = require_policy(policy_file(), tick_s=TICK_S)
    file = folder() / "week.zip"
    print(f"living {DAYS} days under {policy_file()} …", file=sys.stderr)
    keep(file, policy, live(policy))
    print(f"{file}: {file.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
