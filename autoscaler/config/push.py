"""Policy section: pushed samples, with the Prometheus series that belong to a fleet, and what wakes the daemon."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from autoscaler.config.quantities import METRIC, MetricSelector
from autoscaler.config.section import Off, Section

LabelName: TypeAlias = Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")]


class PushInput(Section):
    """How samples are pushed."""

    wake: Literal["shortage", "any", "never"] = Field(
        "shortage",
        description="What is decided at once instead of at the next tick: samples that need more VMs than are ordered, any, or none.",
    )
    vms_by: Literal["id", "address"] = Field(
        "id", description="What names a VM in samples: its id, or its private address."
    )
    metric: Annotated[MetricSelector, METRIC] | None = Field(
        None,
        description="Series that Prometheus pushes by remote write, by name and optionally exact labels; a gauge or a recorded rate. Where missing, none is taken.",
    )
    fleet_label: Annotated[LabelName | None, Off] = Field(
        "fleet",
        description="Label of the series that names the fleet; off where the labels of `metric` tell it.",
    )
    vm_label: LabelName = Field("vm", description="Label of the series that names the VM.")
