"""Two daemon processes on one endpoint: the second one does not act, says so, and stays healthy."""

import re

from tests.cli.conftest import (
    TERMINATE,
    TWO_FLEETS,
    Program,
    call,
    daemon_settings,
    embedded_cloud,
    get,
    strict_json,
    wait_for,
    write_policies,
)


def fleets_of(url):
    return {f["fleet"]: f for f in strict_json(get(f"{url}/api/v1/status")[1])["fleets"]}


def test_the_second_daemon_is_kept_off_and_says_by_whom(tmp_path):
    write_policies(tmp_path / "policies")
    with embedded_cloud(*TWO_FLEETS) as cloud:
        first = daemon_settings(cloud, tmp_path / "one", lease=True)
        second = daemon_settings(cloud, tmp_path / "two", lease=True)
        with Program("run", cwd=tmp_path, **first) as one:
            one.listens()
            one.hears(r"web: holding 3")
            name = (tmp_path / "one" / "daemon-name").read_text().strip()
            with Program("run", cwd=tmp_path, **second) as two:
                url = two.listens()
                two.hears(rf"the daemon {re.escape(name)} acts on it: nothing is done here")
                shown = wait_for(lambda: (f := fleets_of(url)["web"])["leased_to"] and f)
                assert shown["leased_to"] == name
                assert get(f"{url}/healthz")[0] == 200
                told = call("status", "--url", url, cwd=tmp_path)
                assert f"the daemon {name} acts on it" in " ".join(told.stdout.split())
                assert two.end(TERMINATE) == 0
            calls = strict_json(get(f"{cloud}/_world/calls")[1])
            assert calls["vms"]["StartInstances"] == 1
            assert one.end(TERMINATE) == 0
        # The same daemon goes on at once, since the fleet is still its own.
        with Program("run", cwd=tmp_path, **first) as again:
            url = again.listens()
            wait_for(lambda: fleets_of(url)["web"]["decision"])
            assert fleets_of(url)["web"]["leased_to"] == ""
            assert "held until it is known" not in again.output()
            # Without its name, the next run would take the leases of this one for another daemon's.
            for file in ("daemon-name", "journal.sqlite"):
                (tmp_path / "one" / file).unlink()
            again.hears("journal_recovered")
            assert again.end(TERMINATE) == 0
        assert (tmp_path / "one" / "daemon-name").read_text().strip() == name
