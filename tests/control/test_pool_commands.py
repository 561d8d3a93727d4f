"""`pool` as an operator types it, against a daemon's real socket."""

from __future__ import annotations

import asyncio

import pytest

from autoscaler.cli.json_keys import JSON_OF
from autoscaler.cli.warm_pool import total
from autoscaler.web.control import Control
from tests.cli.conftest import _invoke, strict_json  # noqa: F401  a fixture
from tests.control.test_control_api import ME, Serving


@pytest.fixture(name="serving")
async def _serving(tmp_path):
    (tmp_path / "state").mkdir()
    made = Serving(tmp_path / "state" / "control.sock")
    await made.daemon.tick(1)
    async with Control(made.daemon, made.path):
        yield made
    await made.bench.journal.close()


@pytest.fixture(name="run")
def _run(invoke):
    async def run(*arguments):
        result = await asyncio.to_thread(invoke, "pool", *arguments)
        assert isinstance(result.exception, SystemExit | None), result.exception
        return result.exit_code, result.stdout, result.stderr

    return run


async def test_looking_and_quarantining(serving, run):
    code, out, _ = await run("list", "--json")
    assert code == 0
    assert sorted(strict_json(out)) == sorted(JSON_OF["pool list"].keys)
    stopped = [vm["vm"] for vm in strict_json(out)["vms"] if vm["phase"] == "stopped"]
    assert stopped
    code, out, err = await run("quarantine", "web", stopped[0], "-m", "smells")
    assert (code, out, err) == (0, f"{stopped[0]} of web will not be started until released.\n", "")
    code, out, _ = await run("list", "-f", "web")
    (line,) = [line for line in out.splitlines() if stopped[0] in line]
    assert f"not started: quarantined by {ME}: smells" in line
    assert "VMs by image:" in out
    told = [text for _, kind, text in serving.bench.events() if kind == "pool_quarantine"]
    assert told == [f"{ME} quarantined {stopped[0]} (smells)"]


async def test_a_list_ends_with_how_many_vms_are_in_which_state(serving, run):
    for arguments in ((), ("-f", "web")):
        _, out, _ = await run("list", *arguments)
        assert out.splitlines()[-1] == "6 VMs: 4 stopped, 2 in service"
    (one, *_) = strict_json((await run("list", "--json"))[1])["vms"]
    assert total([one]) == "1 VM: 1 stopped"
    assert total([one, one | {"fleet": "api", "phase": "in_service"}]) == (
        "2 VMs of 2 fleets: 1 stopped, 1 in service"
    )


async def test_vms_that_lack_a_patch_are_found_by_image_version_and_age(serving, run):
    day_s, now_s = 86_400, serving.bench.clock.now()
    world = serving.bench.world
    (old,) = world.provision(
        now_s,
        "web",
        1,
        image="ami-0000000a",
        tags={"autoscaler:version": "7.1", "autoscaler:baked-at": "1998-06-10"},
    )
    (new,) = world.provision(
        now_s,
        "web",
        1,
        image="ami-0000000b",
        tags={"autoscaler:version": "7.2", "autoscaler:baked-at": f"{now_s - day_s:.0f}"},
    )
    await serving.daemon.tick(2)

    async def found(*arguments):
        code, out, _ = await run("list", "--json", *arguments)
        assert code == 0
        return {vm["vm"]: vm for vm in strict_json(out)["vms"]}

    everything = await found()
    assert everything[old]["image"] == "ami-0000000a"
    assert everything[old]["version"] == "7.1"
    assert everything[new]["baked_s"] == pytest.approx(day_s, abs=60)
    others = everything.keys() - {old, new}
    assert {everything[i]["version"] for i in others} == {everything[i]["baked_s"] for i in others} == {None}
    assert set(await found("--image", "ami-0000000a")) == {old}
    assert set(await found("--version", "7.2")) == {new}
    assert set(await found("--older-than", "2d")) == {old}
    # Where no tag tells, a VM counts by its own age.
    assert set(await found("--older-than", "1h")) == {old, new}
    code, out, _ = await run("list", "--image", "ami-0000000c")
    assert (code, out) == (0, "no such VM\n")
    code, out, _ = await run("list", "--image", "ami-0000000a")
    (line,) = [line for line in out.splitlines() if old in line]
    assert "ami-0000000a  7.1" in line


async def test_what_is_refused_is_one_sentence_and_ends_with_1(serving, run):
    assert await run("evict", "web", "i-0", "-m", "x") == (
        1,
        "",
        "pool evict: web has no VM i-0; `autoscaler pool list --fleet web` shows them\n",
    )
    code, _, err = await run("list", "-f", "wep")
    assert (code, err.count("\n")) == (1, 1)
    assert "did you mean web" in err
    code, _, err = await run("refresh", "web", "-m", " ")
    assert code == 1


async def test_an_unknown_word_or_a_bad_body_changes_nothing(serving):
    status, answer = await serving.post("pool/explode", {"fleet": "web", "reason": "x"})
    assert status == 404
    status, answer = await serving.post("pool/evict", {"fleet": "web", "vms": "i-1", "reason": "x"})
    assert status == 400
    assert "vms" in answer["error"]
