"""Options of the test run."""

import pytest
from hypothesis import settings

from tests.free_ports import Ports

# What a property holds is not how fast the machine is: beside others an example may take any time.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


def pytest_addoption(parser):
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write the recorded decisions anew from this run; say in CHANGELOG.md why they changed",
    )


@pytest.fixture(name="unused_tcp_port_factory")
def _unused_tcp_port_factory():
    """Gives ports on which nothing listens; pytest-asyncio's lets others have them before they are used."""
    with Ports() as ports:
        yield ports.one


@pytest.fixture(name="free_port")
def _free_port(unused_tcp_port_factory):
    """A port on which nothing listens."""
    return unused_tcp_port_factory()


@pytest.fixture(name="unused_tcp_port")
def _unused_tcp_port(free_port):
    """The same by the name of pytest-asyncio's."""
    return free_port
