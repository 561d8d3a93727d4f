"""One plant for both engines: an embedded cloud in which the daemon meets the same fleet as a lane.

With a cloud made here, readiness by status checks and one zone, the two engines agree tick by tick on whatever both can
express. `unmatched` lists the settings that have no counterpart in the cloud, or for which the cloud draws its random
numbers differently. With such settings the engines can be compared by distributions only, not tick by tick.
"""

from __future__ import annotations

import math
from dataclasses import replace

from autoscaler.cloud.billing import Prices
from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.cloud.physics import Physics, Spread
from autoscaler.cloud.setup import CloudSetup, FleetSetup
from autoscaler.cloud.vms import State
from autoscaler.config.policy import Policy
from autoscaler.simulator.lanes.plant_settings import EC2_STARTS, EC2_STOPS, Duration, PlantSettings, Shortage


def as_probed(policy: Policy) -> Policy:
    """Return the policy with readiness by status checks, so that a VM serves once it has booted, as in the plant."""
    readiness = policy.readiness.model_copy(update={"probe": "status_checks", "url": None})
    return policy.model_copy(update={"readiness": readiness})


def cloud_of(policy: Policy, plant: PlantSettings, seed: int = 0) -> CloudSetup:
    """Return a cloud with that fleet in one zone, as far as the cloud can express the settings (see `unmatched`)."""
    priced, hibernates = policy.prices, policy.warm_pool.hibernate is not None
    prices = Prices(
        priced.in_service_per_h, priced.stopped_per_h, priced.start, held_per_h=priced.memory_per_h
    )
    fleets = [FleetSetup(policy.fleet, plant.vms - plant.in_service, State.STOPPED, hibernation=hibernates)]
    if plant.in_service:
        serving = FleetSetup(policy.fleet, plant.in_service, State.RUNNING, hibernation=hibernates)
        fleets.insert(0, serving)
    start, boot = _parts(plant.start, plant.boot_s)
    launch, first_boot = _parts(plant.provision, plant.boot_s)
    physics = Physics(start=start, boot=boot, launch=launch, first_boot=first_boot, stop=Spread(plant.stop_s))
    if (section := policy.warm_pool.hibernate) is not None:
        resume, wake = start, boot
        if section.start_time_s is not None:
            resume, wake = _parts(Duration(section.start_time_s), plant.boot_s)
        physics = replace(physics, resume=resume, wake=wake, hibernate=Spread(section.save_time_s))
    return CloudSetup(
        seed=seed,
        fleets=tuple(fleets),
        physics=physics,
        faults=tuple(_faults(plant)),
        prices=prices,
        api_limits=_budgeted(plant),
        zones="a",
    )


def unmatched(plant: PlantSettings) -> list[str]:
    """List, in words, the settings that the embedded cloud treats differently or not at all; empty if it matches."""
    unbudgeted = plant.start_budget is None and plant.provision_budget is None and plant.stop_budget is None
    found = {
        "start times come from another random stream": not plant.start.constant
        or not plant.provision.constant,
        "the cloud decides by VM which starts fail or hang": bool(
            0 < plant.start_failure < 1 or 0 < plant.stuck < 1
        ),
        "the daemon does not drain VMs": plant.drain_s > 0,
        "the cloud has no dry spells at random times": plant.dry_per_day > 0,
        "the cloud has EC2's API budget or none": not unbudgeted and not _budgeted(plant),
        "the daemon's trace source has no windows, losses or gaps of its own": bool(
            plant.metric_interval_s is not None or plant.metric_loss or plant.metric_gaps
        ),
        "the daemon takes the delay of metrics from the policy": plant.metric_lag_s is not None,
        "in the daemon, unserved work is always lost": plant.shortage is not Shortage.LOST,
        "the cloud bills each start for at least 60 s": plant.minimum_billed_s != 60,
        "if no VM is seen starting, the daemon assumes a failure 30 s after the order; it retries a VM after "
        "600 s, and after twice as long for each further failure": bool(plant.start_failure),
        "the daemon retries a dry zone with one VM, at growing intervals": plant.can_run_dry,
        "the daemon gives up VMs that never run, and orders others instead": bool(
            plant.stuck and not math.isfinite(plant.stuck_s)
        ),
    }
    return [words for words, holds in found.items() if holds]


def _parts(duration: Duration, boot_s: float) -> tuple[Spread, Spread]:
    """Split a duration into pending and booting, together as long as the duration's mean or median."""
    whole_s = duration.longest_s if duration.constant else duration.mean_s
    booting_s = min(boot_s, whole_s)
    return Spread(whole_s - booting_s, duration.sigma), Spread(booting_s)


def _budgeted(plant: PlantSettings) -> bool:
    return (plant.start_budget, plant.provision_budget, plant.stop_budget) == (
        EC2_STARTS,
        EC2_STARTS,
        EC2_STOPS,
    )


def _faults(plant: PlantSettings) -> list[Fault]:
    faults = [Fault(FaultKind.NO_CAPACITY, start_s, end_s) for start_s, end_s in plant.dry]
    if plant.start_failure:
        faults.append(
            Fault(FaultKind.FALL_BACK, probability=plant.start_failure, delay_s=plant.failure_s, code=_CODE)
        )
    if plant.stuck:
        held_s = plant.stuck_s if math.isfinite(plant.stuck_s) else None
        faults.append(Fault(FaultKind.STUCK_PENDING, probability=plant.stuck, delay_s=held_s))
    return faults


_CODE = "Server.InternalError"
"""The error code of a start that falls back; it does not mention capacity, so no zone is considered dry."""
