"""The ledger, compared with a plain account tick by tick, and its independence of cuts and other lanes."""

from __future__ import annotations

import itertools
import math
import pickle
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.simulator.judging import ledger
from autoscaler.simulator.judging.counting import least_vms
from autoscaler.simulator.judging.ledger import Amount, Block, Count, Sums, grid_ticks
from autoscaler.simulator.judging.streaks import Movement, Streaks
from autoscaler.simulator.replay.timeline import reversals, shortage_episodes

TICK_S = 60.0
VM = 100.0


def random_block(seed: int, ticks: int, lanes: int, *, shared: bool = False, gaps: float = 0.05) -> Block:
    """A block as a plant could leave it: moves now and then, gaps in demand, shortage where VMs are missing."""
    rng = np.random.default_rng(seed)
    block = Block.empty(ticks, lanes, TICK_S, demands=1 if shared else None)
    calm = rng.random((ticks, lanes))
    block.demand[:] = rng.gamma(2.0, 150.0, block.demand.shape) * (rng.random(block.demand.shape) > 0.2)
    block.in_service[:] = np.floor(np.cumsum((calm < 0.2) * rng.normal(0, 2, (ticks, lanes)), axis=0)) % 9
    block.desired[:] = np.maximum(block.in_service + (calm > 0.7) * rng.integers(-3, 4, (ticks, lanes)), 0)
    for name in (
        "starting",
        "draining",
        "stopped",
        "provisioned",
        "warm_target",
        "starts",
        "stops",
        "provisions",
    ):
        getattr(block, name)[:] = rng.integers(0, 4, (ticks, lanes))
    block.failed_starts[:] = rng.random((ticks, lanes)) < 0.1
    block.capacity[:] = block.in_service * VM
    block.demand[rng.random(block.demand.shape) < gaps] = np.nan
    block.shortage[:] = np.maximum(block.demand - block.capacity, 0.0)
    block.billed_vm_s[:] = block.in_service * TICK_S
    block.cost[:] = block.in_service * 0.096 / 60 + block.starts * 0.001
    return block


def sums_of(block: Block, cuts: tuple[int, ...] = (), lanes: slice = slice(None)) -> Sums:
    sums = Sums(TICK_S, np.full(block.capacity.shape[1], VM)[lanes])
    edges = (0, *sorted(set(cuts)), len(block.capacity))
    for first, end in itertools.pairwise(edges):
        sums.add(lanes_of(block, lanes), slice(first, end))
    return sums


def lanes_of(block: Block, lanes: slice | list[int]) -> Block:
    values = {f.name: getattr(block, f.name) for f in fields(Block)}
    return Block(
        **{
            k: v[:, lanes].copy() if isinstance(v, np.ndarray) and v.shape[1] > 1 else v
            for k, v in values.items()
        }
    )


def everything(sums: Sums) -> dict[str, np.ndarray]:
    """All results, float bits included."""
    found = {amount.name: sums.amount(amount).view(np.int64) for amount in Amount}
    found |= {count.name: sums.count(count) for count in Count}
    for name in ("short", "waiting"):
        found |= {f"{name}.{f.name}": getattr(getattr(sums, name), f.name) for f in fields(Streaks)}
    found |= {f"desired.{f.name}": getattr(sums.desired, f.name) for f in fields(Movement)[1:]}
    found |= {"worst": sums.worst_shortage.view(np.int64)}
    return found | {"ticks": np.array(sums.ticks)}


def assert_same(one: Sums, other: Sums) -> None:
    left, right = everything(one), everything(other)
    for name, value in left.items():
        np.testing.assert_array_equal(value, right[name], err_msg=name)


def sign(number: int) -> int:
    return (number > 0) - (number < 0)


