"""The configuration of a world and its endpoint, as plain values that travel between processes as JSON.

Rules: frozen values whose defaults make a usable cloud. Everything written by a person is checked here, and errors
say where. Nothing is started here.
"""

from __future__ import annotations

import difflib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from autoscaler.clock import ScaledClock, SystemClock
from autoscaler.cloud.billing import Prices
from autoscaler.cloud.buckets import PUBLISHED
from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.cloud.physics import Physics
from autoscaler.cloud.vms import DEFAULT_IMAGE, DEFAULT_VM_TYPE, LaunchData, State
from autoscaler.cloud.world import World
from autoscaler.errors import ConfigError
from autoscaler.ports import FLEET_TAG, Clock


@dataclass(frozen=True, slots=True)
class FleetSetup:
    """VMs that exist from the start, and a launch template of the fleet's name for making more.

    Attributes:
        fleet: Value of the ownership tag, and name of the launch template.
        vms: Number of VMs.
        state: Stopped or running.
        vm_type: Machine type.
        image: Image id.
        zones: Zones to distribute them over; empty for all.
        tags: Further tags.
        hibernation: Whether these VMs, and those made from the template, may hibernate.
        public: Whether they get a public address at each start.
    """

    fleet: str
    vms: int
    state: State = State.STOPPED
    vm_type: str = DEFAULT_VM_TYPE
    image: str = DEFAULT_IMAGE
    zones: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    hibernation: bool = False
    public: bool = False

    def __post_init__(self) -> None:
        if self.vms < 0:
            raise ValueError(f"vms must be zero or more, not {self.vms}")
        if self.state not in {State.STOPPED, State.RUNNING}:
            raise ValueError(f"state must be stopped or running, not {self.state}")


@dataclass(frozen=True, slots=True)
class CapacitySetup:
    """Most VMs of a type that may run at once in a zone."""

    vm_type: str
    zone: str
    vms: int


@dataclass(frozen=True, slots=True)
class ClockSetup:
    """The endpoint's clock. At speed 1 without an origin, it is the machine's clock.

    Attributes:
        speed: Seconds of the world per second of the machine.
        origin_s: Epoch seconds at the origin; None for the machine's time.
        origin_monotonic_s: The machine's monotonic clock at the origin; None for the time at which the endpoint starts.
    """

    speed: float = 1.0
    origin_s: float | None = None
    origin_monotonic_s: float | None = None

    def clock(self) -> Clock:
        """Build the clock that this describes."""
        if self.speed == 1 and self.origin_s is None:
            return SystemClock()
        origin_s = SystemClock().now() if self.origin_s is None else self.origin_s
        return ScaledClock(origin_s, self.speed, self.origin_monotonic_s)


@dataclass(frozen=True, slots=True)
class CloudSetup:
    """Configuration of one embedded cloud.

    Attributes:
        seed: Seed of all random draws.
        fleets: Fleets that exist from the start.
        physics: How long things take.
        faults: Schedule of faults, relative to the start.
        capacity: Limits by type and zone. Other combinations have none.
        prices: Prices for the bill.
        api_limits: Whether the API budget is enforced.
        region: Name of the region.
        zones: Last letters of its zones.
        clock: The endpoint's clock.
        port: TCP port on loopback; 0 takes a free one.
    """

    seed: int = 0
    fleets: tuple[FleetSetup, ...] = ()
    physics: Physics = Physics()  # noqa: RUF009 -- frozen
    faults: tuple[Fault, ...] = ()
    capacity: tuple[CapacitySetup, ...] = ()
    prices: Prices = Prices()  # noqa: RUF009 -- frozen
    api_limits: bool = True
    region: str = "us-east-1"
    zones: str = "abc"
    clock: ClockSetup = ClockSetup()
    port: int = 0

    def dump(self) -> str:
        """Serialise to one line of JSON."""
        return json.dumps(asdict(self))

    @staticmethod
    def load(text: str) -> CloudSetup:
        """Parse the result of `dump`. Raises ConfigError if it is not valid."""
        try:
            return TypeAdapter(CloudSetup).validate_python(json.loads(text))
        except ValidationError as error:
            raise ConfigError(f"the set-up of the embedded cloud is wrong: {_explain(error)}") from None

    def world(self, start_s: float) -> World:
        """Build the world that this describes, with its fleets and their launch templates."""
        world = World(
            seed=self.seed,
            start_s=start_s,
            physics=self.physics,
            faults=self.faults,
            capacity={(limit.vm_type, limit.zone): limit.vms for limit in self.capacity},
            prices=self.prices,
            limits=PUBLISHED if self.api_limits else None,
            region=self.region,
            zones=self.zones,
        )
        for fleet in self.fleets:
            place_fleet(world, start_s, fleet)
        return world


