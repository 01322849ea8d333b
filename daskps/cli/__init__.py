"""The command line, ``dask daskps ...``: the group of commands, found by Dask's own ``dask``.

Nothing heavy is imported here, as every call of ``dask`` imports this module.
"""

from __future__ import annotations

import click

from daskps.cli.data import ingest
from daskps.cli.demo import demo
from daskps.cli.doctor import doctor
from daskps.cli.look import inspect
from daskps.cli.train import resume, train
from daskps.cli.use import evaluate, predict


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def daskps() -> None:
    """Train models on sparse data with an elastic parameter server.

    \b
    A first session, on this machine:
      dask daskps ingest a9a.svm a9a.zarr
      dask daskps train a9a.zarr --model LogisticRegression --save model.zarr
      dask daskps evaluate model.zarr a9a.zarr
      dask daskps inspect model.zarr

    On a cluster, each takes --scheduler tcp://host:8786; check it before a long run with
    "dask daskps doctor --scheduler ...".

    \b
    Results go to standard output (--json for scripts), progress and errors to standard error.
    Exit codes:
      0    done
      1    training or the cluster failed
      2    what was asked for cannot be done: options, job file, data, nothing at a path
      3    doctor found a problem
      130  interrupted; what was learnt until then has been saved
    """


for command in (ingest, train, resume, predict, evaluate, inspect, doctor, demo):
    daskps.add_command(command)
