"""``dask daskps doctor``: whether a cluster is fit for a run."""

from __future__ import annotations

from typing import Any

import click

from daskps.cli.common import PROBLEM, Cluster, answered, on_cluster


@click.command()
@click.option("--data", help="Dataset that every worker must be able to read.")
@click.option("--checkpoint", help="Path or URL that every worker must be able to write.")
@click.option("--job", "file", help="Job file: its data and checkpoint, and its memory.")
@on_cluster
@answered
def doctor(
    cluster: Cluster, data: str | None, checkpoint: str | None, file: str | None
) -> dict[str, Any]:
    """Check a cluster before a run; exit code 3 if something is wrong.

    \b
    Versions everywhere, clocks, whether workers reach each other's data ports, whether every
    worker sees the data and the same checkpoint, and whether the job fits into memory.
      dask daskps doctor --scheduler tcp://host:8786
      dask daskps doctor --scheduler tcp://host:8786 --job job.toml --json
    """
    from daskps.cli import checks
    from daskps.cli import job as jobs

    job = None if file is None else jobs.absolute(jobs.parse(jobs.read(file), f"job file {file!r}"))
    if job is not None:
        data, checkpoint = data or job.data, checkpoint or job.parameters.get("checkpoint")
    with cluster.client() as client:
        found = [
            checks.workers(client),
            checks.versions(client),
            checks.clocks(client),
            checks.ports(client),
        ]
        if data is not None:
            found.append(checks.readable(client, data))
        if checkpoint is not None:
            found.append(checks.writable(client, checkpoint))
        if job is not None and all(check.good for check in found):
            found.append(checks.memory(client, job))
    good = all(check.good for check in found)
    if not good:
        click.get_current_context().call_on_close(_problem)
    rows = {check.name: f"{'ok' if check.good else 'PROBLEM'}: {check.said}" for check in found}
    return {"good": good, "checks": rows}


def _problem() -> None:
    raise SystemExit(PROBLEM)