def place_fleet(world: World, now_s: float, fleet: FleetSetup) -> tuple[str, ...]:
    """Place a fleet in a world and return the ids of its VMs. Its launch template is created if there is none of that name."""
    ids = world.provision(
        now_s,
        fleet.fleet,
        fleet.vms,
        state=fleet.state,
        vm_type=fleet.vm_type,
        image=fleet.image,
        zones=fleet.zones,
        tags=fleet.tags,
        hibernation=fleet.hibernation,
        public=fleet.public,
    )
    if fleet.fleet and all(template.name != fleet.fleet for template in world.templates.all()):
        data = LaunchData(
            image=fleet.image,
            vm_type=fleet.vm_type,
            hibernation=fleet.hibernation or None,
            public=fleet.public or None,
            tags={"Name": fleet.fleet, **fleet.tags, FLEET_TAG: fleet.fleet},
        )
        world.templates.create(world.new_id("lt"), fleet.fleet, data, world.now_s)
    return ids


def read_faults(path: Path) -> tuple[Fault, ...]:
    """Read a fault schedule from a YAML or JSON file: a list of faults, or a mapping with the single key `faults`.

    Raises:
        ConfigError: The file cannot be read or is not valid. The message names file and line, and says what to do.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        document = YAML(typ="rt").load(io.StringIO(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text") from None
    except MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f":{error.problem_mark.line + 1}"
        raise ConfigError(f"{path}{line}: is not valid YAML: {error.problem}") from None
    except YAMLError as error:
        raise ConfigError(f"{path}: is not valid YAML: {error}") from None
    rows = (
        document.get("faults") if isinstance(document, Mapping) and set(document) == {"faults"} else document
    )
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        raise ConfigError(f"{path}: must hold a list of faults, each a mapping with at least `kind`")
    lines = [getattr(getattr(row, "lc", None), "line", None) for row in rows]
    where = [str(path) if line is None else f"{path}:{line + 1}" for line in lines]
    return tuple(parse_fault(row, place) for row, place in zip(rows, where, strict=True))


def parse_fault(row: object, where: str) -> Fault:
    """Parse one fault from a mapping.

    Raises:
        ConfigError: It is not valid. The message begins with `where`.
    """
    if not isinstance(row, Mapping):
        raise ConfigError(f"{where}: a fault must be a mapping with at least `kind`, not {row!r}")
    names = [one.name for one in fields(Fault)]
    for key in row:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(names)}"
            raise ConfigError(f"{where}: unknown key {key!r}; {hint}")
    kind = row.get("kind")
    if isinstance(kind, str) and kind not in set(FaultKind):
        near = difflib.get_close_matches(kind, list(FaultKind), n=1)
        hint = f"did you mean {str(near[0])!r}?" if near else f"known kinds: {', '.join(FaultKind)}"
        raise ConfigError(f"{where}: unknown kind {kind!r}; {hint}")
    try:
        return TypeAdapter(Fault).validate_python({**row, **_as_share(row)})
    except ValidationError as error:
        raise ConfigError(f"{where}: {_explain(error)}") from None


def _as_share(row: Mapping[str, object]) -> dict[str, object]:
    """The probability as a number if it is written as a percentage, like `30%`; otherwise nothing."""
    given = row.get("probability")
    if not isinstance(given, str):
        return {}
    try:
        return {"probability": float(given.removesuffix("%")) / 100.0 if given.endswith("%") else given}
    except ValueError:
        return {}


def _explain(error: ValidationError) -> str:
    parts = []
    for problem in error.errors(include_url=False):
        place = ".".join(str(step) for step in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        parts.append(f"{place}: {message}" if place else message)
    return "; ".join(parts)
