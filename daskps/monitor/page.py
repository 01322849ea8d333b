"""The ``daskps`` page of the scheduler's dashboard: live plots of the newest run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from bokeh.layouts import column, row
from bokeh.models import ColumnDataSource, HoverTool, NumeralTickFormatter
from bokeh.models.widgets import Div
from bokeh.plotting import figure
from bokeh.transform import dodge
from distributed.dashboard.components import add_periodic_callback
from distributed.dashboard.components.scheduler import BOKEH_THEME, env
from distributed.dashboard.core import BokehApplication
from distributed.dashboard.scheduler import template_variables
from distributed.scheduler import Scheduler

from daskps.monitor.figures import quantity

INTERVAL = 300
"""Milliseconds between two looks at the runs."""
SIZE: dict[str, Any] = {"height": 260, "min_width": 400, "sizing_mode": "stretch_width"}

COLORS = ("#1f77b4", "#ff7f0e")
"""Of what is pulled, and of what is pushed."""

Runs = Mapping[str, Any]


class Page:
    """The plots, each with the data behind it."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self.summary = Div(text="no run yet", sizing_mode="stretch_width")
        self.loss_data = ColumnDataSource({"clock": [], "loss": []})
        self.clock_data = ColumnDataSource({"partition": [], "clock": [], "color": []})
        self.rate_data = ColumnDataSource({"time": [], "pulled": [], "pushed": []})
        self.slot_data = ColumnDataSource({"worker": [], "slots": []})
        shards: dict[str, list[Any]] = {"shard": [], "worker": []}
        self.traffic_data = ColumnDataSource(shards | {"pulled": [], "pushed": []})
        self.latency_data = ColumnDataSource(shards | {"pull_ms": [], "push_ms": []})
        self.event_data = ColumnDataSource({"time": [], "kind": [], "what": [], "color": []})
        self.loss = _plot("Training loss by clock", "clock", "loss")
        self.loss.line("clock", "loss", source=self.loss_data, line_width=2)
        self.clocks = _plot("Finished clocks of each partition", "partition", "clocks")
        self.clocks.vbar(
            x="partition", top="clock", width=0.8, color="color", source=self.clock_data
        )
        self.rates = _plot("Bytes a second", "", "", x_axis_type="datetime")
        self.rates.yaxis.formatter = NumeralTickFormatter(format="0.0 b")
        for name, color in zip(("pulled", "pushed"), COLORS, strict=True):
            self.rates.line("time", name, source=self.rate_data, color=color, legend_label=name)
        self.rates.legend.location = "top_left"
        self.slots = _plot("Slots of each worker", "slots", "", y_range=[])
        self.slots.hbar(y="worker", right="slots", height=0.7, source=self.slot_data)
        self.traffic = _shard_plot("Bytes a second of each shard", "", self.traffic_data)
        self.traffic.xaxis.formatter = NumeralTickFormatter(format="0.0 b")
        self.latency = _shard_plot("Answers of each shard", "milliseconds", self.latency_data)
        self.events = _plot(
            "Checkpoints and recoveries",
            "",
            "",
            x_axis_type="datetime",
            x_range=self.rates.x_range,
            y_range=list(KINDS),
        )
        dots = self.events.scatter("time", "kind", color="color", size=11, source=self.event_data)
        self.events.add_tools(HoverTool(tooltips="@what", renderers=[dots]))

    @property
    def root(self) -> Any:
        """All of it, as one element."""
        rows = (
            (self.loss, self.clocks, self.slots),
            (self.rates, self.traffic),
            (self.events, self.latency),  # time under time, shards under shards
        )
        wide = [_stretched(row(*plots)) for plots in rows]
        return column(self.summary, *wide, sizing_mode="stretch_width")

    def update(self) -> None:
        """Show the newest figures of the newest run."""
        if not self._runs:
            return
        view = list(self._runs.values())[-1]
        latest = view.latest
        self.summary.text = summary(latest)
        self.loss_data.data = _columns(("clock", "loss"), view.losses)
        low = min(latest["clocks"], default=0)
        self.clock_data.data = {
            "partition": list(range(len(latest["clocks"]))),
            "clock": latest["clocks"],
            "color": ["#d62728" if c == low else "#1f77b4" for c in latest["clocks"]],
        }
        self.rate_data.data = _columns(("time", "pulled", "pushed"), view.rates)
        workers = sorted(latest["slots"])
        if list(self.slots.y_range.factors) != workers:
            self.slots.y_range.factors = workers
        self.slot_data.data = {"worker": workers, "slots": [latest["slots"][w] for w in workers]}
        self._update_shards(view.answers, latest["places"])
        kinds = [_kind(what) for _, what in view.happened]
        self.event_data.data = {
            **_columns(("time", "what"), view.happened),
            "kind": kinds,
            "color": [KINDS[k] for k in kinds],
        }

    def _update_shards(
        self, answers: Mapping[str, Mapping[str, float]], places: Mapping[str, str]
    ) -> None:
        shards = sorted((s for s in answers if s in places), key=int, reverse=True)  # 0 on top
        for plot, data in ((self.traffic, self.traffic_data), (self.latency, self.latency_data)):
            if list(plot.y_range.factors) != shards:
                plot.y_range.factors = shards
            shown = {name: [answers[s][name] for s in shards] for name in _measures(data)}
            data.data = {"shard": shards, "worker": [places[s] for s in shards], **shown}


