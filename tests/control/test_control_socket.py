"""The control socket as a file: who has access, what is replaced, and what is never changed."""

from __future__ import annotations

import fcntl
import grp
import os
import shutil
import socket
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from autoscaler.errors import DaemonError
from autoscaler.web.control_socket import MODE, bind, user_id
from tests.real import require_real

NOBODY = 65534


def left_by_a_dead_daemon(path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))


@contextmanager
def listening(path):
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(str(path))
        there.listen()
        yield there


@contextmanager
def bound(path, group=""):
    made = bind(path, group)
    try:
        yield made
    finally:
        made.remove()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_its_mode_does_not_depend_on_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        with bound(tmp_path / "c.sock") as made:
            found = made.path.stat()
            assert stat.S_ISSOCK(found.st_mode)
            assert stat.S_IMODE(found.st_mode) == MODE == 0o660
    finally:
        assert os.umask(before) == umask
    assert list(tmp_path.iterdir()) == []


def test_nobody_may_connect_before_the_group_is_right(tmp_path, monkeypatch):
    """Whoever looks between `bind` and the end sees a file that is closed to all."""
    seen = []
    real = os.chown

    def looking(path, *ids):
        seen.append(stat.S_IMODE(path.stat().st_mode))
        real(path, *ids)

    # The system's own call is watched, not replaced.
    monkeypatch.setattr(os, "chown", looking)
    with bound(tmp_path / "c.sock", grp.getgrgid(os.getegid()).gr_name) as made:
        assert made.path.stat().st_gid == os.getegid()
    assert seen == [0]


def test_one_that_a_dead_daemon_left_is_replaced(tmp_path):
    path = tmp_path / "c.sock"
    left_by_a_dead_daemon(path)
    with bound(path) as made:
        made.socket.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_one_that_lives_is_left_alone(tmp_path):
    path = tmp_path / "c.sock"
    with listening(path) as there:
        inode = path.stat().st_ino
        with pytest.raises(
            DaemonError, match=f"another daemon listens on the control socket {path}; stop that one"
        ):
            bind(path)
        assert path.stat().st_ino == inode
        there.accept()[0].close()


def test_one_that_lives_and_is_too_busy_to_answer_is_left_alone(tmp_path):
    path = tmp_path / "c.sock"
    with listening(path) as there:
        there.listen(0)
        with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
            for client in (first, second):
                client.setblocking(False)
                client.connect_ex(str(path))
            with pytest.raises(DaemonError, match="another daemon listens"):
                bind(path)


@pytest.mark.parametrize("kind", ["file", "folder", "link to a file"])
def test_what_is_no_socket_is_left_alone(tmp_path, kind):
    path = tmp_path / "c.sock"
    if kind == "file":
        path.write_text("notes")
    elif kind == "folder":
        path.mkdir()
    else:
        (tmp_path / "notes").write_text("notes")
        path.symlink_to("notes")
    with pytest.raises(
        DaemonError, match="exists where the control socket should be and is not a socket; move it away"
    ):
        bind(path)
    assert path.exists()


def test_a_folder_that_everybody_may_write_to_is_refused(tmp_path):
    tmp_path.chmod(0o1777)
    with pytest.raises(DaemonError, match="everybody may write to it, so anybody could replace the socket"):
        bind(tmp_path / "c.sock")
    assert list(tmp_path.iterdir()) == []


def test_two_daemons_that_begin_at_once_do_not_take_each_others(tmp_path):
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    try:
        with pytest.raises(DaemonError, match="another daemon is making its control socket right now"):
            bind(tmp_path / "c.sock")
    finally:
        os.close(folder)
    with bound(tmp_path / "c.sock"):
        pass


def test_a_path_that_linux_does_not_allow_is_refused(tmp_path):
    with pytest.raises(DaemonError, match=r"is longer than 107 bytes.*\(setting control_socket\)"):
        bind(tmp_path / ("x" * 108))


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(DaemonError, match="cannot be made, since its folder does not exist; make the folder"):
        bind(tmp_path / "nowhere" / "c.sock")


def test_an_unknown_group_is_said(tmp_path):
    with pytest.raises(DaemonError, match=r"there is no group opetarors .*`groupadd`"):
        bind(tmp_path / "c.sock", "opetarors")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(name="folder_of_nobody")
def _folder_of_nobody():
    require_real("root, to act as another user", os.geteuid() == 0)
    # Not below tmp_path: that one is closed to other users as a whole.
    folder = Path(tempfile.mkdtemp(prefix="control-"))
    os.chown(folder, NOBODY, NOBODY)
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    yield folder
    os.seteuid(0)
    os.setegid(0)
    shutil.rmtree(folder)


def test_a_group_that_the_daemon_is_not_in_is_said(folder_of_nobody):
    there = next(group for group in grp.getgrall() if group.gr_gid not in (NOBODY, *os.getgroups()))
    words = rf"cannot be given to the group {there.gr_name} .* user is not in it; add that user"
    with pytest.raises(DaemonError, match=words):
        bind(folder_of_nobody / "c.sock", there.gr_name)
    assert list(folder_of_nobody.iterdir()) == []


def test_one_who_may_not_write_there_is_told(folder_of_nobody):
    folder_of_nobody.chmod(0o555)
    with pytest.raises(
        DaemonError, match="cannot be made: permission denied; check owner and mode of its folder"
    ):
        bind(folder_of_nobody / "c.sock")


def test_at_the_end_the_socket_of_another_daemon_stays(tmp_path):
    path = tmp_path / "c.sock"
    made = bind(path)
    path.unlink()
    with listening(path):
        made.remove()
        assert path.exists()


def test_the_kernel_says_who_is_at_the_other_end(tmp_path):
    one, other = socket.socketpair()
    with one, other:
        assert user_id(one) == os.geteuid()
