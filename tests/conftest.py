"""Options of the test run."""

from hypothesis import settings

# What a property holds is not how fast the machine is: beside others an example may take any time.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


def pytest_addoption(parser):
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write the recorded decisions anew from this run; say in CHANGELOG.md why they changed",
    )
