"""The rivals in a process of their own: the same to the bit, ended when not needed, reported missing when killed."""

import math
import os
import select
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from autoscaler.cloud.faults import Fault, FaultKind
from autoscaler.errors import InvariantError
from autoscaler.simulator.replay.preparing import Wanted, prepare
from autoscaler.simulator.replay.replaying import entry_of, is_run_once, precompute_forecasts, rivals_of, run
from autoscaler.simulator.search.standings_process import RivalsApart
from tests.simulator.builders import levels, policy

# From Python 3.12 on, forking with threads around is warned of; the child computes and uses none of them.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def replay(*per_s):
    return prepare(
        policy(), Path("web.yaml"), levels(*(per_s or (150, 900, 400, 1200, 300)), each_s=600), Wanted()
    )


def figures(entries):
    return [
        (entry.key, {name: "?" if math.isnan(value) else value for name, value in entry.values.items()})
        for entry in entries
    ]


@pytest.mark.parametrize("processors", [1, 2])
def test_they_are_the_same_to_the_bit(processors):
    shares = []
    with RivalsApart(replay(), processors) as apart:
        found = apart.result(shares.append)
    assert figures(found) == figures(rivals_of(replay()))
    assert len(found) > 6
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


@pytest.mark.parametrize("processors", [1, 2])
def test_of_a_policy_that_is_run_once_they_are_judged_beside_that_run(processors):
    wanted = Wanted(start_failure=0.2, start_p95_s=90.0, warm_up_s=900.0)
    lean = policy(reactive="off", forecast="off", objective={"served": "99%"}, prices={"in_service": "1/h"})
    once = prepare(lean, Path("web.yaml"), levels(150, 900, 400, 1200, 300, each_s=1800), wanted)
    assert is_run_once(once)
    with RivalsApart(once, processors, beside=True) as apart:
        ran = run(once)
        found = apart.result(own=ran.own)
    twice = rivals_of(once)
    assert figures(found) == figures(twice)
    assert len(found) > 6
    assert figures([entry_of(once, ran, "a", rivals=found)]) == figures(
        [entry_of(once, ran, "a", rivals=twice)]
    )
    with RivalsApart(once, processors, beside=True) as apart:
        assert apart.result(own=run(once, enough=lambda: True).own) == ()


def test_the_run_of_a_policy_that_can_be_cut_or_that_lanes_cannot_express_is_not_shared():
    assert not is_run_once(replay())
    assert run(replay()).own is None
    served = policy(objective={"served": "99%"}, prices={"in_service": "1/h"})
    faulty = prepare(
        served,
        Path("web.yaml"),
        levels(150, 900, each_s=600),
        Wanted(faults=(Fault(FaultKind.THROTTLE, 0.0, 60.0),)),
    )
    assert not is_run_once(faulty)


def test_forecasts_are_made_once_for_the_policy_and_its_rivals():
    ahead, alone = replay(), replay()
    precompute_forecasts(ahead)
    made = dict(ahead.outlooks._known)
    # The policy's own, and those at the lead time that it would have without a pool.
    assert len(made) == 2
    ran = run(ahead)
    found = rivals_of(ahead)
    assert ahead.outlooks._known.keys() == made.keys()
    assert all(ahead.outlooks._known[name] is outlooks for name, outlooks in made.items())
    assert ran.decisions == run(alone).decisions
    assert str(ran.rows) == str(run(alone).rows)
    assert figures(found) == figures(rivals_of(replay()))


def test_forecasts_that_nobody_waits_for_are_not_kept():
    ended = replay()
    precompute_forecasts(ended, lambda: True)
    assert ended.outlooks._known == {}
    assert ended.outlooks.look is None
    assert run(ended).decisions == run(replay()).decisions


def test_nobody_waits_for_what_is_not_wanted():
    with RivalsApart(replay(), 2) as apart:
        assert apart.result(None, lambda: True) == ()
        pid = apart._process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_ctrl_c_is_not_for_them():
    with RivalsApart(replay(), 2) as apart:
        told = []

        def interrupt(share):
            if not told:
                os.kill(apart._process.pid, signal.SIGINT)
            told.append(share)

        assert len(apart.result(interrupt)) > 6
        assert told


def test_a_killed_one_is_missed():
    with RivalsApart(replay(), 2) as apart:
        os.kill(apart._process.pid, signal.SIGKILL)
        with pytest.raises(InvariantError, match="ended with exit code -9 and no result"):
            apart.result()


def test_a_failure_of_theirs_is_not_swallowed():
    wrong = replay()
    wrong = replace(wrong, end_s=wrong.begin_s - 60.0)
    with (
        RivalsApart(wrong, 2) as apart,
        pytest.raises(InvariantError, match="ended with exit code 1 and no result"),
    ):
        apart.result()


def test_they_do_not_outlive_a_killed_one():
    """The pipe is open in both processes: its end is the end of the last of them."""
    watched, held = os.pipe()
    script = (
        "from tests.simulator.test_rivals_apart import RivalsApart, replay\n"
        "with RivalsApart(replay(*(150, 900, 400) * 3000), 2) as apart:\n"
        "    print(apart._process.pid, flush=True)\n"
        "    input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=(held,),
    ) as process:
        os.close(held)
        assert process.stdout.readline()
        process.kill()
        ready, _, _ = select.select([watched], [], [], 55.0)
        assert ready
        assert os.read(watched, 1) == b""
    os.close(watched)
