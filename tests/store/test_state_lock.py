"""Which process may use the state directory of a daemon."""

import os
import stat

from autoscaler.store import SqliteJournal
from autoscaler.store.lock import LOCK_NAME


async def test_only_the_daemons_user_may_lock_its_state_and_only_its_group_may_read_it(tmp_path):
    """Whoever can read a file can lock it, and so could keep the daemon from starting."""
    state_dir = tmp_path / "above" / "state"
    before = os.umask(0o022)
    try:
        await SqliteJournal(state_dir, inline=True).close()
        (state_dir / LOCK_NAME).chmod(0o644)
        await SqliteJournal(state_dir, inline=True).close()
    finally:
        os.umask(before)
    modes = [
        stat.S_IMODE(path.stat().st_mode) for path in (state_dir.parent, state_dir, state_dir / LOCK_NAME)
    ]
    assert modes == [0o755, 0o750, 0o600]
