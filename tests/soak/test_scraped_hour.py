"""Half an hour of a daemon that scrapes two hundred VMs over HTTP, some of which come and go all the time.

The whole hour of ten thousand is run by `python -m benchmarks scraped_hour`.
"""

from __future__ import annotations

import pytest

from tests.soak.scraping import EVERY_S, Hour, Scraped, run
from tests.soak.sizes import growth

HOUR = Hour(
    vms=200, fleets=4, minutes=30.0, sample_at=(10.0, 15.0, 25.0, 30.0), churn_every_s=EVERY_S, idle_s=2.0
)
SETTLED_S = 15 * 60.0


@pytest.fixture(scope="module")
def scraped() -> Scraped:
    return run(HOUR)


def test_every_round_heard_the_vms(scraped) -> None:
    # One VM of fifty is new in each round, and says nothing before its second scrape.
    assert min(scraped.coverage[4:]) > 0.9
    assert len(scraped.coverage) == round(HOUR.minutes * 60.0 / EVERY_S)
    assert scraped.failures == []


def test_nothing_grows_with_what_has_come_and_gone(scraped) -> None:
    grown = [text for text in growth(scraped.samples, SETTLED_S) if not text.startswith(("journal", "desc"))]
    assert grown == []
    # How many VMs go while a connection of one that has gone is kept depends on how busy the machine is.
    first, last = scraped.samples[0].descriptors, scraped.samples[-1].descriptors
    gone_since = HOUR.fleets * (HOUR.sample_at[-1] - HOUR.sample_at[0]) * 60.0 / HOUR.churn_every_s
    assert last < first + gone_since / 4


def test_no_turn_of_the_event_loop_is_long(scraped) -> None:
    """What would make a turn long is in every round; a busy machine makes some of them longer than they are."""
    turns_s = sorted(scraped.turns_s[4:])
    assert turns_s[len(turns_s) // 4] < 0.02
