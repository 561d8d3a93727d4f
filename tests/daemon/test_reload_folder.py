"""The folder of policies: what counts as a change, and a disk that hangs."""

import asyncio
import os
import threading

import pytest

from autoscaler.clock import SystemClock
from autoscaler.config.loading import PolicySet
from autoscaler.daemon.loop import Daemon
from autoscaler.daemon.policies import MAX_FILES, PolicyFolder, PolicyStatus
from autoscaler.daemon.reloading import Reloads
from autoscaler.errors import ConfigError
from tests.daemon.builders import Bench, policy, virtual
from tests.daemon.test_reload import POLICY


@pytest.fixture(name="folder")
def _folder(tmp_path):
    (tmp_path / "web.yaml").write_text("fleet: web\n")
    (tmp_path / "defaults.yaml").write_text("act: false\n")
    return PolicyFolder(tmp_path, 10.0)


CHANGES = {
    "written": lambda path: (path / "web.yaml").write_text("fleet: wob\n"),
    "defaults": lambda path: (path / "defaults.yaml").write_text("act: true\n"),
    "added": lambda path: (path / "api.yml").write_text("fleet: api\n"),
    "removed": lambda path: (path / "web.yaml").unlink(),
    "renamed": lambda path: (path / "web.yaml").rename(path / "wob.yaml"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_changes_stamp_and_digest(name, folder):
    stamp, digest = folder.stamp(), folder.digest()
    CHANGES[name](folder.path)
    assert folder.stamp() != stamp
    assert folder.digest() != digest


def test_writing_the_same_again_changes_the_stamp_only(folder):
    stamp, digest = folder.stamp(), folder.digest()
    os.utime(folder.path / "web.yaml", ns=(1, 1))
    assert folder.stamp() != stamp
    assert folder.digest() == digest


def test_other_and_hidden_files_are_nothing(folder):
    stamp, digest = folder.stamp(), folder.digest()
    for name in (".web.yaml.swp", ".hidden.yaml", "day.csv", "web.yaml~"):
        (folder.path / name).write_text("x")
    assert (folder.stamp(), folder.digest()) == (stamp, digest)


def test_what_would_block_or_never_end_is_refused(folder):
    os.mkfifo(folder.path / "pipe.yaml")
    with pytest.raises(ConfigError, match=r"pipe\.yaml is not a file"):
        folder.digest()
    (folder.path / "pipe.yaml").unlink()
    for number in range(MAX_FILES):
        (folder.path / f"{number}.yaml").touch()
    with pytest.raises(ConfigError, match=f"holds {MAX_FILES + 2} files; at most {MAX_FILES} are read"):
        folder.digest()
    assert "at most" in folder.stamp()


def test_a_folder_that_is_not_there_has_a_stamp_in_words_and_no_digest(tmp_path):
    folder = PolicyFolder(tmp_path / "nowhere", 10.0)
    assert "No such file" in folder.stamp()
    assert folder.before_loading().digest == ""


class HangingFolder(PolicyFolder):
    """A folder on a disk that hangs until it is released. It counts the waiting threads."""

    def __init__(self, path):
        super().__init__(path, 10.0)
        self.free = threading.Event()
        self.waiting = 0

    def stamp(self):
        self.waiting += 1
        self.free.wait(300)
        return super().stamp()

    def load(self):
        return PolicySet()


async def wait_for(found):
    """Wait for a condition in turns of the loop on the real clock, with a limit."""
    clock = SystemClock()
    end_s = clock.monotonic() + 100
    while not found():
        assert clock.monotonic() < end_s
        await clock.sleep_until(clock.monotonic() + 0.01)


async def test_a_disk_that_hangs_costs_its_bound_and_one_thread_and_is_heard_of_once(tmp_path):
    (tmp_path / "web.yaml").write_text(
        POLICY.format(
            fleet="web", act="true", start_time="20s", minimum=0, maximum=20, headroom="0%", probe="running",
            stabilisation="60s",
        )
    )  # fmt: skip
    bench = Bench(vms=1, clock=SystemClock())
    bench.add(policy(), 100)
    daemon = Daemon(bench.clock, bench.setups, bench.journal, bench.telemetry, bench.settings)
    folder = HangingFolder(tmp_path)
    loaded = PolicyFolder(tmp_path, 10.0).before_loading()
    reloads = Reloads(daemon, folder, lambda *_: None, loaded, read_within_s=0.05)
    watching = asyncio.create_task(reloads.watch())
    for asked in range(1, 4):
        reloads.ask()
        await wait_for(lambda asked=asked: failures(bench) == asked)
    assert folder.waiting == 1
    (said,) = bench.log.texts("policies_rejected")
    assert said.endswith(f"those in the folder cannot be used: {tmp_path} did not answer within 0.05 s")
    folder.free.set()
    await wait_for(reloads._reading.done)
    reloads.ask()
    await wait_for(lambda: bench.log.texts("policies_reloaded") or failures(bench) > 3)
    assert folder.waiting == 2
    watching.cancel()
    await asyncio.wait({watching})


def failures(bench):
    name = "autoscaler_policy_reloads_total"
    return bench.telemetry.registry.get_sample_value(name, {"result": "failure"})


@virtual
async def test_where_nobody_follows_a_folder_the_status_says_so():
    bench = Bench(vms=1)
    bench.add(policy(), 100)
    await bench.run(1)
    assert bench.daemon.policies == PolicyStatus(None, "", "")
