"""A clock and VMs over HTTP, shared by the tests of several sources."""

import pytest

from tests.sources.doubles import ManualClock, VmsOverHttp


@pytest.fixture(name="web")
async def _web():
    async with VmsOverHttp() as web:
        yield web


@pytest.fixture(name="clock")
def _clock():
    return ManualClock()
