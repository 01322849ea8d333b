"""``dask daskps train`` and ``resume``."""

from __future__ import annotations

import inspect
import time
from typing import Any

import click

from daskps.cli.common import INTERRUPTED, Cluster, answered, on_cluster


@click.command(no_args_is_help=True)
@click.argument("data", required=False)
@click.option("--job", "file", help="TOML or YAML file with the fields below; options go first.")
@click.option("--model", help="Estimator, such as LogisticRegression.")
@click.option(
    "-p",
    "--parameter",
    "given",
    multiple=True,
    metavar="NAME=VALUE",
    help="Parameter of the estimator; may be given again.",
)
@click.option("--eval", "held_out", help="Held-out dataset, evaluated after each pass.")
@click.option("--checkpoint", help="Zarr group for checkpoints; path or URL for all workers.")
@click.option("--save", help="Zarr group for the trained model.")
@click.option("--overwrite", is_flag=True, default=None, help="Replace a model at --save.")
@click.option("--resume", "again", is_flag=True, help="Go on from the newest checkpoint, if any.")
@on_cluster
@answered
def train(
    cluster: Cluster,
    data: str | None,
    file: str | None,
    given: tuple[str, ...],
    checkpoint: str | None,
    again: bool,
    held_out: str | None,
    **options: Any,
) -> dict[str, Any]:
    """Train a model on the dataset DATA, or what a job file says.

    \b
      dask daskps train a9a.zarr --model LogisticRegression -p alpha=1e-5 --save model.zarr
      dask daskps train --job job.toml --scheduler tcp://host:8786 --json

    \b
    A job file:
      model = "LogisticRegression"
      data = "a9a.zarr"
      eval = "a9a-test.zarr"      # optional
      save = "model.zarr"
      [parameters]                # of the estimator
      alpha = 1e-5
      solver = "ftrl"
      checkpoint = "ckpt.zarr"

    Ctrl-C ends training at the next clock and saves the model, with exit code 130.
    """
    from daskps.cli import job as jobs

    raw = {} if file is None else jobs.read(file)
    options |= {"data": data, "eval": held_out}
    raw |= {name: value for name, value in options.items() if value is not None}
    parameters = raw.get("parameters", {})
    if isinstance(parameters, dict):
        extra = {} if checkpoint is None else {"checkpoint": checkpoint}
        raw["parameters"] = {**parameters, **_parameters(given), **extra}
    return run(jobs.absolute(jobs.parse(raw, _named(file))), cluster, resume=again)


@click.command(
    no_args_is_help=True, short_help="Go on from a checkpoint, on any number of workers."
)
@click.argument("checkpoint")
@click.option("--save", help="Zarr group for the model; default: what the job says.")
@click.option("--max-iter", type=int, help="Passes in all; default: what the job says.")
@on_cluster
@answered
def resume(
    cluster: Cluster, checkpoint: str, save: str | None, max_iter: int | None
) -> dict[str, Any]:
    """Go on with the job whose cuts are in CHECKPOINT, on any number of workers.

    \b
      dask daskps resume ckpt.zarr --scheduler tcp://host:8786
      dask daskps resume ckpt.zarr --max-iter 20 --save longer.zarr
    """
    from daskps.cli import job as jobs

    raw = jobs.remembered(checkpoint)
    raw["parameters"] = {**raw.get("parameters", {}), "checkpoint": checkpoint}
    if save is not None:
        raw["save"] = save
    if max_iter is not None:
        raw["parameters"]["max_iter"] = max_iter
    return run(jobs.absolute(jobs.parse(raw, f"the job of {checkpoint!r}")), cluster, resume=True)


def run(job: Any, cluster: Cluster, *, resume: bool) -> dict[str, Any]:
    """Train as a job says, save, and return what came out of it."""
    from daskps.cli import job as jobs
    from daskps.data import open_dataset
    from daskps.models.saved import check_room

    estimator = jobs.estimator_class(job.model)(**job.parameters)
    if job.save is not None:  # now, not after hours of training
        check_room(job.save, job.overwrite)
    fit: dict[str, Any] = {"resume": resume}
    if job.eval is not None:
        if "eval_set" not in inspect.signature(estimator.fit).parameters:
            raise ValueError(f"eval={job.eval!r}, but {job.model} takes no held-out data; omit it.")
        fit["eval_set"] = job.eval
    open_dataset(job.data)  # now, not after the cluster has started
    with cluster.client():
        jobs.remember(job)
        start = time.perf_counter()
        estimator.fit(job.data, **fit)
        seconds = time.perf_counter() - start
    if job.save is not None:
        estimator.save(job.save, overwrite=job.overwrite)
    found = {"model": job.model, "saved": job.save, "seconds": seconds, **outcome(estimator)}
    if estimator.stop_reason_ == "interrupted":
        click.get_current_context().call_on_close(_interrupted)
    return found


def outcome(estimator: Any) -> dict[str, Any]:
    """Return how training of an estimator ended."""
    history = estimator.history_
    told = [n for n in ("loss", "eval_loss") if n in history and history.clock.size]
    last = {n: float(history[n][-1]) for n in told}
    return {"stop_reason": estimator.stop_reason_, "passes": estimator.n_iter_, **last}


def _interrupted() -> None:
    raise SystemExit(INTERRUPTED)


def _named(file: str | None) -> str:
    return "the job" if file is None else f"job file {file!r}"


def _parameters(given: tuple[str, ...]) -> dict[str, Any]:
    """Return parameters of ``NAME=VALUE``, whose values are as in TOML, or plain words."""
    import tomllib

    found: dict[str, Any] = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise ValueError(f"-p {text!r}; expected NAME=VALUE, such as -p alpha=1e-5.")
        try:
            found[name] = tomllib.loads(f"x = {value}")["x"]
        except tomllib.TOMLDecodeError:
            words = {"None": None, "none": None, "True": True, "False": False}
            found[name] = words.get(value, value)
    return found
