"""The page and the metrics on the scheduler, from a driver's events to the browser."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Browser
from cluster_tools import problem
from distributed import Client

import daskps
from daskps.monitor import metrics
from daskps.monitor.dashboard import POINTS, TOPIC, DaskpsDashboard, RunView
from daskps.monitor.figures import Figures
from daskps.monitor.page import Page
from daskps.run.answers import FIELDS


def message(clock: int = 1, **more: Any) -> dict[str, Any]:
    figures = Figures(run="r", model="M", clock=clock, target=9, clocks=[clock, clock + 1])
    return {**figures.message(), "loss": 1.0 / clock, "slots": {"w": 64}, **more}


def test_a_view_keeps_losses_rates_and_what_happened() -> None:
    view = RunView()
    view.take(message(1, pulled=0.0), 10.0)
    view.take(message(4, pulled=100.0, happened=["checkpoint cut-4"]), 12.0)
    assert list(view.losses) == [(1, 1.0), (4, 0.25)]
    assert list(view.rates) == [(12_000.0, 50.0, 0.0)]
    assert list(view.happened) == [(12_000.0, "checkpoint cut-4")]
    view.take(message(2), 13.0)  # a recovery took the run back
    assert list(view.losses) == [(1, 1.0), (2, 0.5)]


def test_the_scheduler_keeps_few_runs_and_few_moments() -> None:
    plugin = DaskpsDashboard()
    plugin.log_event("another topic", {})
    for n in range(10):
        plugin.log_event(TOPIC, message(run=f"r{n}"))
    assert list(plugin.runs) == ["r6", "r7", "r8", "r9"]
    for clock in range(1, POINTS + 10):
        plugin.log_event(TOPIC, message(clock, run="r9"))
    assert len(plugin.runs["r9"].losses) == POINTS


def test_the_page_shows_the_newest_run_and_marks_the_slowest() -> None:
    runs: dict[str, RunView] = {}
    page = Page(runs)
    page.update()
    assert "no run" in page.summary.text
    runs["r"] = RunView()
    runs["r"].take(message(3, happened=["lost tcp://w", "recovered in 1 s"]), 1.0)
    page.update()
    assert "clock 3 of 9" in page.summary.text
    colors = page.clock_data.data["color"]
    assert colors[0] != colors[1]
    assert page.event_data.data["kind"] == ["worker", "recovery"]
    assert page.slot_data.data == {"worker": ["w"], "slots": [64]}


def test_the_page_shows_bytes_and_latency_of_each_shard() -> None:
    view, places = RunView(), {"0": "w", "1": "v"}
    page = Page({"r": view})
    first = {"0": [10, 0.02, 400, 10, 0.1, 100], "1": [0] * 6, "2": [1] * 6}
    view.take(message(4, answers=first, places=places), 2.0)
    second = first | {"0": [30, 0.1, 1000, 15, 0.15, 300]}
    view.take(message(5, answers=second, places=places), 4.0)
    page.update()
    where = {"shard": ["1", "0"], "worker": ["v", "w"]}  # shard 2 is no more
    assert page.traffic_data.data == where | {"pulled": [0, 300], "pushed": [0, 100]}
    close = [0, pytest.approx(4.0)], [0, pytest.approx(10.0)]
    assert page.latency_data.data == where | {"pull_ms": close[0], "push_ms": close[1]}
    assert page.latency.y_range.factors == ["1", "0"]
    view.take(message(5, answers=second, places=places), 5.0)  # nothing asked since
    page.update()
    assert page.traffic_data.data["pulled"] == [0, 0]
    assert page.latency_data.data["pull_ms"] == close[0]


def test_metrics_have_the_run_as_a_label() -> None:
    view = RunView()
    view.take(message(3, samples=5.0, answers={"7": [10, 0.5, 400, 9, 0.25, 100]}), 1.0)
    collector = metrics.Collector()
    collector.runs = {"r": view}
    found = {s.name: s for m in collector.collect() for s in m.samples}
    assert found["daskps_samples_total"].value == 5.0
    assert found["daskps_clock"].labels == {"run": "r", "model": "M"}
    assert found["daskps_partition_clock"].value == 4.0
    told = {n: found[f"daskps_shard_{n}_total"] for n in FIELDS}
    assert [s.value for s in told.values()] == [10, 0.5, 400, 9, 0.25, 100]
    assert told["pulled"].labels == {"run": "r", "shard": "7"}


def test_without_bokeh_and_prometheus_figures_are_still_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("page", "metrics"):
        monkeypatch.setitem(sys.modules, f"daskps.monitor.{name}", None)
    plugin = DaskpsDashboard()
    asyncio.run(plugin.start(None))
    plugin.log_event(TOPIC, message())
    assert list(plugin.runs) == ["r"]


async def watch(url: str, folder: Path, done: threading.Event) -> tuple[list[Any], list[str]]:
    """Return what the page said at two moments, and its errors; the shards' bars must move too."""
    browser = Browser(folder)
    await browser.start()
    try:
        await browser.call("Page.navigate", url=url)
        await browser.until("window.Bokeh !== undefined && Bokeh.documents.length > 0")
        models = "[...Bokeh.documents[0]._all_models.values()]"
        rows = f"{models}.find(m => m.data && m.data.loss).data.loss.length"
        first = await browser.until(f"{rows} > 1 && {rows}")
        second = await browser.until(f"{rows} > {first} && {rows}")
        for name in ("pulled", "pushed", "pull_ms", "push_ms"):
            bars = f"{models}.find(m => m.data && m.data.shard && m.data.{name}).data.{name}"
            before = await browser.until(
                f"{bars}.length == 2 && {bars}.every(x => x > 0) && {bars}[0]"
            )
            await browser.until(f"{bars}[0] != {before}")
        await browser.picture(folder / "page.png")
        return [first, second], browser.errors
    finally:
        done.set()
        await browser.close()


