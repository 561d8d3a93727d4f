"""Options of the test run."""


def pytest_addoption(parser):
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write the recorded decisions anew from this run; say in CHANGELOG.md why they changed",
    )
