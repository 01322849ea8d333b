"""Logistic regression side by side with every peer that is installed: log-loss against seconds.

One method after the other, each in a process of its own, on the same rows, with 2 threads in all.
Loading and scoring are outside the clock; one function measures everybody's quality. Peers come
with ``pip install 'daskps[peers]'``; those that are missing are left out. Run it from the project's
root, on a machine that does nothing else::

    python -m benchmarks.lr_peers --data /tmp/daskps --json peers.json --plot peers.png
    python -m benchmarks.lr_peers --data /tmp/daskps --only daskps,SGD --skip plain
    python -m benchmarks.lr_peers --data /tmp/daskps --grid          # chooses settings anew
    python -m benchmarks.lr_peers --merge a.json b.json --plot peers.png

`--grid` gives everybody the same number of settings, trains on four fifths of the training rows and
judges on the rest; test rows are not looked at. The settings that each method has by default were
chosen that way. Spark is left out unless it is named by `--only`: it takes minutes.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks._peers import Method, methods
from benchmarks._peers.child import run
from benchmarks._reference import Settings, load

GOALS = (0.4860, 0.4850)
"""Test log-losses whose times are compared: good, and the regularised optimum (at d = 1 M)."""
NEAR = 1.001
"""A setting is as good as the best where its loss is within this factor; the first there wins."""

Report = dict[str, Any]
console = Console(soft_wrap=True)


def chosen(options: argparse.Namespace) -> dict[str, Method]:
    """Return the methods that are to run, and say which are missing."""
    found: dict[str, Method] = {}
    for name, method in methods().items():
        if not (_named(name, options.only) if options.only else name != "Spark MLlib"):
            continue
        if _named(name, options.skip):
            continue
        if method.installed:
            found[name] = method
        else:
            console.print(f"{name}: not installed, left out")
    return found


def _named(name: str, parts: str) -> bool:
    return any(part.strip().lower() in name.lower() for part in parts.split(",") if part.strip())


def jobs_of(method: Method, options: argparse.Namespace) -> Iterator[Mapping[str, Any]]:
    for settings in method.grid if options.grid else (method.settings,):
        yield dict(settings)


def measure(options: argparse.Namespace, reference: Settings) -> list[Report]:
    """Run everybody, one after the other."""
    found: list[Report] = []
    for name, method in chosen(options).items():
        for settings in jobs_of(method, options):
            job = {
                "method": name,
                "settings": settings,
                "data": str(options.data),
                "reference": asdict(reference),
                "passes": options.passes,
                "validate": options.grid,
            }
            row = {"name": name, "settings": settings, "peer": method.peer}
            found.append(row | run(job, options.timeout))
            console.print(_line(found[-1]))
    return found


def _line(row: Report) -> str:
    curve = "; ".join(f"{s:.2f} s {loss:.4f}" for _, s, loss in row["points"])
    settings = ", ".join(f"{k}={v}" for k, v in row["settings"].items())
    return f"{row['name']} ({settings}): {curve or 'nothing'} {row['ended']}".rstrip()


# -- what comes of it ------------------------------------------------------------------------------


def seconds_to(goal: float, points: Sequence[Sequence[float]]) -> float:
    """Return when a curve was first at `goal` or below; infinity if never."""
    return min((s for _, s, loss in points if loss <= goal), default=math.inf)


def best_settings(rows: Sequence[Report]) -> Report:
    """Return the row of one method that was first near the best loss of all its rows.

    By passes, which cost the same whatever the setting, and not by seconds, which vary by chance;
    of those that need as many the one with the lowest loss there.
    """
    near = NEAR * min((p[2] for row in rows for p in row["points"]), default=math.inf)

    def arrival(row: Report) -> tuple[float, float]:
        there = [(passes, loss) for passes, _, loss in row["points"] if loss <= near]
        return min(there, default=(math.inf, math.inf))

    return min(rows, key=arrival)


def ratios(rows: Sequence[Report], goal: float) -> dict[str, tuple[float, str, float]]:
    """Return, for each method of daskps, its seconds, the best peer, and how many times faster."""
    peers = {r["name"]: seconds_to(goal, r["points"]) for r in rows if r["peer"]}
    best = min(peers, key=lambda name: peers[name], default="")
    found = {}
    for row in rows:
        own = seconds_to(goal, row["points"])
        if not row["peer"] and math.isfinite(own):
            found[row["name"]] = (own, best, peers.get(best, math.inf) / own)
    return found


def show(rows: Sequence[Report], n_rows: int) -> None:
    table = Table(title="test log-loss against seconds of training", title_justify="left")
    goals = [f"s to {goal:.4f}" for goal in GOALS]
    titles = ("", *goals, "lowest", "after s", "M rows/s a pass", "peak MB", "")
    for column in titles:
        table.add_column(column, justify="right" if column else "left", no_wrap=not column)
    for row in rows:
        points = row["points"]
        if not points:
            table.add_row(row["name"], *[""] * 6, row["ended"])
            continue
        passes, last, _ = points[-1]
        lowest = min(points, key=lambda p: p[2])
        times = [seconds_to(goal, points) for goal in GOALS]
        cells = [f"{t:.2f}" if math.isfinite(t) else "-" for t in times]
        cells += [f"{lowest[2]:.4f}", f"{lowest[1]:.2f}", f"{n_rows * passes / last / 1e6:.2f}"]
        table.add_row(row["name"], *cells, f"{row['peak_mb']:,.0f}", row["ended"])
    console.print(table)
    for goal in GOALS:
        for name, (own, best, ratio) in ratios(rows, goal).items():
            other = f"{ratio:.1f} x as fast as {best}" if math.isfinite(ratio) else "no peer did"
            console.print(f"{goal:.4f}: {name} in {own:.2f} s, {other}")


def show_choice(rows: Sequence[Report]) -> None:
    table = Table(title="chosen on validation rows", title_justify="left")
    for column in ("", "settings", "lowest log-loss", "after s"):
        table.add_column(column, no_wrap=not column)
    for name in dict.fromkeys(row["name"] for row in rows):
        best = best_settings([row for row in rows if row["name"] == name])
        lowest = min(best["points"], key=lambda p: p[2], default=[0, math.nan, math.nan])
        table.add_row(name, str(best["settings"]), f"{lowest[2]:.4f}", f"{lowest[1]:.2f}")
    console.print(table)


def plot(rows: Sequence[Report], path: Path, title: str) -> None:
    """Draw every curve; needs matplotlib."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        if row["points"]:
            _, seconds, losses = zip(*row["points"], strict=True)
            style = {"linewidth": 1.2} if row["peer"] else {"linewidth": 2.5}
            axes.plot(seconds, losses, marker="o", markersize=4, label=row["name"], **style)
    for goal in GOALS:
        axes.axhline(goal, color="grey", linewidth=0.6, linestyle="--")
    axes.set(xscale="log", xlabel="seconds of training", ylabel="test log-loss", title=title)
    # names for some ticks, as numbers: ten a decade would lie on each other
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder that keeps the data")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=1_000_000)
    parser.add_argument("--passes", type=int, default=100, help="at most so many of each method")
    parser.add_argument("--only", default="", help="parts of names, with commas between")
    parser.add_argument("--skip", default="", help="parts of names, with commas between")
    parser.add_argument("--grid", action="store_true", help="choose settings on validation rows")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for each method")
    parser.add_argument("--json", type=Path, help="file to write all figures to")
    parser.add_argument("--plot", type=Path, help="picture to draw; needs matplotlib")
    parser.add_argument("--merge", type=Path, nargs="+", help="show earlier figures together")
    options = parser.parse_args(arguments)
    if options.data is None and options.merge is None:
        parser.error("--data is needed: a folder that keeps the data")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    if options.merge:
        parts = [json.loads(path.read_text()) for path in options.merge]
        report = {**parts[0], "methods": [row for part in parts for row in part["methods"]]}
    else:
        reference = Settings(options.rows, max(options.rows // 5, 1), options.features)
        *_, best = load(options.data, reference)
        report = {"reference": asdict(reference), "truth": best, "grid": options.grid}
        report["methods"] = measure(options, reference)
    facts = report["reference"]
    title = f"{facts['rows']:,} rows, {facts['features']:,} features"
    console.print(f"\n{title}; the truth has test log-loss {report['truth']:.4f}\n")
    if report["grid"]:
        show_choice(report["methods"])
    else:
        show(report["methods"], facts["rows"])
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1))
    if options.plot is not None:
        plot(report["methods"], options.plot, title)


if __name__ == "__main__":
    main()
