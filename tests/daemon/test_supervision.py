"""Background tasks: whatever ends them, it is reported and counted, and they are started again after a pause."""

import asyncio

from autoscaler.daemon.lifecycle import (
    LIVED_S,
    LONGEST_PAUSE_S,
    PRUNE_FIRST_S,
    Retention,
    keep_alive,
    run_to_the_end,
)
from autoscaler.daemon.loop import Daemon
from autoscaler.daemon.notify import Notifier
from tests.daemon.builders import Bench, policy, virtual


def daemon_of(bench, **more):
    bench.add(policy(), 100)
    bench.daemon = Daemon(bench.clock, bench.setups, bench.journal, bench.telemetry, bench.settings, **more)
    return bench.daemon


async def for_s(seconds, coroutine):
    task = asyncio.create_task(coroutine)
    await asyncio.wait({task}, timeout=seconds)
    assert not task.done()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


def restarts(bench, name):
    return bench.telemetry.registry.get_sample_value("autoscaler_task_restarts_total", {"task": name})


@virtual
async def test_a_task_that_dies_is_told_counted_and_restarted_ever_more_slowly():
    bench = Bench(vms=1)
    began = []

    async def body():
        began.append(bench.clock.monotonic())
        raise ZeroDivisionError("a bug")

    await for_s(2000, keep_alive(daemon_of(bench), "watch", body))
    pauses = [1, 2, 4, 8, 16, 32, 64, 128, 256, *[LONGEST_PAUSE_S] * 4]
    assert began == [sum(pauses[:n]) for n in range(len(pauses) + 1)]
    assert restarts(bench, "watch") == len(began)
    assert bench.log.texts("task_failed")[0] == "watch: ZeroDivisionError: a bug; it is restarted in 1 s"
    assert bench.log.texts("task_failed")[2] == "watch: ZeroDivisionError: a bug; it is restarted in 4 s"
    assert [kind for _, kind, _ in bench.events()] == ["task_failed"] * len(began)


@virtual
async def test_a_task_that_lived_is_restarted_soon_again():
    bench = Bench(vms=1)
    began = []

    async def body():
        began.append(bench.clock.monotonic())
        if len(began) == 4:
            await bench.clock.sleep_until(bench.clock.monotonic() + LIVED_S)
        raise OSError

    await for_s(620, keep_alive(daemon_of(bench), "watch", body))
    assert began == [0, 1, 3, 7, 608, 610, 614]


@virtual
async def test_ending_and_being_cancelled_from_within_are_deaths_too():
    bench = Bench(vms=1)
    ends = [None, asyncio.CancelledError(), None]

    async def body():
        end = ends.pop(0) if ends else None
        if end is not None:
            raise end

    await for_s(5, keep_alive(daemon_of(bench), "watch", body))
    assert [text.partition("; ")[0] for text in bench.log.texts("task_failed")] == [
        "watch: it ended by itself",
        "watch: it was cancelled from within",
        "watch: it ended by itself",
    ]


@virtual
async def test_housekeeping_survives_a_journal_with_a_bug():
    bench = Bench(vms=1)
    bench.journal = BadPruning(bench.journal, bench.clock)
    await run_to_the_end(daemon_of(bench), retention=Retention(30.0, 10**9), for_s=PRUNE_FIRST_S * 3 + 10)
    assert bench.journal.asked_at == [PRUNE_FIRST_S, 2 * PRUNE_FIRST_S + 1, 3 * PRUNE_FIRST_S + 3]
    assert restarts(bench, "housekeeping") == 3
    assert bench.log.events()[-1] == "daemon_stopping"


class BadPruning:
    """The real journal, except that pruning fails with an unknown error."""

    def __init__(self, journal, clock):
        self.journal, self.clock = journal, clock
        self.asked_at = []

    def __getattr__(self, name):
        return getattr(self.journal, name)

    async def prune(self, *, before_s, max_bytes):
        self.asked_at.append(self.clock.monotonic())
        raise KeyError("ticks")


class Heard(Notifier):
    """A notifier that keeps its messages with their times."""

    def __init__(self, clock, watchdog_s):
        super().__init__("@nobody", watchdog_s)
        self.clock, self.lines = clock, []

    def _send(self, *lines):
        self.lines += [(self.clock.monotonic(), line) for line in lines]
        return True

    def at(self, line):
        return [at_s for at_s, said in self.lines if said == line]


@virtual
async def test_the_service_manager_hears_of_the_start_of_life_and_of_the_end():
    bench = Bench(running=1)
    heard = Heard(bench.clock, watchdog_s=20.0)
    await run_to_the_end(daemon_of(bench, notifier=heard), for_s=45.0)
    assert heard.at("READY=1") == [0]
    assert heard.at("WATCHDOG=1") == [0, 10, 20, 30, 40]
    assert heard.at("STOPPING=1") == [45]
    assert heard.at("STATUS=1 fleet (1 acting), 1 VM in service") == [0, 10, 20, 30, 40]


@virtual
async def test_there_is_no_sign_of_life_once_a_fleet_is_not_decided_on_for_three_ticks():
    bench = Bench(running=1)
    heard = Heard(bench.clock, watchdog_s=20.0)
    daemon_of(bench, notifier=heard)
    # Between 25 and 95 every tick fails before it decides.
    asyncio.get_running_loop().call_later(25, setattr, bench.daemon, "_decide", failing)
    asyncio.get_running_loop().call_later(95, bench.daemon.__dict__.pop, "_decide")
    await run_to_the_end(bench.daemon, for_s=125.0)
    # The last decision was at 20, which at 60 is more than three ticks ago; the next one is made at 100.
    assert heard.at("WATCHDOG=1") == [0, 10, 20, 30, 40, 50, 110, 120]
    assert heard.at("READY=1") == [0]


def failing(*_):
    raise ZeroDivisionError