@pytest.mark.cluster
@pytest.mark.timeout(300)
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_the_page_moves_during_a_fit_and_says_no_error(tmp_path: Path) -> None:
    done = threading.Event()

    def until_seen(clock: int, loss: float) -> None:
        if done.is_set():
            raise StopIteration

    model = daskps.LogisticRegression(max_iter=10_000, rows_per_clock=2000, tol=None)
    with daskps.local_cluster(2) as cluster, Client(cluster) as client:
        seen: list[BaseException] = []

        def fit() -> None:
            try:
                model.fit(*problem(), callback=until_seen)
            except StopIteration as error:
                seen.append(error)

        thread = threading.Thread(target=fit)
        thread.start()
        try:
            url = client.dashboard_link.replace("/status", "/daskps")
            wait_for_page(url)
            (first, second), errors = asyncio.run(watch(url, tmp_path / "chrome", done))
        finally:
            done.set()
            thread.join(60)
        assert second > first
        assert errors == []
        assert len(seen) == 1
        root = url.removesuffix("/daskps")
        # which the JupyterLab extension lists, by these names
        listed = json.loads(get(f"{root}/individual-plots.json"))
        names = ("loss", "clocks", "rates", "events", "traffic", "latency", "slots")
        plots = {f"Individual Daskps {n.title()}": f"/individual-daskps-{n}" for n in names}
        assert listed.items() >= plots.items()
        for path in plots.values():
            assert b"Bokeh" in get(root + path)
        told = get(f"{root}/metrics").decode()
        assert "daskps_clock{" in told
        for name in FIELDS:
            found = re.findall(
                rf'daskps_shard_{name}_total{{run="\w+",shard="([01])"}} (\S+)', told
            )
            assert sorted(shard for shard, _ in found) == ["0", "1"]
            assert all(float(value) > 0 for _, value in found)


@pytest.mark.cluster
def test_the_page_is_served_when_it_is_asked_for() -> None:
    options: dict[str, Any] = {"n_workers": 0}
    with daskps.local_cluster(**options) as cluster, Client(cluster) as client:
        link = daskps.dashboard(height=321)
        assert link.dask_url == client.dashboard_link
        assert b"Bokeh" in get(str(link))
        assert f"<iframe src='{link.url}'" in link._repr_html_()
        assert "height='321'" in link._repr_html_()


def wait_for_page(url: str) -> None:
    from cluster_tools import wait_until

    def there() -> bool:
        try:
            return b"Bokeh" in get(url)
        except OSError:
            return False

    wait_until(there)


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        text: bytes = answer.read()
        return text
