"""Sweeps on a Dask scheduler: the same bits, and a killed process costs only its part."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from autoscaler.errors import ConfigError
from autoscaler.simulator.search.dask_executor import Dask
from autoscaler.simulator.search.executors import LostPart
from autoscaler.simulator.search.sweep import run_sweep
from autoscaler.simulator.search.variants import Axis, grid
from autoscaler.simulator.search.walkforward import Fold, Plan, walk
from tests.real import require_real
from tests.search.builders import BASE, COURSE, figures

VARIANTS = list(
    grid(BASE, [Axis("reactive.headroom", ("5%", "20%", "60%")), Axis("plant.stop_s", (20.0, 90.0))])
)


def _installed():
    try:
        import distributed  # noqa: F401
    except ImportError:
        return False
    return True


@pytest.fixture(name="here", scope="module")
def _here():
    return run_sweep(VARIANTS, COURSE)


@pytest.fixture(name="local", scope="module", params=[1, 2])
def _local(request):
    """A scheduler on the loopback interface, with so many processes."""
    require_real("the package distributed (extra dask)", _installed())
    import distributed

    with distributed.LocalCluster(
        n_workers=request.param,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        memory_limit=0,
    ) as local:
        yield local.scheduler_address


@pytest.mark.real
@pytest.mark.parametrize("width", [1, 4])
def test_who_computes_and_how_wide_the_parts_are_changes_no_bit(local, here, width):
    again = run_sweep(VARIANTS, COURSE, executor=Dask(local), part_variants=width)
    assert again.unfinished == ()
    assert figures(again) == figures(here)


@pytest.mark.real
def test_a_walk_is_the_same_wherever_it_is_computed(local):
    plan = Plan((Fold(300, 305, 500), Fold(500, 505, 720)), 5, 60, "two folds")
    alone, spread = (
        walk(VARIANTS, COURSE, plan, executor=executor, part_variants=width)
        for executor, width in ((None, 6), (Dask(local), 2))
    )
    assert spread.digests == alone.digests
    assert spread.cells.cost.tolist() == alone.cells.cost.tolist()
    for one, other in zip(alone.judged_on, spread.judged_on, strict=True):
        assert one["cost"].tolist() == other["cost"].tolist()


@pytest.mark.real
def test_threads_of_one_process_do_not_meet(here):
    require_real("the package distributed (extra dask)", _installed())
    import distributed

    with distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=3,
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        memory_limit=0,
    ) as local:
        again = run_sweep(VARIANTS, COURSE, executor=Dask(local.scheduler_address), part_variants=1)
    assert figures(again) == figures(here)


def _dies(shared, part):
    """Ends the process that has the second part, as the kernel does when memory is short."""
    if part == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return shared + part


@pytest.mark.real
def test_a_part_that_kills_its_process_is_named_and_the_others_are_kept():
    require_real("the package distributed (extra dask)", _installed())
    import dask
    import distributed

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            memory_limit=0,
        ) as local,
    ):
        found = {
            each.number: each.result for each in Dask(local.scheduler_address).run(_dies, 10, [0, 1, 2, 3])
        }
    assert sorted(found) == [0, 1, 2, 3]
    assert isinstance(found[1], LostPart)
    assert "ended" in found[1].why
    assert [found[number] for number in (0, 2, 3)] == [10, 12, 13]


@pytest.mark.real
def test_where_nobody_is_left_the_rest_is_lost_and_not_waited_for_without_end():
    """Without a nanny, nobody comes back for a process that ended."""
    require_real("the package distributed (extra dask)", _installed())
    import distributed

    with distributed.LocalCluster(
        n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0", threads_per_worker=1
    ) as local:
        alone = subprocess.Popen(
            [
                *(sys.executable, "-m", "distributed.cli.dask_worker", local.scheduler_address, "--no-nanny"),
                *("--nthreads", "1", "--host", "127.0.0.1", "--no-dashboard", "--memory-limit", "0"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        try:
            with distributed.Client(local.scheduler_address, set_as_default=False) as client:
                client.wait_for_workers(1, timeout=300)
            executor = Dask(local.scheduler_address, patience_s=2.0)
            found = {each.number: each.result for each in executor.run(_dies, 10, [1, 1])}
        finally:
            alone.kill()
            alone.wait()
    assert all(isinstance(result, LostPart) for result in found.values())
    assert sorted(found) == [0, 1]
    assert "had no workers for 2 s" in found[1].why


def _wrong(shared, part):
    raise ConfigError(f"part {part} of {shared} is wrong")


@pytest.mark.real
def test_an_error_in_a_part_is_raised_here(local):
    with pytest.raises(ConfigError, match="part b of all is wrong"):
        list(Dask(local).run(_wrong, "all", ["b"]))


@pytest.mark.real
def test_nobody_at_the_address_is_said():
    require_real("the package distributed (extra dask)", _installed())
    with pytest.raises(ConfigError, match=r"tcp://127\.0\.0\.1:1 does not answer.*--processes"):
        list(Dask("tcp://127.0.0.1:1", connect_s=1.0).run(_wrong, "all", ["b"]))
    assert threading.active_count() < 50