KINDS = {"checkpoint": "#2ca02c", "worker": "#d62728", "recovery": "#9467bd"}
"""What happens, and its colour."""


def _kind(what: str) -> str:
    first = what.split(" ", 1)[0]
    return {"checkpoint": "checkpoint", "recovered": "recovery"}.get(first, "worker")


def _columns(names: tuple[str, ...], points: Any) -> dict[str, list[Any]]:
    return {name: [p[i] for p in points] for i, name in enumerate(names)}


def _plot(title: str, x: str, y: str, **more: Any) -> Any:
    return figure(
        title=title, x_axis_label=x, y_axis_label=y, tools="pan,wheel_zoom,reset", **SIZE, **more
    )


def _measures(data: ColumnDataSource) -> list[str]:
    return [name for name in data.column_names if name not in ("shard", "worker")]


def _shard_plot(title: str, x: str, data: ColumnDataSource) -> Any:
    """Return a plot with two bars a shard, one of pulls and one of pushes."""
    # a legend would lie on the bars, or take a third of the height
    plot = _plot(f"{title}: pulls blue, pushes orange", x, "shard", y_range=[])
    plot.x_range.start = 0
    for name, at, color in zip(_measures(data), (0.2, -0.2), COLORS, strict=True):
        where = dodge("shard", at, range=plot.y_range)
        plot.hbar(y=where, right=name, height=0.38, color=color, source=data)
    tips = [("shard", "@shard on @worker"), *((n, f"@{n}{{0.0 a}}") for n in _measures(data))]
    plot.add_tools(HoverTool(tooltips=tips))
    return plot


def _stretched(plots: Any) -> Any:
    plots.sizing_mode = "stretch_width"
    return plots


def summary(latest: Mapping[str, Any]) -> str:
    """Return a line about a run."""
    going = "stopping" if latest["stopping"] else "running"
    state = f"ended: {latest['ended']}" if latest["ended"] else going
    lag = max(latest["clocks"], default=0) - min(latest["clocks"], default=0)
    parts = (
        f"<b>{latest['model']}</b> {latest['run']} ({state})",
        f"clock {latest['clock']} of {latest['target']}",
        f"loss {latest['loss']:.5g}",
        f"staleness {lag}",
        f"{quantity(latest['rate'])}samples/s",
        f"{latest['workers']} workers, {latest['shards']} shards",
        f"checkpoint {latest['cut'] or 'none'}",
        f"{latest['recoveries']} recoveries",
    )
    return " &nbsp;·&nbsp; ".join(parts)


def page_doc(runs: Runs, scheduler: Scheduler, extra: Mapping[str, Any], doc: Any) -> None:
    """Fill the document of the whole page."""
    page = Page(runs)
    page.update()
    add_periodic_callback(doc, page, INTERVAL)
    doc.add_root(page.root)
    doc.title = "Dask: daskps"
    doc.template = env.get_template("simple.html")
    doc.template_variables.update(extra)
    doc.theme = BOKEH_THEME


def plot_doc(
    name: str, runs: Runs, scheduler: Scheduler, extra: Mapping[str, Any], doc: Any
) -> None:
    """Fill the document of one plot, as the JupyterLab extension shows them."""
    page = Page(runs)
    page.update()
    add_periodic_callback(doc, page, INTERVAL)
    plot = getattr(page, name)
    plot.sizing_mode = "stretch_both"
    doc.add_root(plot)
    doc.title = f"daskps: {name}"
    doc.theme = BOKEH_THEME


def add(scheduler: Scheduler, runs: Runs) -> None:
    """Serve the page from the scheduler's dashboard, if it has one.

    Raises
    ------
    ImportError
        If bokeh is missing.
    """
    served: Any = getattr(scheduler, "http_application", None)
    theirs = [app for app in getattr(served, "applications", []) if hasattr(app, "app_paths")]
    if not theirs or any("/daskps" in app.app_paths for app in theirs):
        return
    docs: dict[str, Callable[..., None]] = {"/daskps": partial(page_doc, runs)}
    for name in ("loss", "clocks", "rates", "events", "traffic", "latency", "slots"):
        docs[f"/individual-daskps-{name}"] = partial(plot_doc, name, runs)
    variables = template_variables(scheduler)
    if "daskps" not in variables["pages"]:
        variables["pages"].append("daskps")  # the list that every page's head shows
    prefix = theirs[0].prefix
    mine = BokehApplication(docs, scheduler, prefix=prefix, template_variables=variables)
    mine.initialize(scheduler.loop)
    mine.start()
    served.add_application(mine)
    # the JupyterLab extension lists the plots of the first application only
    theirs[0]._applications.update(mine._applications)
