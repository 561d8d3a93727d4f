"""A minimal fleet for tests of peers: what they want, tick by tick, for a demand given in VMs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

from autoscaler.core.params import LaneParams
from autoscaler.core.types import NO_CEILING, Decision, Freshness, Snapshot
from autoscaler.simulator.peers.peer import Peer
from tests.core.builders import lane_params, outlook

VM = 100.0
BEGIN_S = 1_772_409_600.0


@dataclass
class Fleet:
    """A minimal plant of counts: starts take `lead` ticks, stops take none, and nothing fails."""

    params: LaneParams
    in_service: np.ndarray
    lead: int = 1
    fleet: int = 30

    def __post_init__(self) -> None:
        self.due: list[np.ndarray] = [np.zeros_like(self.in_service) for _ in range(self.lead)]
        self.tick = round(BEGIN_S / self.params.tick_s)

    def snapshot(self, demand: np.ndarray) -> Snapshot:
        lanes = len(self.in_service)
        zero, yes = np.zeros(lanes, np.int64), np.ones(lanes, np.bool_)
        unknown = np.isnan(demand)
        starting = np.sum(self.due, axis=0)
        return Snapshot(
            now_s=self.tick * self.params.tick_s,
            tick=self.tick,
            demand=demand,
            observed_at_s=np.where(unknown, np.nan, self.tick * self.params.tick_s),
            freshness=np.where(unknown, int(Freshness.ABSENT), int(Freshness.FRESH)),
            coverage=np.ones(lanes),
            censored=~yes,
            in_service=self.in_service.copy(),
            starting=starting,
            draining=zero,
            stopping=zero,
            stopped=self.fleet - self.in_service - starting,
            provisioned=np.full(lanes, self.fleet),
            stoppable=self.in_service.copy(),
            listed=yes,
            may_start=yes,
            may_provision=yes,
            may_stop=yes,
            floor=zero,
            ceiling=np.full(lanes, NO_CEILING),
        )

    def go(self, peer: Peer, demand: np.ndarray) -> Decision:
        """Play the tick that ends with this demand: starts that are due arrive, and the peer's decision is carried out."""
        self.tick += 1
        self.in_service = self.in_service + self.due.pop(0)
        self.due.append(np.zeros_like(self.in_service))
        decision = peer.decide(self.snapshot(demand), outlook(len(demand)))
        self.in_service = self.in_service - decision.stop
        self.due[-1] = self.due[-1] + decision.start + decision.provision
        return decision


def played(
    make: Callable[[LaneParams], Peer],
    *demands: float,
    begin: int = 1,
    lead: int = 1,
    tick_s: float = 60.0,
    **bounds: int,
) -> list[int]:
    """What a peer wants, tick by tick, for a demand given in VMs."""
    params = lane_params(1, tick_s=tick_s, **({"minimum": 0, "maximum": 30} | bounds))
    fleet = Fleet(params, np.array([begin]), lead=lead)
    peer = make(params)
    return [int(fleet.go(peer, np.array([d * VM])).desired[0]) for d in demands]


def steps(*pieces: tuple[float, int]) -> list[float]:
    return list(itertools.chain.from_iterable([level] * ticks for level, ticks in pieces))


def lanes_of(params: LaneParams, lane: int) -> LaneParams:
    values = {f.name: getattr(params, f.name) for f in fields(LaneParams)}
    return LaneParams(**{k: v if np.isscalar(v) else v[..., lane : lane + 1] for k, v in values.items()})


def random_run(seed: int, lanes: int, ticks: int) -> tuple[LaneParams, np.ndarray]:
    rng = np.random.default_rng(seed)
    params = lane_params(
        lanes,
        tick_s=float(rng.choice([5.0, 10.0, 60.0, 300.0])),
        vm_capacity=rng.choice([50.0, 100.0, 130.0], lanes),
        minimum=rng.integers(0, 3, lanes),
        maximum=rng.integers(3, 25, lanes),
        provision=rng.random(lanes) < 0.5,
        max_provisioned=np.full(lanes, 30),
    )
    demand = np.maximum(np.cumsum(rng.normal(0, 120, (ticks, lanes)), axis=0) + 300, 0.0)
    demand[rng.random((ticks, lanes)) < 0.1] = np.nan
    return params, demand


def decisions(peer: Peer, params: LaneParams, demand: np.ndarray, begin: int = 2) -> list[np.ndarray]:
    fleet = Fleet(params, np.full(demand.shape[1], begin), lead=2)
    found = []
    for row in demand:
        decision = fleet.go(peer, row)
        found.append(np.stack([decision.desired, decision.start, decision.provision, decision.stop]))
    return found
