"""What the commands share: options, the client they run on, output, and exit codes."""

from __future__ import annotations

import functools
import json
import logging
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click

FAILED, REFUSED, PROBLEM, INTERRUPTED = 1, 2, 3, 130
"""Exit codes, as the help of ``dask daskps`` explains them."""

Command = Callable[..., Any]

OPTIONS = {
    "pass overwrite=True": "pass --overwrite",
    "pass resume=True": "pass --resume",
    "checkpoint='path.zarr'": "--checkpoint path.zarr",
    "hash_features=": "--hash-features",
    "n_features=": "--n-features",
    "user=, item= and rating=": "--user, --item and --rating",
    "daskps.read_svmlight or daskps.from_arrays": "'dask daskps ingest'",
    "daskps.from_arrays or daskps.read_svmlight": "'dask daskps ingest'",
}
"""What errors say in Python, and how it is said here."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where to run: an address, or workers of an embedded cluster."""

    scheduler: str | None = None
    workers: int | None = None
    tls_ca_file: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None

    @contextmanager
    def client(self) -> Iterator[Any]:
        """Yield a client; None when work is done by threads of this process."""
        from daskps import cluster

        if self.scheduler is None and self.workers == 0:
            yield None
            return
        tls = (self.tls_ca_file, self.tls_cert, self.tls_key)
        with cluster.connect(self.scheduler, self.workers, *tls) as client:
            click.echo(f"dashboard: {client.dashboard_link or 'none'}", err=True)
            yield client


def on_cluster(command: Command) -> Command:
    """Give a command the options that say where it runs, as an argument ``cluster``."""

    @click.option("--scheduler", help="Address of a Dask scheduler, such as tcp://host:8786.")
    @click.option(
        "--workers",
        type=click.IntRange(min=0),
        help="Without --scheduler: processes of an embedded cluster. Default: one a core, at "
        "most 4. 0 uses threads of this process.",
    )
    @click.option("--tls-ca-file", type=click.Path(exists=True), help="Certificates to trust.")
    @click.option("--tls-cert", type=click.Path(exists=True), help="Certificate to show.")
    @click.option("--tls-key", type=click.Path(exists=True), help="Its private key.")
    @functools.wraps(command)
    def wrapped(
        scheduler: str | None,
        workers: int | None,
        tls_ca_file: str | None,
        tls_cert: str | None,
        tls_key: str | None,
        **options: Any,
    ) -> Any:
        if scheduler is not None and workers is not None:
            raise click.UsageError(
                f"--workers {workers} is for an embedded cluster, but --scheduler names another; "
                "leave one out."
            )
        where = Cluster(scheduler, workers, tls_ca_file, tls_cert, tls_key)
        return command(cluster=where, **options)

    return wrapped


def answered(command: Command) -> Command:
    """Print what a command returns, as a table or JSON, and turn errors into exit codes."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
    @functools.wraps(command)
    def wrapped(as_json: bool, **options: Any) -> None:
        with errors(), _log_on_stderr():
            show(command(**options), as_json)

    return wrapped


@contextmanager
def errors() -> Iterator[None]:
    """End the process with one line on standard error and an exit code, instead of a traceback."""
    from daskps.errors import CheckpointError, DaskpsError, DataError

    try:
        yield
    except KeyboardInterrupt:
        _end("interrupted", INTERRUPTED)
    except (
        CheckpointError,
        DataError,
        FileNotFoundError,
        FileExistsError,
        ValueError,
        TypeError,
        ImportError,
    ) as error:
        _end(f"error: {error}", REFUSED)
    except (DaskpsError, OSError) as error:  # TimeoutError is one
        _end(f"{type(error).__name__}: {error}", FAILED)


def _end(message: str, code: int) -> None:
    for said, here in OPTIONS.items():
        message = message.replace(said, here)
    click.echo(message, err=True)
    sys.exit(code)


@contextmanager
def _log_on_stderr() -> Iterator[None]:
    """Let the package say how it goes; a command is the program, so nobody else has set this up."""
    logger = logging.getLogger("daskps")
    before = (logger.level, logger.propagate)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def show(found: Any, as_json: bool) -> None:
    """Print a mapping, for programs or for people, on standard output."""
    if as_json:
        click.echo(json.dumps(_finite(found), default=_plain, allow_nan=False))
        return
    _show_mapping(found, "")


def _show_mapping(found: Mapping[str, Any], indent: str) -> None:
    width = max((len(name) for name in found), default=0)
    for name, value in found.items():
        if isinstance(value, Mapping):
            click.echo(f"{indent}{name}")
            _show_mapping(value, indent + "  ")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            click.echo(f"{indent}{name}")
            for entry in value:
                click.echo(
                    f"{indent}  - " + ", ".join(f"{k}: {_text(v)}" for k, v in entry.items())
                )
        else:
            click.echo(f"{indent}{name:{width}}  {_text(value)}")


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _finite(value: Any) -> Any:
    """Return the same with null for NaN and infinity, which JSON does not know."""
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def facts(data: Any) -> dict[str, Any]:
    """Return the scalars of an `xarray.Dataset` as numbers."""
    return {str(name): variable.item() for name, variable in data.data_vars.items()}
