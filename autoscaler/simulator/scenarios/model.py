"""The schema of scenario files: one model per section, in the manner of policies.

Rules of this file: declarations only. A YAML key is the attribute's name without its unit suffix. Times within a scenario
(`at`, `from`, `to`) count from its beginning. Traffic and faults are parsed by their own modules.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from autoscaler.config.quantities import DURATION, MOMENT, PERCENT, Quantity
from autoscaler.config.section import DAY_S, HOUR_S, Filled, Section

MOST_S = 31 * DAY_S


class FleetSection(Section):
    """The VMs at the beginning."""

    running: Annotated[int, Field(ge=0, le=10_000)] = Field(0, description="VMs in service at the beginning.")
    stopped: Annotated[int, Field(ge=0, le=10_000)] = Field(0, description="Stopped VMs at the beginning.")


class RecordingSection(Section):
    """Recorded traffic."""

    file: Filled = Field(description="Trace file, relative to the scenario; a shipped scenario has none.")
    kind: Literal["count", "gauge"] | None = Field(None, description="What its values mean.")
    scale_to_vms: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        None, description="Scale it so that its peak needs this many VMs."
    )


class CloudSection(Section):
    """Median durations in the simulated cloud."""

    start_s: Annotated[float, Quantity(DURATION, 0, HOUR_S)] = Field(
        16.0, description="Time from the order until a stopped VM is running."
    )
    boot_s: Annotated[float, Quantity(DURATION, 0, HOUR_S)] = Field(
        3.0, description="Time from when a stopped VM runs until it is ready."
    )
    launch_s: Annotated[float, Quantity(DURATION, 0, HOUR_S)] = Field(
        18.0, description="Time from the order until a new VM is running."
    )
    first_boot_s: Annotated[float, Quantity(DURATION, 0, HOUR_S)] = Field(
        7.0, description="Time from when a new VM runs until it is ready."
    )
    stop_s: Annotated[float, Quantity(DURATION, 0, HOUR_S)] = Field(
        25.0, description="Time from the order until a VM is stopped."
    )
    save_s: Annotated[float, Quantity(DURATION, 0, HOUR_S)] = Field(
        60.0, description="Time from the order until a VM is hibernated; it is billed until then."
    )
    resume_s: Annotated[float, Quantity(DURATION, 0, HOUR_S)] = Field(
        16.0, description="Time from the order until a hibernated VM is running."
    )
    wake_s: Annotated[float, Quantity(DURATION, 0, HOUR_S)] = Field(
        2.4, description="Time from when a hibernated VM runs until it is ready."
    )
    spread: Annotated[float, Quantity(PERCENT, 0, 1)] = Field(
        0.2, description="Standard deviation of the logarithm of each of these durations."
    )


class LossSection(Section):
    """A period in which readings do not arrive."""

    from_s: Annotated[float, Quantity(DURATION, 0, MOST_S)] = Field(description="When it begins.")
    to_s: Annotated[float, Quantity(DURATION, 0, MOST_S)] = Field(description="When it ends.")
    share: Annotated[float, Quantity(PERCENT, 0, 1)] = Field(
        1.0, description="Share of the VMs whose readings are lost; 100% is an outage of the metrics."
    )


class MisreadingSection(Section):
    """A period in which readings are wrong."""

    from_s: Annotated[float, Quantity(DURATION, 0, MOST_S)] = Field(description="When it begins.")
    to_s: Annotated[float, Quantity(DURATION, 0, MOST_S)] = Field(description="When it ends.")
    times: Annotated[float, Field(ge=-1e9, le=1e9)] = Field(
        1.0, description="Factor by which every reading is multiplied."
    )
    shows: Annotated[float, Field(ge=-1e12, le=1e12)] | None = Field(
        None,
        description="Value that all VMs together report, in the unit of the signal; if the signal is a mean, the value that each reports.",
    )


class KillSection(Section):
    """The daemon is killed, as by kill -9, and starts again."""

    at_s: Annotated[float, Quantity(DURATION, 0, MOST_S)] = Field(description="When it is killed.")
    back_after_s: Annotated[float, Quantity(DURATION, 1, DAY_S)] = Field(
        30.0, description="Time until it runs again."
    )
    tick_s: Annotated[float, Quantity(DURATION, 1, HOUR_S)] | None = Field(
        None, description="Length of a tick after the restart; by default as before."
    )


class RolloutSection(Section):
    """Another tool replaces the VMs by VMs with a new image, first those that are stopped, then those that serve."""

    at_s: Annotated[float, Quantity(DURATION, 0, MOST_S)] = Field(description="When it begins.")
    image: Filled = Field("ami-new", description="The new image.")
    batch: Annotated[int, Field(ge=1, le=1000)] = Field(2, description="VMs replaced at once.")
    every_s: Annotated[float, Quantity(DURATION, 1, DAY_S)] = Field(
        60.0, description="Time from one batch to the next."
    )


class EditSection(Section):
    """The policy file is edited, and the daemon adopts the change."""

    at_s: Annotated[float, Quantity(DURATION, 0, MOST_S)] = Field(description="When it happens.")
    change: dict[str, Any] = Field(description="Sections and keys of the policy that change.")


FigureName = Literal[
    "unserved",
    "shortage_time",
    "longest_episode",
    "serving_most",
    "serving_least",
    "stopped_least",
    "starts",
    "stops",
    "provisions",
    "repeated_starts",
    "reversals",
    "growth_most",
    "recovery",
    "calls",
    "refused_calls",
    "cost_of_peak",
]


class ExpectationSection(Section):
    """A bound on a figure of the run. An unknown figure breaks every bound."""

    figure: FigureName = Field(description="The figure that is bounded.")
    at_most: Any = Field(None, description="Its upper bound, in the figure's own unit.")
    at_least: Any = Field(None, description="Its lower bound.")
    from_s: Annotated[float, Quantity(DURATION, 0, MOST_S)] = Field(
        0.0, description="Only what happens from this time on counts."
    )
    to_s: Annotated[float, Quantity(DURATION, 0, MOST_S)] | None = Field(
        None, description="Only what happens until this time counts; by default, until the end."
    )
    why: Filled = Field(description="What people can rely on as long as the bound holds.")


class ScenarioFile(Section):
    """One scenario."""

    story: Filled = Field(description="What happens, and what the run should show.")
    policy: Filled = Field(description="Policy file, relative to the scenario.")
    change: dict[str, Any] = Field(
        {}, description="Sections and keys of the policy that differ in this scenario."
    )
    begin: Annotated[datetime, MOMENT] | None = Field(
        None, description="Moment of the traffic at which the run begins; by default, its beginning."
    )
    length_s: Annotated[float, Quantity(DURATION, 60, MOST_S)] = Field(description="Length of the run.")
    tick_s: Annotated[float, Quantity(DURATION, 1, HOUR_S)] = Field(10.0, description="Length of a tick.")
    warm_up_s: Annotated[float, Quantity(DURATION, 0, DAY_S)] = Field(
        0.0, description="Time at the beginning that expectations ignore."
    )
    seed: Annotated[int, Field(ge=0)] = Field(1, description="Seed of all random numbers.")
    fleet: FleetSection = Field(description="The VMs at the beginning.")
    traffic: dict[str, Any] | None = Field(
        None, description="Recipe of generated traffic, as for `autoscaler trace synth`."
    )
    recording: RecordingSection | None = Field(None, description="Recorded traffic, in place of `traffic`.")
    history: bool = Field(
        False,
        description="Whether the daemon can read the traffic before `begin`, as from a monitoring system.",
    )
    cloud: CloudSection = Field(CloudSection(), description="How long starts, stops and launches take.")
    faults: Annotated[tuple[dict[str, Any], ...], Field(strict=False, max_length=50)] = Field(
        (), description="Faults of the cloud; `from`, `to` and `delay` may be written with units."
    )
    losses: Annotated[tuple[LossSection, ...], Field(strict=False, max_length=50)] = Field(
        (), description="Periods without readings."
    )
    misreadings: Annotated[tuple[MisreadingSection, ...], Field(strict=False, max_length=50)] = Field(
        (), description="Periods in which readings are wrong."
    )
    kills: Annotated[tuple[KillSection, ...], Field(strict=False, max_length=50)] = Field(
        (), description="Times at which the daemon is killed and starts again."
    )
    rollouts: Annotated[tuple[RolloutSection, ...], Field(strict=False, max_length=50)] = Field(
        (), description="Replacements of the VMs by another tool."
    )
    edits: Annotated[tuple[EditSection, ...], Field(strict=False, max_length=50)] = Field(
        (), description="Edits of the policy during the run."
    )
    expect: Annotated[tuple[ExpectationSection, ...], Field(strict=False, min_length=1, max_length=50)] = (
        Field(
            description="Bounds on figures of the run, at least one; without any, a scenario shows nothing."
        )
    )
