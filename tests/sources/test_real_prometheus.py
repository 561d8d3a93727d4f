"""A real Prometheus: instant queries with joins, a week of history, TLS with client certificates and passwords."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace

import numpy as np
import pytest

from autoscaler.clock import SystemClock, run_virtual
from autoscaler.core.types import Signal
from autoscaler.errors import SourceError
from autoscaler.ports.sources import History
from autoscaler.sources.prometheus import Join, JoinBy, PrometheusPool, PrometheusSource
from autoscaler.sources.prometheus_access import Address, Tls
from autoscaler.sources.prometheus_history import Past
from tests.daemon.test_first_day import NOW_S, bench_at, lived
from tests.real import require_real
from tests.sources.doubles import vm
from tests.sources.real_prometheus import NOTHING, done, openmetrics, running

pytestmark = pytest.mark.real

PASSWORD_HASH = "$2b$04$abcdefghijklmnopqrstuuLZYjhNQAOdpbzt4WxWlUHjv1wsyH5DG"
"""Hash of s3cret, at the lowest cost."""


@pytest.fixture(name="sources")
async def _sources():
    made, clock = [], SystemClock()
    pool = PrometheusPool(clock)

    def make(address, query, signal, join=None, **more):
        made.append(PrometheusSource(pool.at(address), Past(query, signal, **more), clock, join=join))
        return made[-1]

    yield make
    for source in made:
        await source.close()


def samples(now_s, value, ago_s=300.0, step_s=15.0):
    stamps = now_s - np.arange(ago_s, -1.0, -step_s)
    return stamps, np.full(len(stamps), value)


async def test_joins_and_times_of_the_real_thing(tmp_path, unused_tcp_port, sources):
    now_s = SystemClock().now()
    history = openmetrics(
        {
            ("load", 'instance="10.0.0.1:9100",vm="i-1"'): samples(now_s, 3.0),
            ("load", 'instance="10.0.0.2:9100",vm="i-2"'): samples(now_s - 120.0, 5.0),
            ("load", 'instance="10.0.0.9:9100",vm="i-9"'): samples(now_s, 9.0),
        }
    )
    vms = [vm("i-1", "10.0.0.1"), vm("i-2", "10.0.0.2"), vm("i-3", "10.0.0.3")]
    async with running(tmp_path, unused_tcp_port, history=history) as url:
        address = Address(url)
        found = await sources(address, "load", Signal.THROUGHPUT).read(vms)
        assert (found.vm_ids, found.values.tolist()) == (("i-1", "i-2"), [3.0, 5.0])
        # Prometheus repeats the value of a silent VM; the sample's own timestamp shows its age.
        age_s = SystemClock().now() - found.observed_at_s
        assert 0.0 <= age_s[0] < 15.0
        assert 115.0 < age_s[1] < 140.0
        assert found.error == "1 of 3 gave no reading: no series at 10.0.0.3"

        over = await sources(address, "avg_over_time(load[1m])", Signal.THROUGHPUT).read(vms)
        assert over.vm_ids == ("i-1",)
        by_id = await sources(
            address, "avg_over_time(load[1m])", Signal.THROUGHPUT, join=Join("vm", JoinBy.ID)
        ).read(vms)
        assert by_id.vm_ids == ("i-1",)
        total = await sources(address, "sum(avg_over_time(load[1m]))", Signal.TOTAL).read(())
        assert total.values.tolist() == [12.0]
        for query, words in (
            ("sum(", "refuses the query (bad_data: "),
            ("load[1m]", "a range of time"),
            ("nothing[1m:]", "a range of time"),
            ("absent_metric", "no series now: absent_metric"),
            ("load", "kind total is one"),
            ('"text"', "no plain numbers"),
        ):
            with pytest.raises(SourceError) as caught:
                await sources(address, query, Signal.TOTAL).read(())
            assert words in str(caught.value)
        scalar = await sources(address, "scalar(sum(load)) * 0 + 7", Signal.TOTAL).read(())
        assert scalar.values.tolist() == [7.0]


async def test_node_exporter_through_prometheus(tmp_path, unused_tcp_port_factory, sources):
    exporter = shutil.which("prometheus-node-exporter")
    require_real("prometheus-node-exporter", exporter is not None)
    shown, port = f"127.0.0.1:{unused_tcp_port_factory()}", unused_tcp_port_factory()
    config = f"scrape_configs: [{{job_name: vms, static_configs: [{{targets: ['{shown}']}}]}}]\n"
    process = await asyncio.create_subprocess_exec(exporter, f"--web.listen-address={shown}", **NOTHING)
    try:
        async with running(tmp_path, port, config=config) as url:
            query = '1 - avg by (instance) (rate(node_cpu_seconds_total{mode="idle"}[10s]))'
            source = sources(Address(url), query, Signal.UTILISATION)
            clock, found, error = SystemClock(), None, None
            for _ in range(100):  # the first targets appear 5 s after its start, and a rate takes two scrapes
                try:
                    found = await source.read([vm("i-1", "127.0.0.1")])
                    break
                except SourceError as caught:
                    error = caught
                await clock.sleep_until(clock.monotonic() + 0.6)
            assert "no series now" in str(error)
            assert found is not None
            assert found.vm_ids == ("i-1",)
            assert 0.0 <= found.values[0] <= 1.01
            assert clock.now() - found.observed_at_s[0] < 2.0
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 300)


async def _certificate(folder, name, authority):
    await done(
        "openssl", "req", "-newkey", "rsa:2048", "-nodes", "-keyout", folder / f"{name}.key",
        "-out", folder / f"{name}.csr", "-subj", f"/CN={name}",
    )  # fmt: skip
    (folder / f"{name}.ext").write_text("subjectAltName=IP:127.0.0.1\n")
    await done(
        "openssl", "x509", "-req", "-in", folder / f"{name}.csr", "-CA", folder / f"{authority}.crt", "-CAkey",
        folder / f"{authority}.key", "-CAcreateserial", "-days", "2", "-extfile", folder / f"{name}.ext",
        "-out", folder / f"{name}.crt",
    )  # fmt: skip


async def _authority(folder, name):
    await done(
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", folder / f"{name}.key",
        "-out", folder / f"{name}.crt", "-subj", f"/CN={name}",
    )  # fmt: skip


async def test_tls_client_certificate_and_password(tmp_path, unused_tcp_port, sources, monkeypatch):
    require_real("openssl", shutil.which("openssl") is not None)
    for authority in ("ours", "theirs"):
        await _authority(tmp_path, authority)
    for name in ("prometheus", "client"):
        await _certificate(tmp_path, name, "ours")
    web = (
        f"tls_server_config:\n  cert_file: {tmp_path}/prometheus.crt\n  key_file: {tmp_path}/prometheus.key\n"
        f"  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: {tmp_path}/ours.crt\n"
        f"basic_auth_users: {{scaler: '{PASSWORD_HASH}'}}\n"
    )
    ca, password = tmp_path / "trusted.crt", tmp_path / "password"
    shutil.copy(tmp_path / "theirs.crt", ca)
    password.write_text("wr0ng")
    async with running(tmp_path, unused_tcp_port, web=web, ready=False) as url:
        ours = Tls(ca, tmp_path / "client.crt", tmp_path / "client.key")
        address = Address(url, tls=ours, username="scaler", password_file=password)
        source = sources(address, "vector(1)", Signal.TOTAL)
        nobody = sources(
            Address(url, tls=Tls(ca), username="scaler", password_file=password), "vector(1)", Signal.TOTAL
        )

        async def refused(source, words):
            said = ""
            for _ in range(100):  # it may not listen yet
                said = str(await _error(source))
                if "refused" not in said:
                    break
                clock = SystemClock()
                await clock.sleep_until(clock.monotonic() + 0.1)
            assert words in said
            assert "wr0ng" not in said

        await refused(source, "its certificate is not trusted")
        shutil.copy(tmp_path / "ours.crt", ca)
        await refused(source, "denies access (401)")
        password.write_text("s3cret\n")
        assert (await _later(source)).values.tolist() == [1.0]
        await refused(nobody, f"{url}: ")
        # A renewal that has written the certificate, and not yet its key.
        certificate = ours.cert_file.read_bytes()
        shutil.copy(tmp_path / "theirs.crt", ours.cert_file)
        found = await _later(source)
        assert (found.values.tolist(), "; what was in them before is used" in found.error) == ([1.0], True)
        ours.cert_file.write_bytes(certificate)
        found = await _later(source)
        assert (found.values.tolist(), found.error) == ([1.0], "")
        shutil.copy(tmp_path / "theirs.crt", ca)
        await refused(source, "its certificate is not trusted")
        # The authorities that the system trusts are renewed in the same way.
        monkeypatch.setenv("SSL_CERT_FILE", str(ca))
        with_system = Address(url, tls=replace(ours, ca_file=None), username="scaler", password_file=password)
        source = sources(with_system, "vector(1)", Signal.TOTAL)
        await refused(source, "its certificate is not trusted")
        shutil.copy(tmp_path / "ours.crt", ca)
        assert (await _later(source)).values.tolist() == [1.0]


async def _error(source):
    try:
        found = await _later(source)
    except SourceError as error:
        return error
    return AssertionError(f"it read {found}")


async def _later(source):
    """Read again once an earlier answer is no longer shared."""
    clock = SystemClock()
    await clock.sleep_until(clock.monotonic() + 0.55)
    return await source.read(())


async def test_a_week_of_history(tmp_path, unused_tcp_port, sources):
    """The history made with promtool is read back: summed, as work, with its gap, and unknown while VMs were saturated."""
    now_s = SystemClock().now() // 60 * 60
    stamps = now_s - np.arange(7 * 1440, -1.0, -1.0) * 60.0
    stamps = stamps[(stamps < now_s - 7200.0) | (stamps > now_s - 3600.0)]
    hours = (stamps - stamps[0]) / 3600.0
    first, second = 0.4 + 0.3 * np.sin(hours / 4.0), np.where(hours > 150.0, 0.95, 0.25)
    history = openmetrics(
        {
            ("use", 'instance="10.0.0.1:9100",service="web"'): (stamps, np.round(first, 3)),
            ("use", 'instance="10.0.0.2:9100",service="web"'): (stamps, second),
            ("use", 'instance="10.0.0.3:9100",service="api"'): (stamps, second),
        }
    )
    async with running(tmp_path, unused_tcp_port, history=history) as url:
        more = {"select": (("service", "web"),), "capacity_per_s": 200.0, "saturation": 0.8}
        source = sources(Address(url), "avg_over_time(use[30s])", Signal.UTILISATION, lag_s=5.0, **more)
        found = await source.history(now_s - 7 * 86_400.0, now_s, 60.0)
        assert found.warnings == ()
        at = np.searchsorted(stamps, found.times_s + 5.0)
        assert (stamps[at] == found.times_s + 5.0).all()
        assert 10_000 < len(at) <= len(stamps)
        assert np.count_nonzero((found.times_s > now_s - 7100.0) & (found.times_s < now_s - 3700.0)) == 0
        use = np.round(first, 3)[at] + second[at]
        expected = np.where(use / 2.0 >= 0.8, np.nan, 200.0 * use)
        assert np.isnan(expected).any()
        np.testing.assert_allclose(found.demand, expected, rtol=1e-9)
        # A fleet with an objective relives this history on a clock of its own.
        told = History(found.times_s + (NOW_S - now_s), found.demand, ())
        bench = bench_at(NOW_S)
        daemon = await asyncio.to_thread(lambda: run_virtual(lambda: lived(bench, 30, told)))
        (text,) = bench.log.texts("history_learned")
        assert text.startswith("forecasts and models have learned from 6.")
        trial = daemon.fleets.states()["lanes"].trial
        known = np.count_nonzero(~np.isnan(found.demand))
        assert 0.9 * known < trial.ticks[0] / trial.weight[0] < known
        mean = trial.wanted[0] / trial.ticks[0]
        assert mean == pytest.approx(np.nanmean(found.demand) / 100.0, rel=0.1)

        shared = [sources(Address(url), "avg_over_time(use[30s])", Signal.THROUGHPUT) for _ in range(2)]
        with pytest.raises(SourceError, match="serves several fleets"):
            await shared[0].history(now_s - 86_400.0, now_s, 60.0)
        total = sources(Address(url), "use", Signal.TOTAL)
        with pytest.raises(SourceError, match="the past holds 3 series of use"):
            await total.history(now_s - 3600.0, now_s, 60.0)
        nothing = sources(Address(url), "missing", Signal.TOTAL)
        with pytest.raises(SourceError, match="the past holds no value"):
            await nothing.history(now_s - 3600.0, now_s, 60.0)
