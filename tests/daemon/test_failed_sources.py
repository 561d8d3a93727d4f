"""A source that is down is reported once per reason, then hourly, and when it is back."""

from autoscaler.daemon.failures import AGAIN_S
from tests.daemon.builders import ORIGIN_S, Bench, policy, virtual


async def source_log(words, seconds):
    """Log lines about a fleet's source, whose error at each second is `words(second)`."""
    bench = Bench(running=1, zones="a")
    source = bench.add(policy(signal={"kind": "total"}), 100)
    source.total, read, said = True, source.read, []

    async def complaining(vms):
        second = round(bench.clock.now() - ORIGIN_S)
        if text := words(second):
            raise OSError(text)
        return await read(vms)

    source.read = complaining
    write = bench.log.warning

    def noting(event, **facts):
        said.append(
            (round(bench.clock.now() - ORIGIN_S), event, facts.get("text", "").rpartition("error: ")[2])
        )
        write(event, **facts)

    bench.log.warning = noting
    await bench.run(seconds)
    return [line for line in said if line[1] == "source_failed"]


@virtual
async def test_reasons_that_take_turns_are_not_said_in_turns():
    found = await source_log(lambda second: "it hangs" if second // 10 % 2 else "no answer", 300)
    assert [at_s for at_s, *_ in found] == [0, 10]


@virtual
async def test_a_number_that_grows_is_no_other_reason():
    found = await source_log(lambda second: f"late by {second + 1} s", 300)
    assert [at_s for at_s, *_ in found] == [0]


@virtual
async def test_it_is_said_again_hourly_and_whenever_it_begins():
    found = await source_log(lambda second: "" if 4000 <= second < 4100 else "no answer", 4200)
    assert [at_s for at_s, *_ in found] == [0, int(AGAIN_S), 4100]


@virtual
async def test_all_ticks_are_counted_nonetheless():
    bench = Bench(running=1, zones="a")
    source = bench.add(policy(signal={"kind": "total"}), 100)

    async def failing(_):
        raise OSError("no answer")

    source.read = failing
    await bench.run(60)
    assert bench.telemetry.registry.get_sample_value("autoscaler_source_errors_total", {"fleet": "web"}) == 7
