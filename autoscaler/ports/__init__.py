"""The seams between the daemon and the world: small protocols and the values they exchange.

Rules: no adapter here, no I/O. An expected failure is a value (`Listing.error`, `OutcomeKind`), so that one
fleet's trouble never becomes another fleet's exception. Times are epoch seconds of the Clock in use.
"""

from autoscaler.ports.balancer import Balancer, Member, Rotation, RotationView
from autoscaler.ports.journal import (
    ALL_FLEETS,
    PAUSABLE,
    ActionIntent,
    ActionRecord,
    ChangeKind,
    ChangeRecord,
    DueBurst,
    Earnings,
    FleetTick,
    Journal,
    Learned,
    Note,
    OperatorChange,
    RealVms,
    SharedHold,
    TickRecord,
    Verb,
)
from autoscaler.ports.provider import (
    BATCH_REFUSED,
    BUDGET_SPENT,
    FLEET_TAG,
    HIBERNATED_REASON,
    NO_HIBERNATION,
    NOT_YET,
    Listing,
    Outcome,
    OutcomeKind,
    Provider,
    ProvisionSpec,
    Vm,
    VmState,
)
from autoscaler.ports.sources import FleetReadings, MetricSource, ReadinessProbe
from autoscaler.ports.templates import Deferring, LaunchSpec, TemplateReader
from autoscaler.ports.time import Clock

__all__ = [
    "ALL_FLEETS",
    "BATCH_REFUSED",
    "BUDGET_SPENT",
    "FLEET_TAG",
    "HIBERNATED_REASON",
    "NOT_YET",
    "NO_HIBERNATION",
    "PAUSABLE",
    "ActionIntent",
    "ActionRecord",
    "Balancer",
    "ChangeKind",
    "ChangeRecord",
    "Clock",
    "Deferring",
    "DueBurst",
    "Earnings",
    "FleetReadings",
    "FleetTick",
    "Journal",
    "LaunchSpec",
    "Learned",
    "Listing",
    "Member",
    "MetricSource",
    "Note",
    "OperatorChange",
    "Outcome",
    "OutcomeKind",
    "Provider",
    "ProvisionSpec",
    "ReadinessProbe",
    "RealVms",
    "Rotation",
    "RotationView",
    "SharedHold",
    "TemplateReader",
    "TickRecord",
    "Verb",
    "Vm",
    "VmState",
]
