"""Many seeded runs with faults: ``python -m daskps.testing --seeds 0:200``.

One JSON line a run, with the schedule that makes it happen again, and a table at the end.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table

from daskps.testing.farm import Farm
from daskps.testing.harness import Calm, Report, calm_run, chaos
from daskps.testing.problems import PROBLEMS, Problem
from daskps.testing.schedule import RATES, Schedule, all_or_nothing


def _seeds(context: Any, option: Any, text: str) -> range:
    first, _, last = text.partition(":")
    try:
        return range(int(first), int(last)) if last else range(int(first), int(first) + 1)
    except ValueError as error:
        raise click.BadParameter(f"{text!r}; expected a range such as 0:200.") from error


@click.command()
@click.option("--seeds", default="0:10", callback=_seeds, show_default=True, help="First:behind.")
@click.option(
    "--models",
    default="all",
    show_default=True,
    help=f"Dealt to the seeds in turn: all, or some of {', '.join(PROBLEMS)}.",
)
@click.option("--workers", default=3, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="File for JSON lines, appended to.")
@click.option("--limit", default=float("inf"), help="Seconds after which no run is begun.")
def main(seeds: range, models: str, workers: int, out: Path | None, limit: float) -> None:
    """Run schedules of faults over estimators, and check what must hold."""
    names = list(PROBLEMS) if models == "all" else models.split(",")
    if unknown := sorted(set(names) - set(PROBLEMS)):
        raise click.BadParameter(f"no such models: {unknown}; expected some of {list(PROBLEMS)}.")
    begun, console = time.monotonic(), Console()
    problems = {name: PROBLEMS[name]() for name in names}
    calms = {n: calm_run(p.estimator, p.fit, p.quality) for n, p in problems.items()}
    found: list[tuple[str, Report]] = []
    with tempfile.TemporaryDirectory() as scratch:
        farm: Farm | None = None
        try:
            for seed in seeds:
                if time.monotonic() - begun > limit:
                    break
                name = names[seed % len(names)]
                farm = farm or Farm(workers, scratch, warm="daskps.testing.problems:warm")
                report = _one(farm, problems[name], calms[name], seed, workers)
                found.append((name, report))
                _tell(console, name, report, out)
                if not report.ok:  # what is left of it must not spoil the next
                    farm.close()
                    farm = None
        finally:
            if farm is not None:
                farm.close()
    _summarise(console, found)
    sys.exit(any(not report.ok for _, report in found))


def _one(farm: Farm, problem: Problem, calm: Calm, seed: int, workers: int) -> Report:
    return chaos(
        problem.estimator,
        problem.fit,
        Schedule.draw(seed, calm.tasks),
        farm=farm,
        calm=calm,
        n_workers=workers,
        quality=problem.quality,
        check=problem.check,
    )


def _tell(console: Console, name: str, report: Report, out: Path | None) -> None:
    line = {"model": name, "ok": report.ok, **msgspec.to_builtins(report)}
    if out is not None:
        with out.open("ab") as file:
            file.write(msgspec.json.encode(line) + b"\n")
    good = "ok" if report.ok else "FAILED: " + "; ".join(report.failures)
    console.print(
        f"{report.schedule.seed:4} {name}: {report.seconds:5.1f} s, {report.kills} kills, "
        f"{len(report.recoveries)} recoveries, {report.moves} moves, longest pause "
        f"{report.longest_pause:.1f} s, equal {report.equal}, off {report.off:+.2f} %: {good}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _summarise(console: Console, found: list[tuple[str, Report]]) -> None:
    chance = all_or_nothing(RATES["kill"])
    table = Table(title=f"a job that begins anew after each kill would end in {chance:.2%} of runs")
    columns = ("model", "runs", "held", "kills", "other faults", "bits equal", "off %", "pause s")
    for column in columns:
        table.add_column(column, justify="left" if column == "model" else "right")
    for name in sorted({n for n, _ in found}):
        some = [r for n, r in found if n == name]
        off = [r.off for r in some]
        table.add_row(
            name,
            str(len(some)),
            str(sum(r.ok for r in some)),
            str(sum(r.kills for r in some)),
            str(sum(len(r.struck) - r.kills for r in some)),
            str(sum(r.equal for r in some)),
            f"{min(off):+.2f} to {max(off):+.2f}",
            f"{max(r.longest_pause for r in some):.1f}",
        )
    console.print(table)


if __name__ == "__main__":
    main()
