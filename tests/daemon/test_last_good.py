"""A restart with broken policy files: the policies last in use are kept, and this is reported."""

import json

import pytest

from autoscaler.daemon.last_good import FILE_NAME, LastGood
from autoscaler.daemon.policies import PolicyFolder, digest_of
from tests.daemon.builders import steady
from tests.daemon.test_reload import Life

MOST = {"web": 4, "api": 3}
DEMAND = dict.fromkeys(MOST, steady((0, 2000)))


@pytest.fixture(name="life")
def _life(tmp_path):
    """A state directory after a minute with two fleets."""
    made = Life(tmp_path, **DEMAND)
    (tmp_path / "defaults.yaml").write_text("drain: {timeout: 90s}\n")
    for fleet, most in MOST.items():
        made.write(fleet, maximum=most)
    return made.run(60)


def rows(life):
    return {row.fleet: row.desired for row in life.bench.records[-1].fleets}


def empty(folder):
    """An empty file, as a power cut may leave it."""
    (folder / "web.yaml").write_text("")


def mistaken(folder):
    path = folder / "web.yaml"
    path.write_text(path.read_text().replace("capacity", "capasity"))


def bad_defaults(folder):
    (folder / "defaults.yaml").write_text("drain: {timeout: [}\n")


def no_file(folder):
    (folder / "web.yaml").unlink()
    (folder / "web.yaml").mkdir()


@pytest.mark.parametrize("broken", [empty, mistaken, bad_defaults, no_file])
def test_a_restart_with_a_broken_file_goes_on_with_what_it_said_and_says_so(life, tmp_path, broken):
    assert rows(life) == {"web": 4, "api": 3}
    broken(tmp_path)
    life.write("api", maximum=2)  # valid files are used as they are now
    life.run(60)
    assert rows(life) == {"web": 4, "api": 2}
    name = "defaults.yaml" if broken is bad_defaults else "web.yaml"
    (said,) = life.logged("policies_rejected")
    begins = (
        f"policies of an earlier run are used: {name} is used in its last good version: {tmp_path}/{name}"
    )
    assert said.startswith(begins)
    assert life.value("policy_reload_failed") == 1
    assert life.daemon.policies.error
    assert not life.daemon.policies.partial
    assert [kind for _, kind, text in life.bench.events() if text.startswith(begins)] == ["policies_rejected"]
    # Repeatedly, until it is repaired.
    life.run(30)
    assert rows(life) == {"web": 4, "api": 2}


def test_once_it_is_mended_the_folder_is_used_as_it_is(life, tmp_path):
    empty(tmp_path)
    life.at.clear()
    life.when(20, life.write, "web", maximum=9).run(60)
    assert rows(life) == {"web": 9, "api": 3}
    assert life.value("policy_reload_failed") == 0
    empty(tmp_path)
    life.at.clear()
    assert rows(life.run(30)) == {"web": 9, "api": 3}


def test_a_file_that_was_removed_stays_removed_and_one_that_never_was_good_is_left_out(life, tmp_path):
    empty(tmp_path)
    (tmp_path / "api.yaml").unlink()
    (tmp_path / "new.yaml").write_text("fleet: new\n")
    life.run(30)
    assert rows(life) == {"web": 4}
    left_out, *_, mended = life.logged("policies_rejected")
    assert left_out.startswith(f"fleets whose policies cannot be used are left out: {tmp_path}/new.yaml:1:1")
    assert mended.startswith("policies of an earlier run are used: web.yaml is used")
    assert life.daemon.policies.partial


def test_what_is_not_whole_is_not_kept(life, tmp_path):
    kept = (tmp_path / FILE_NAME).read_bytes()
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600
    empty(tmp_path)
    life.when(10, life.ask).run(40)
    assert (tmp_path / FILE_NAME).read_bytes() == kept


@pytest.mark.parametrize(
    "damage", ["", "{}", "[]", '{"files": 3}', '{"digest": "x", "files": {"web.yaml": "fleet: web"}}']
)
def test_one_that_is_damaged_or_missing_changes_nothing(tmp_path, damage):
    (tmp_path / "web.yaml").write_text("")
    folder, kept = PolicyFolder(tmp_path, 10.0), LastGood(tmp_path / FILE_NAME)
    found = folder.load()
    assert kept.mend(folder, found) == (found, ())
    kept.path.write_text(damage)
    assert kept.mend(folder, found) == (found, ())


def test_what_this_version_refuses_is_no_help(life, tmp_path):
    """As after an upgrade to a version that no longer knows a key."""
    folder, kept = PolicyFolder(tmp_path, 10.0), LastGood(tmp_path / FILE_NAME)
    mistaken(tmp_path)
    broken = (tmp_path / "web.yaml").read_text()
    said = json.loads(kept.path.read_text())
    said["files"]["web.yaml"] = broken
    contents = {name: text.encode() for name, text in said["files"].items()}
    kept.path.write_text(json.dumps({"digest": digest_of(contents), "files": said["files"]}))
    found = folder.load()
    assert kept.mend(folder, found) == (found, ())


def test_a_folder_that_changed_meanwhile_and_a_disk_that_is_full_keep_the_daemon_going(life, tmp_path):
    folder, kept = PolicyFolder(tmp_path, 10.0), LastGood(tmp_path / FILE_NAME)
    before = kept.path.read_bytes()
    kept.keep(folder, "of another content")
    assert kept.path.read_bytes() == before
    kept.path.unlink()
    kept.path.mkdir()
    life.write("web", maximum=3)
    life.run(40)
    assert rows(life)["web"] == 3
    (said,) = life.logged("policies_not_kept")
    assert (
        said
        == f"a restart will not know these policies if a file is broken then: is a directory: {kept.path}"
    )
