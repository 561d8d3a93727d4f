"""A provider that is down is reported once per reason, then hourly, and when it is back."""

from dataclasses import replace

import pytest

from autoscaler.daemon.failures import FailedListings
from autoscaler.daemon.telemetry import Telemetry
from autoscaler.errors import ProviderError
from tests.daemon.builders import Bench, Log, listing, policy, virtual
from tests.daemon.test_loop_isolation import BadListing


def failed(text, at):
    return replace(listing(at=at, complete=False), error=text)


def followed(*ticks):
    """Report (second, reasons) in turn; return the log and the number of failures counted at each."""
    log = Log()
    unlisted = FailedListings(Telemetry(log=log), 0.0)
    counts = [
        unlisted.follow([("", failed(text, at) if text else listing(at=at)) for text in texts], float(at))
        for at, texts in ticks
    ]
    return [(event, facts["text"]) for _, event, facts in log.lines], counts


def test_it_is_said_when_it_begins_hourly_and_when_it_ended():
    said, counts = followed(*((at, ["down"]) for at in range(0, 7201, 10)), (7210, [""]), (7220, [""]))
    assert said == [
        ("listing_failed", "down"),
        ("listing_failed", "down (no complete listing for 60 min)"),
        ("listing_failed", "down (no complete listing for 2.0 h)"),
        ("listing_recovered", "the list of VMs is complete again, after 2.0 h"),
    ]
    assert counts == [1] * 721 + [0, 0]


def test_another_reason_is_said_at_once_and_reasons_that_take_turns_are_not_said_in_turns():
    said, _ = followed(*((10 * n, ["down" if n % 2 else "denied"]) for n in range(20)))
    assert said == [
        ("listing_failed", "denied"),
        ("listing_failed", "down (no complete listing for 10 s)"),
    ]


def test_equal_failures_count_once_and_all_must_be_whole():
    said, counts = followed((0, ["down", "down"]), (10, ["down", ""]), (20, []), (30, ["", ""]))
    assert (counts, said) == (
        [1, 1, 0, 0],
        [("listing_failed", "down"), ("listing_recovered", "the list of VMs is complete again, after 30 s")],
    )


def test_the_next_time_is_said_again():
    said, _ = followed((0, ["down"]), (10, [""]), (20, ["down"]))
    assert [event for event, _ in said] == ["listing_failed", "listing_recovered", "listing_failed"]


def test_what_comes_and_goes_is_said_three_times_an_hour_and_else_if_it_lasts():
    flapping = [(at, ["slow"] if at % 20 else [""]) for at in range(10, 3500, 10)]
    lasting = [(at, ["slow"]) for at in range(3500, 3591, 10)]
    said, counts = followed(*flapping, *lasting, (3600, [""]), (8000, ["slow"]), (8010, [""]))
    assert sum(counts) == 175 + 10 + 1
    failures = [text for event, text in said if event == "listing_failed"]
    assert failures[:2] == ["slow", "slow"]
    assert failures[2].startswith(
        "slow; this comes and goes, so for the next hour it is reported again only if"
    )
    assert failures[3:] == ["slow (no complete listing for 60 s)", "slow"]
    assert [event for event, _ in said] == ["listing_failed", "listing_recovered"] * 5


def test_a_clock_that_is_set_back_does_not_keep_it_quiet():
    said, _ = followed((7200, ["down"]), (3600, ["down"]), (3610, ["down"]))
    assert said == [("listing_failed", "down"), ("listing_failed", "down")]


def test_reasons_that_take_turns_are_each_said_again_within_an_hour_of_their_own():
    said, _ = followed((0, ["down"]), (0, ["down"]), (10, ["denied"]), (3600, ["down"]), (3609, ["denied"]))
    assert [text.partition(" (")[0] for _, text in said] == ["down", "denied", "down"]


SPANS = {
    0: "0 s",
    89: "89 s",
    90: "2 min",
    91: "2 min",
    5399: "90 min",
    5400: "1.5 h",
    -10: "0 s",
}


@pytest.mark.parametrize("lasted_s", SPANS)
def test_how_long_it_was_is_said_in_the_unit_that_fits(lasted_s):
    began_s = 7200
    said, _ = followed((began_s, ["down"]), (began_s + lasted_s, [""]))
    assert said[-1] == ("listing_recovered", f"the list of VMs is complete again, after {SPANS[lasted_s]}")
    if lasted_s > 0:
        said, _ = followed((began_s, ["down"]), (began_s + lasted_s, ["denied"]))
        assert said[-1] == ("listing_failed", f"denied (no complete listing for {SPANS[lasted_s]})")


@virtual
async def test_a_daemon_whose_provider_comes_back():
    bench = Bench(vms=4, running=2)

    def answer(provider):
        if 30 <= bench.clock.now() - bench.world.start_s < 90:
            raise ProviderError("DescribeInstances: cannot reach the endpoint")
        return provider.list_vms()

    bench.add(policy("web"), 200, provider=BadListing(bench.provider, answer))
    await bench.run(120)
    said = [event for event in bench.log.events() if event.startswith("listing_")]
    assert said == ["listing_failed", "listing_recovered"]
    assert bench.telemetry.registry.get_sample_value("autoscaler_listing_errors_total") == 6


# ── how old ────────────────────────────────────────────────────────────────────────────────────────────


def ages(telemetry):
    """Time of the last complete listing of each place, as Prometheus sees it."""
    return {
        sample.labels["provider"]: sample.value
        for metric in telemetry.registry.collect()
        for sample in metric.samples
        if sample.name == "autoscaler_last_whole_listing_timestamp_seconds"
    }


def test_of_each_place_it_is_known_when_it_was_last_listed_whole():
    telemetry = Telemetry(log=Log())
    unlisted = FailedListings(telemetry, 5.0)
    assert unlisted.places(5.0, 10.0) == []
    far = failed("far: down", 10)
    unlisted.follow([("near", listing(at=10)), ("far", far)], 10.0)
    assert ages(telemetry) == {"near": 10.0, "far": 5.0}
    unlisted.follow([], 15.0)
    unlisted.follow([("near", listing(at=20)), ("near", listing(at=20)), ("far", far)], 20.0)
    assert ages(telemetry) == {"near": 20.0, "far": 5.0}
    assert [
        (each.name, each.whole_at_s, each.error, each.sentence) for each in unlisted.places(65.0, 10.0)
    ] == [
        ("far", None, "far: down", ""),
        ("near", 20.0, "", ""),
    ]
    (old, _) = unlisted.places(125.0, 10.0)
    assert old.sentence == "no complete list of VMs for 2 min: far: down"
    assert unlisted.places(125.0, 60.0)[0].sentence == ""
    unlisted.follow([("near", listing(at=30))], 30.0)
    assert ages(telemetry) == {"near": 30.0}
    assert [each.name for each in unlisted.places(30.0, 10.0)] == ["near"]


def test_a_place_of_which_a_part_is_away_is_as_old_as_its_last_whole_list():
    telemetry = Telemetry(log=Log())
    unlisted = FailedListings(telemetry, 0.0)
    for at, error in ((10, ""), (20, "hv2: gone"), (200, "hv2: gone")):
        unlisted.follow([("", failed(error, at) if error else listing(at=at))], float(at))
    assert ages(telemetry) == {"": 10.0}
    assert unlisted.places(200.0, 10.0)[0].sentence == "no complete list of VMs for 3 min: hv2: gone"