def plain_account(block: Block, lane: int) -> dict[str, float]:
    """The same figures for one lane, one tick after the other, as one would write them down by hand."""
    demand = block.demand[:, 0 if block.demand.shape[1] == 1 else lane]
    shortage, supply = block.shortage[:, lane], (block.in_service - block.stops)[:, lane].tolist()
    known = [not math.isnan(d) for d in demand]
    need = [math.ceil(d / VM - 1e-9) if k else None for d, k in zip(demand, known, strict=True)]
    pairs = [(s, n) for s, n in zip(supply, need, strict=True) if n is not None]
    compared = [i for i in range(1, len(need)) if need[i] is not None and need[i - 1] is not None]
    waits = longest = current = waited = 0
    for wanted, has in zip(block.desired[:, lane], block.in_service[:, lane], strict=True):
        waits += wanted > has and current == 0
        current = current + 1 if wanted > has else 0
        waited += wanted > has
        longest = max(longest, current)
    window = grid_ticks(TICK_S)
    steps = np.diff(block.desired[:, lane].astype(int), prepend=int(block.desired[0, lane]))
    cut = [steps[i : i + window] for i in range(0, len(steps), window)]
    return {
        "DEMAND": math.fsum(d for d, k in zip(demand, known, strict=True) if k),
        "SHORTAGE": math.fsum(d for d, k in zip(shortage, known, strict=True) if k),
        "CAPACITY": math.fsum(block.capacity[:, lane]),
        "BILLED_VM_S": math.fsum(block.billed_vm_s[:, lane]),
        "COST": math.fsum(block.cost[:, lane]),
        "UNDER": math.fsum(max(n - s, 0) / max(n, 1) for s, n in pairs),
        "OVER": math.fsum(max(s - n, 0) / max(n, 1) for s, n in pairs),
        "UNKNOWN_TICKS": known.count(False),
        "IN_SERVICE": sum(block.in_service[:, lane].tolist()),
        "FAILED_STARTS": int(block.failed_starts[:, lane].sum()),
        "UNDER_TICKS": sum(s < n for s, n in pairs),
        "OVER_TICKS": sum(s > n for s, n in pairs),
        "COMPARED_TICKS": len(compared),
        "UNSTABLE_TICKS": sum(
            sign(supply[i] - supply[i - 1]) != sign(need[i] - need[i - 1]) for i in compared
        ),
        "waiting": (waited, waits, longest),
        "against": sum(min(int(w[w > 0].sum()), int(-w[w < 0].sum())) for w in cut),
        "moved": int(np.abs(steps).sum()),
    }


@pytest.mark.parametrize("shared", [True, False])
def test_the_sums_are_those_of_a_plain_account(shared: bool) -> None:
    block = random_block(1, 500, 7, shared=shared)
    sums = sums_of(block)
    for lane in range(7):
        account = plain_account(block, lane)
        for amount in Amount:
            assert sums.amount(amount)[lane] == pytest.approx(account[amount.name], rel=1e-12), amount
        for count in Count:
            if count.name in account:
                assert sums.count(count)[lane] == account[count.name], count
        waiting = sums.waiting
        assert (waiting.ticks[lane], waiting.runs[lane], waiting.longest[lane]) == account["waiting"]
        assert sums.desired.against_trend()[lane] == account["against"]
        assert sums.desired.moved[lane] == account["moved"]
        assert sums.desired.turns[lane] == reversals(block.desired[:, lane].astype(float))
        episodes = shortage_episodes(np.arange(500) * TICK_S, block.shortage[:, lane], TICK_S)
        assert sums.short.runs[lane] == len(episodes)
        assert sums.short.longest[lane] * TICK_S == max(e.end_s - e.start_s for e in episodes)
        assert sums.worst_shortage[lane] == max(e.worst_per_s for e in episodes)


@given(st.integers(0, 10**6), st.integers(1, 300), st.integers(1, 5), st.booleans(), st.data())
@settings(max_examples=80, deadline=None)
def test_cutting_the_ticks_into_blocks_changes_no_bit(
    seed: int, ticks: int, lanes: int, shared: bool, data: st.DataObject
) -> None:
    block = random_block(seed, ticks, lanes, shared=shared)
    cuts = tuple(data.draw(st.lists(st.integers(1, ticks), max_size=12)))
    assert_same(sums_of(block), sums_of(block, cuts))


@given(st.integers(0, 10**6), st.integers(1, 200), st.integers(1, 40), st.data())
@settings(max_examples=60, deadline=None)
def test_a_lane_alone_has_the_bits_it_has_among_others(
    seed: int, ticks: int, lanes: int, data: st.DataObject
) -> None:
    block = random_block(seed, ticks, lanes)
    lane = data.draw(st.integers(0, lanes - 1))
    alone = sums_of(block, lanes=slice(lane, lane + 1))
    assert_same(alone, sums_of(block).taken(slice(lane, lane + 1)))


@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 200), st.booleans())
@settings(max_examples=60, deadline=None)
def test_adjoining_segments_join_to_the_bits_of_the_uncut_run(
    seed: int, whole: int, rest: int, shared: bool
) -> None:
    seam = whole * grid_ticks(TICK_S)
    block = random_block(seed, seam + rest, 4, shared=shared, gaps=0.3)
    first, second = Sums(TICK_S, np.full(4, VM)), Sums(TICK_S, np.full(4, VM))
    first.add(block, slice(0, seam))
    second.add(block, slice(seam, None))
    assert_same(sums_of(block), first.followed_by(second))


