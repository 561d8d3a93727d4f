"""HAProxy as a balancer, with the real program and with broken ones that answer in its place."""

import asyncio

import pytest

from autoscaler.balancers.haproxy import HaproxyBalancer
from autoscaler.balancers.haproxy_socket import LARGEST_ANSWER, HaproxySocket
from autoscaler.ports import Rotation
from tests.balancers.haproxy_process import BACKEND, Haproxy, Script, Vms, wait_for
from tests.sources.doubles import ManualClock, vm


def balancer(*places, by="address", timeout_s=20.0):
    return HaproxyBalancer(places, BACKEND, by, ManualClock(), timeout_s=timeout_s)


def vms_of(vms):
    return [vm(f"i-{number}", address) for number, address in enumerate(vms.addresses)]


def rotations(view):
    return {vm_id: member.rotation for vm_id, member in view.members.items()}


@pytest.mark.parametrize("tcp", [False, True])
@pytest.mark.parametrize("by", ["address", "id"])
async def test_a_cordoned_vm_finishes_its_work_gets_none_and_comes_back(tmp_path, tcp, by):
    async with Vms(2) as vms, Haproxy(tmp_path, vms, tcp=tcp) as haproxy:
        both, front = vms_of(vms), balancer(haproxy.place, by=by)
        vms.free.clear()
        under_way = [asyncio.create_task(haproxy.request()) for _ in range(2)]
        await wait_for(lambda: len(vms.seen) == 2)

        view = await front.cordon(both[:1])
        assert view.error == ""
        assert (view.members["i-0"].rotation, view.members["i-0"].sessions) == (Rotation.CORDONED, 1)
        vms.free.set()
        assert await asyncio.gather(*under_way) == ["HTTP/1.1 200 OK"] * 2
        view = None

        async def idle():
            # HAProxy counts a session for a moment after its last byte.
            nonlocal view
            view = await front.look(both)
            return [view.members[vm.id].sessions for vm in both] == [0, 0]

        await wait_for(idle)
        assert rotations(view) == {"i-0": Rotation.CORDONED, "i-1": Rotation.IN}

        vms.seen.clear()
        await asyncio.gather(*(haproxy.request() for _ in range(6)))
        assert set(vms.seen) == {vms.addresses[1]}
        assert rotations(await front.admit(both)) == {"i-0": Rotation.IN, "i-1": Rotation.IN}
        vms.seen.clear()
        await asyncio.gather(*(haproxy.request() for _ in range(6)))
        assert set(vms.seen) == set(vms.addresses)


async def test_what_a_draining_vm_still_does_in_the_process_before_a_reload_is_its_work(tmp_path):
    async with Vms(1) as vms, Haproxy(tmp_path, vms) as haproxy:
        its, front = vms_of(vms), balancer(haproxy.place)
        vms.free.clear()
        under_way = asyncio.create_task(haproxy.request())
        await wait_for(lambda: vms.seen)
        await front.cordon(its)
        await haproxy.reload()

        async def shown(view):
            member = (await view).members["i-0"]
            return member.rotation, member.sessions, member.detail

        # The new process knows neither that it drains nor what it does.
        assert await shown(front.look(its)) == (Rotation.IN, 1, "no check, with 1 from before a reload")
        assert await shown(front.cordon(its)) == (Rotation.CORDONED, 1, "DRAIN, with 1 from before a reload")
        vms.free.set()
        assert await under_way == "HTTP/1.1 200 OK"
        assert await shown(front.look(its)) == (Rotation.CORDONED, 1, "DRAIN, with 1 from before a reload")
        assert await shown(front.admit(its)) == (Rotation.IN, 0, "no check")


