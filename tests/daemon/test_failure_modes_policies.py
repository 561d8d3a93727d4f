"""Failure modes of reloads: torn or nonsensical files never end the daemon, and no partial set comes into use."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoscaler.daemon.policies import PolicyFolder
from tests.daemon.test_reload import CROWD, Life

WRITES, BETWEEN_S = 8, 30.0
FILES = ("web.yaml", "api.yaml", "new.yaml", "defaults.yaml")


class Written(Life):
    """A life in which nonsense is written into the folder, and which notes each set that was valid as a whole."""

    def __init__(self, path, seed):
        super().__init__(path, web=CROWD, api=CROWD, new=150)
        self.luck = np.random.default_rng(seed)
        for fleet in ("web", "api", "new"):
            self.write(fleet)
        self.good = [self.of_the_folder()]
        self.wrong = []
        for number in range(WRITES):
            self.when(20.0 + BETWEEN_S * number, self.scribble)
        for second in range(5, int(BETWEEN_S * (WRITES + 1)), 5):
            self.when(second + 0.5, self.look)

    def of_the_folder(self):
        """The folder's policies by fleet; None if any of them is invalid."""
        found = PolicyFolder(self.path, 10.0).load()
        return None if found.errors else {policy.fleet: policy for policy in found.policies}

    def scribble(self):
        """Change one file: tear it, mix it up, fill it with noise, remove it, repair it, or really change it."""
        luck, path = self.luck, self.path / str(self.luck.choice(FILES))
        text = path.read_bytes() if path.exists() else b""
        lines = text.splitlines(keepends=True)
        at = luck.integers(len(text) + 1)
        match str(
            luck.choice(["torn", "noise", "line", "twice", "other", "gone", "mended", "changed", "text"])
        ):
            case "torn":
                path.write_bytes(text[:at])
            case "noise":
                path.write_bytes(text[:at] + luck.bytes(3) + text[at:])
            case "line" if lines:
                del lines[luck.integers(len(lines))]
                path.write_bytes(b"".join(lines))
            case "twice" if lines:
                path.write_bytes(text + lines[luck.integers(len(lines))])
            case "other":
                path.write_bytes((self.path / str(luck.choice(FILES[:2]))).read_bytes() if text else b"")
            case "gone" if path.name in ("new.yaml", "defaults.yaml"):
                path.unlink(missing_ok=True)
            case "text":
                path.write_text(
                    luck.choice(["", "[]", "fleet:", "\t", "a: &a [*a]", "- 1\n- 2", "fleet: web"])
                )
            case "changed":
                self.write("web", maximum=luck.integers(5, 21), headroom=f"{luck.integers(0, 31)}%")
            case _:
                self.write("api")
        if (found := self.of_the_folder()) is not None:
            self.good.append(found)

    def look(self):
        """Check that the policies in use are one of the sets that were valid as a whole."""
        used = {fleet.name: fleet.policy for fleet in self.daemon.fleets.all}
        if used not in self.good:
            self.wrong.append((self.bench.clock.monotonic(), sorted(used)))


@given(st.integers(0, 2**32))
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_is_written_into_the_folder_a_set_is_in_use_that_was_good_as_a_whole(seed):
    with tempfile.TemporaryDirectory() as folder:
        life = Written(Path(folder), seed)
        assert life.good[0] is not None
        life.run(BETWEEN_S * (WRITES + 1))
        assert life.wrong == []
        assert [life.logged(event) for event in ("tick_failed", "act_failed", "task_failed")] == [[], [], []]
        assert len(life.bench.records) == BETWEEN_S * (WRITES + 1) // 10
        # The set that is valid at the end is in use at the end.
        if (last := life.of_the_folder()) is not None:
            assert {fleet.name: fleet.policy for fleet in life.daemon.fleets.all} == last