def test_three_segments_join_in_any_grouping() -> None:
    grid = grid_ticks(TICK_S)
    block = random_block(7, 3 * grid, 3)
    parts = [Sums(TICK_S, np.full(3, VM)) for _ in range(3)]
    for index, part in enumerate(parts):
        part.add(block, slice(index * grid, (index + 1) * grid))
    a, b, c = parts
    assert_same(a.followed_by(b).followed_by(c), a.followed_by(b.followed_by(c)))
    assert_same(a.followed_by(b).followed_by(c), sums_of(block))
    empty = Sums(TICK_S, np.full(3, VM))
    assert_same(empty.followed_by(a), a)
    assert_same(a.followed_by(empty), a)


def test_an_episode_over_the_seam_is_one_episode() -> None:
    grid = grid_ticks(TICK_S)
    block = Block.empty(2 * grid, 1, TICK_S)
    block.demand[:] = 100.0
    block.shortage[grid - 3 : grid + 5] = 40.0
    first, second = Sums(TICK_S, np.array([VM])), Sums(TICK_S, np.array([VM]))
    first.add(block, slice(0, grid))
    second.add(block, slice(grid, None))
    joined = first.followed_by(second).short
    assert (first.short.runs[0], second.short.runs[0]) == (1, 1)
    assert (joined.runs[0], joined.longest[0], joined.ticks[0]) == (1, 8, 8)


def test_lanes_are_put_side_by_side_and_taken_in_any_order() -> None:
    block = random_block(3, 150, 6)
    whole = sums_of(block)
    parts = [sums_of(block, lanes=slice(0, 2)), sums_of(block, lanes=slice(2, 6))]
    assert_same(Sums.side_by_side(parts), whole)
    assert_same(whole.taken(np.array([5, 0])), sums_of(lanes_of(block, [5, 0])))


def test_sums_travel_between_processes_and_go_on() -> None:
    block = random_block(4, 200, 3)
    sums = Sums(TICK_S, np.full(3, VM))
    sums.add(block, slice(0, 90))
    travelled = pickle.loads(pickle.dumps(sums))
    travelled.add(block, slice(90, None))
    assert_same(travelled, sums_of(block))


def test_an_unknown_cost_makes_the_sum_unknown_and_only_that() -> None:
    block = random_block(5, 200, 2)
    block.cost[17, 0] = np.nan
    cost = sums_of(block).amount(Amount.COST)
    assert math.isnan(cost[0])
    assert cost[1] == pytest.approx(block.cost[:, 1].sum())


def test_unknown_demand_is_left_out_and_never_zero_demand() -> None:
    block = Block.empty(10, 1, TICK_S)
    block.demand[:] = 300.0
    block.demand[4:7] = np.nan
    block.in_service[:] = 2
    block.shortage[:] = block.demand - 200.0
    sums = sums_of(block)
    assert sums.count(Count.UNKNOWN_TICKS)[0] == 3
    assert sums.count(Count.UNDER_TICKS)[0] == 7
    assert sums.count(Count.OVER_TICKS)[0] == 0
    assert sums.amount(Amount.DEMAND)[0] == 2100.0
    assert sums.short.runs[0] == 2


def test_millions_of_vms_do_not_overflow() -> None:
    block = Block.empty(200, 2, TICK_S)
    block.stopped[:] = 2**31 - 1
    block.desired[::2] = 2**31 - 2
    sums = sums_of(block)
    assert (sums.count(Count.STOPPED) == 200 * (2**31 - 1)).all()
    assert (sums.desired.moved == 199 * (2**31 - 2)).all()


@pytest.mark.parametrize(
    ("tick_s", "grid"), [(60.0, 64), (10.0, 384), (1.0, 3584), (300.0, 64), (3600.0, 64)]
)
def test_segments_are_cut_at_about_an_hour(tick_s: float, grid: int) -> None:
    assert grid_ticks(tick_s) == grid


def test_what_cannot_be_joined_or_added_is_refused_in_words() -> None:
    block = random_block(6, 70, 2)
    sums = sums_of(block)
    with pytest.raises(ValueError, match="multiples of 64 ticks"):
        sums.followed_by(sums)
    with pytest.raises(ValueError, match="2 lanes at 60 s cannot be added to sums of 3 lanes"):
        Sums(TICK_S, np.full(3, VM)).add(block)
    with pytest.raises(ValueError, match="same VMs"):
        Sums(TICK_S, np.full(2, VM)).followed_by(Sums(TICK_S, np.full(2, 2 * VM)))
    with pytest.raises(ValueError, match="equally many ticks"):
        Sums.side_by_side([sums, Sums(TICK_S, np.full(2, VM))])