async def test_what_waits_in_the_queue_of_a_vm_is_its_work(tmp_path):
    async with Vms(1) as vms, Haproxy(tmp_path, vms, maxconn=1) as haproxy:
        vms.free.clear()
        under_way = [asyncio.create_task(haproxy.request()) for _ in range(3)]
        socket = HaproxySocket(haproxy.place, 5.0)

        async def all_there():
            return sum(row.sessions + row.queued for row in await socket.table(BACKEND) if row.name == "i-0")

        await wait_for(lambda: _equals(all_there(), 1))
        # Requests without a chosen VM queue at the backend.
        await wait_for(lambda: _equals(_waiting(socket), 2))
        vms.free.set()
        assert await asyncio.gather(*under_way) == ["HTTP/1.1 200 OK"] * 3


async def _waiting(socket):
    return next(row.queued for row in await socket.table(BACKEND) if row.name == "BACKEND")


async def _equals(asked, value):
    return await asked == value


async def test_a_vm_behind_two_processes_is_out_when_both_say_so(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with Vms(1) as vms, Haproxy(tmp_path / "a", vms) as one, Haproxy(tmp_path / "b", vms) as two:
        only, pair = vms_of(vms), balancer(one.place, two.place)
        assert rotations(await balancer(one.place).cordon(only)) == {"i-0": Rotation.CORDONED}
        assert rotations(await pair.look(only)) == {"i-0": Rotation.IN}
        assert rotations(await pair.cordon(only)) == {"i-0": Rotation.CORDONED}
        view = await balancer(one.place, str(tmp_path / "nobody.sock")).look(only)
        assert view.members == {}
        assert "nobody.sock cannot be reached (no such file or directory)" in view.error
        assert view.error.endswith("and restart it if the file was removed")


async def test_a_vm_that_is_not_in_the_backend_is_named_with_what_is_there(tmp_path):
    async with Vms(1) as vms, Haproxy(tmp_path, vms) as haproxy:
        stranger = vm("i-9", "127.0.9.9")
        view = await balancer(haproxy.place).admit([*vms_of(vms), stranger])
        assert rotations(view) == {"i-0": Rotation.IN, "i-9": Rotation.OUT}
        assert {vm_id: member.known for vm_id, member in view.members.items()} == {"i-0": True, "i-9": False}
        assert "no entry for i-9 (127.0.9.9) by address; it has 127.0.1.1" in view.error


async def test_a_socket_that_may_only_be_read_says_why_nothing_changed(tmp_path):
    async with Vms(1) as vms, Haproxy(tmp_path, vms, level="user") as haproxy:
        # A socket of this level shows no addresses either, so the VM is found by its name.
        view = await balancer(haproxy.place, by="id").cordon(vms_of(vms))
        assert rotations(view) == {"i-0": Rotation.IN}
        assert "refuses state drain for i-0: Permission denied" in view.error


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "closed the connection without an answer"),
        (b"<html>nginx</html>\n", "answered '<html>nginx</html>' instead of its table"),
        (b"\xff\xfe" * 50, "is not HAProxy: the answer is not text"),
        (b"# pxname,svname,qcur,\nweb,i-0,0\n", "cannot be read: KeyError 'status'"),
        (
            b"# pxname,svname,qcur,scur,slim,stot,status,addr,\nweb,i-0,x,0,,0,UP,,\n",
            "cannot be read: ValueError",
        ),
        (b"# pxname,svname,qcur,scur,slim,stot,status,addr,\nother,i-0,0,0,,0,UP,,\n", "has no backend web"),
        (b"x" * (LARGEST_ANSWER + 1), "longer than 16 MiB"),
    ],
    ids=["closed", "html", "bytes", "columns", "number", "backend", "huge"],
)
async def test_garbage_is_named_and_nothing_is_known(tmp_path, answer, said):
    async with Script(tmp_path / "s", answer) as script:
        view = await balancer(str(script.path)).look([vm("i-0", "127.0.1.1")])
    assert view.members == {}
    assert said in view.error


async def test_a_socket_that_hangs_is_left_after_its_time(tmp_path):
    async with Script(tmp_path / "s", None) as script:
        view = await balancer(str(script.path), timeout_s=0.05).cordon([vm("i-0", "127.0.1.1")])
    assert (view.members, view.error) == ({}, f"HAProxy at {script.path} did not answer within 0.05 s")
