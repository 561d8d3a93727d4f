"""A real Prometheus on loopback, whose history is made with promtool before it starts."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from autoscaler.clock import SystemClock
from autoscaler.sources.fan_out import FanOut, Limits
from tests.real import require_real

PROMETHEUS, PROMTOOL = "prometheus", "promtool"
NOTHING = {"stdout": asyncio.subprocess.DEVNULL, "stderr": asyncio.subprocess.DEVNULL}


async def done(*command, cwd=None):
    process = await asyncio.create_subprocess_exec(
        *map(str, command), cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await asyncio.wait_for(process.communicate(), 300)
    assert process.returncode == 0, said.decode()


def openmetrics(series):
    """OpenMetrics text for gauges: {(name, labels): (stamps, values)}."""
    names = {}
    for (name, labels), (stamps, values) in series.items():
        rows = names.setdefault(name, [f"# TYPE {name} gauge"])
        rows += [
            f"{name}{{{labels}}} {value:g} {at_s:.3f}" for at_s, value in zip(stamps, values, strict=True)
        ]
    return "\n".join(row for rows in names.values() for row in rows) + "\n# EOF\n"


@asynccontextmanager
async def running(folder: Path, port: int, *, history="", config="", web="", ready=True):
    """Run a Prometheus; gives its base URL.

    Args:
        folder: Folder for its files.
        port: Port on loopback.
        history: OpenMetrics text of the past.
        config: Its `scrape_configs`.
        web: Contents of its web.config file.
        ready: Whether to wait until it is ready, over plain HTTP.
    """
    command, tool = shutil.which(PROMETHEUS), shutil.which(PROMTOOL)
    require_real(PROMETHEUS, command is not None)
    require_real(PROMTOOL, tool is not None)
    data, files = folder / "data", folder / "prometheus.yml"
    data.mkdir()
    files.write_text(f"global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n{config}")
    more = []
    if history:
        (folder / "history.txt").write_text(history)
        await done(tool, "tsdb", "create-blocks-from", "openmetrics", folder / "history.txt", data)
    if web:
        (folder / "web.yml").write_text(web)
        more.append(f"--web.config.file={folder / 'web.yml'}")
    process = await asyncio.create_subprocess_exec(
        command, f"--config.file={files}", f"--storage.tsdb.path={data}", "--storage.tsdb.retention.time=60d",
        f"--web.listen-address=127.0.0.1:{port}", *more, **NOTHING,
    )  # fmt: skip
    try:
        if ready:
            await until_ready(f"http://127.0.0.1:{port}/-/ready")
        yield f"{'http' if ready else 'https'}://127.0.0.1:{port}"
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 300)


async def until_ready(url):
    clock, asking = SystemClock(), FanOut(Limits(timeout_s=2.0))
    try:
        for _ in range(2000):
            if not (await asking.get_all({"": url}, len))[""].error:
                return
            await clock.sleep_until(clock.monotonic() + 0.05)
        pytest.fail(f"{url} did not answer within 100 s")
    finally:
        await asking.close()