def test_without_elasticity_all_else_is_the_same() -> None:
    block = random_block(8, 200, 3)
    full, lean = sums_of(block), Sums(TICK_S, np.full(3, VM), elasticity=False)
    lean.add(block)
    left_out = {"UNDER", "OVER", "UNDER_TICKS", "OVER_TICKS", "COMPARED_TICKS", "UNSTABLE_TICKS"}
    expected = everything(full)
    for name, value in everything(lean).items():
        if name in left_out:
            assert not value.any(), name
        else:
            np.testing.assert_array_equal(value, expected[name], err_msg=name)
    with pytest.raises(ValueError, match="put side by side"):
        Sums.side_by_side([full, lean])


@pytest.mark.parametrize("gaps", [0.0, 0.05])
@pytest.mark.parametrize("together", [4, 64])
def test_columns_of_demand_and_what_is_lost_come_to_what_every_lane_told_apart_does(
    together: int, gaps: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "rows_together", lambda _lanes: together)
    wide = random_block(11, 150, 6, gaps=gaps)
    columns = wide.demand[:, ::2].copy()
    wide.demand[:] = np.repeat(columns, 2, axis=1)
    wide.shortage = np.maximum(wide.demand - (wide.in_service - wide.stops) * VM, 0.0)
    narrow = replace(wide, demand=columns, shortage=None)
    for cuts in ((), (37,), (37, 90)):
        assert_same(sums_of(wide), sums_of(narrow, cuts))


@pytest.mark.parametrize(("alike", "gap"), [(16, slice(0)), (48, slice(0)), (48, slice(70, 75))])
@pytest.mark.parametrize("plenty", [0, 11, 40])
@pytest.mark.parametrize("elasticity", [True, False])
def test_few_lanes_that_lack_something_and_narrow_counts_come_to_the_same(
    elasticity: bool, plenty: int, alike: int, gap: slice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether all lanes are short in some rows, few, or none: each row is gone through in the way that is quicker."""
    monkeypatch.setattr(ledger, "rows_together", lambda _lanes: 8)
    wide = random_block(13, 150, 48, gaps=0.0)
    wide.in_service += plenty
    wide.desired += plenty
    columns = wide.demand[:, ::alike].copy()
    columns[gap] = np.nan
    wide.demand[:] = np.repeat(columns, alike, axis=1)
    wide.shortage = np.maximum(wide.demand - (wide.in_service - wide.stops) * VM, 0.0)
    assert (wide.shortage > 0.0).any() == (plenty < 40)
    counts = {
        f.name: v for f in fields(Block) if getattr(v := getattr(wide, f.name), "dtype", None) == np.int32
    }
    assert len(counts) == 11
    slim = {name: values.astype(np.int16) for name, values in counts.items()}
    for rows in ({}, slim):
        for cuts in ((), (37, 90)):
            expected, lean = (Sums(TICK_S, np.full(48, VM), elasticity=elasticity) for _ in range(2))
            expected.add(wide)
            block = replace(wide, demand=columns, shortage=None, most_vms=100.0, **rows)
            for first, end in itertools.pairwise((0, *cuts, 150)):
                lean.add(block, slice(first, end))
            assert_same(expected, lean)


@given(
    st.floats(1e-3, 1e6),
    st.one_of(st.floats(0.0, 1e9), st.integers(0, 10**6)),
    st.integers(-2, 2),
)
def test_the_fewest_vms_that_leave_nothing_unserved(each: float, amount: float, ulps: int) -> None:
    """Also where the demand is a whole number of VMs, or the next number to one."""
    demand = amount * each if isinstance(amount, int) else amount
    demand = max(demand + ulps * math.ulp(demand), 0.0)
    least = int(least_vms(np.array([[demand]]), each, np.dtype(np.int64))[0, 0])
    assert least * each >= demand
    assert least == 0 or (least - 1) * each < demand
    assert least_vms(np.array([[demand]]), each, np.dtype(np.int16))[0, 0] == min(least, 2**15 - 1)


@pytest.mark.parametrize("together", [1, 2, 16])
def test_how_many_rows_are_taken_at_once_changes_no_bit(
    together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = random_block(12, 150, 6)
    expected = sums_of(block)
    monkeypatch.setattr(ledger, "rows_together", lambda _lanes: together)
    for most in (math.inf, 20.0):
        assert_same(expected, sums_of(replace(block, most_vms=most), (37,)))
