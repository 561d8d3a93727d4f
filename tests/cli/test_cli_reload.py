"""SIGHUP and changed files with the daemon as a process, and what its service manager is told."""

import signal
import socket
import threading

import pytest

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


class Manager:
    """What a service manager hears; it listens all the time, since its queue is short."""

    def __init__(self, folder):
        self.path = str(folder / "notify")
        self.lines = []
        self.channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.channel.bind(self.path)
        self.thread = threading.Thread(target=self.listen)
        self.thread.start()

    def listen(self):
        while (message := self.channel.recv(4096)) != b"END":
            self.lines += message.decode().split("\n")

    def close(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ending:
            ending.sendto(b"END", self.path)
        self.thread.join(10)
        self.channel.close()


@pytest.fixture(name="manager")
def _manager(tmp_path):
    made = Manager(tmp_path)
    yield made
    made.close()


def status(url):
    return strict_json(get(f"{url}/api/v1/status")[1])


def test_a_daemon_is_reloaded_twice_and_told_a_mistake_in_between(tmp_path, manager, monkeypatch):
    policies = write_policies(tmp_path / "policies")
    web = policies / "web.yaml"
    monkeypatch.setenv("NOTIFY_SOCKET", manager.path)
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    with (
        embedded_cloud(*TWO_FLEETS) as cloud,
        Program(
            "run", cwd=tmp_path, **daemon_settings(cloud, tmp_path / "state", ticks_s=5)
        ) as program,
    ):  # fmt: skip
        url = program.listens()
        assert "AUTOSCALER_TICKS_S is not a setting and has no effect; did you mean AUTOSCALER_TICK_S?" in (
            program.output()
        )
        program.hears(r"web: starting 1 \(2 to 3\)")
        wait_for(lambda: "READY=1" in manager.lines and "WATCHDOG=1" in manager.lines, program.output)
        began = status(url)["policies"]
        assert began["error"] == ""

        web.write_text(web.read_text().replace("minimum: 3", "minimum: 4"))
        program.process.send_signal(signal.SIGHUP)
        program.hears(r"policies_reloaded +text='changed web'")
        program.hears(r"web: starting 1 \(3 to 4\)")
        reloaded = status(url)["policies"]
        assert reloaded["loaded_at_s"] > began["loaded_at_s"]
        assert reloaded["digest"] != began["digest"]
        wait_for(lambda: manager.lines.count("READY=1") == 2)
        assert manager.lines.count("RELOADING=1") == 1

        # A mistake is seen without being asked; what was in use goes on.
        web.write_text(web.read_text().replace("minimum: 4", "minimum: four"))
        program.hears("policies_rejected")
        assert "web.yaml:6:" in status(url)["policies"]["error"]
        shown = call("status", "--url", url, cwd=tmp_path)
        assert (
            "policies: the last good ones stay in use, since those in the folder cannot be used"
            in shown.stdout
        )
        assert "web.yaml:6:" in shown.stdout
        assert status(url)["policies"]["digest"] == reloaded["digest"]
        assert "\nautoscaler_policy_reload_failed 1.0\n" in get(f"{url}/metrics")[1]

        web.write_text(web.read_text().replace("minimum: four", "minimum: 5"))
        program.hears(r"web: starting 1 \(4 to 5\)")
        assert status(url)["policies"]["error"] == ""
        assert "policies:" not in call("status", "--url", url, cwd=tmp_path).stdout
        assert program.end(TERMINATE) == 0
        wait_for(lambda: "STOPPING=1" in manager.lines)

        # Nor does a restart forget what was in use, should the file be broken then.
        web.write_text("")
        with Program("run", cwd=tmp_path, **daemon_settings(cloud, tmp_path / "state")) as again:
            again.url = again.listens()
            again.hears("policies of an earlier run are used: web.yaml is used in its last good version: ")
            again.hears(r"web: holding 5")
            shown = call("status", "--url", again.url, cwd=tmp_path)
            assert (
                "policies: the last good ones stay in use, since those in the folder cannot be used"
                in shown.stdout
            )
    assert any(line.startswith("STATUS=2 fleets (1 acting), ") for line in manager.lines)
    assert "Traceback" not in program.output()
