"""``dask daskps predict`` and ``evaluate``: what a saved model says of rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from daskps.cli.common import Cluster, answered, facts, on_cluster

METHODS = ("predict", "predict_proba", "decision_function", "transform")


@click.command(no_args_is_help=True, short_help="Write what a model says of each row.")
@click.argument("model")
@click.argument("data")
@click.argument("out")
@click.option("--method", type=click.Choice(METHODS), help="Default: the first that MODEL has.")
@click.option("--overwrite", is_flag=True, help="Replace OUT.")
@on_cluster
@answered
def predict(
    cluster: Cluster, model: str, data: str, out: str, method: str | None, overwrite: bool
) -> dict[str, Any]:
    """Write what MODEL says of each row of DATA to OUT.

    DATA is a dataset, answered in the order of its rows (which ingest shuffles), or an svmlight
    file, answered line by line; of MatrixFactorization a CSV file with columns user and item. OUT
    ends in .zarr (any size), .npy, or .csv.

    \b
      dask daskps predict model.zarr new.svm answers.csv
      dask daskps predict model.zarr new.zarr shares.zarr --method predict_proba
    """
    import daskps

    estimator = daskps.load(model)
    chosen = method or next(m for m in METHODS if hasattr(estimator, m))
    if not hasattr(estimator, chosen):
        able = [m for m in METHODS if hasattr(estimator, m)]
        raise ValueError(f"{type(estimator).__name__} has no {chosen!r}; it has {able}.")
    kind = Path(out).suffix
    if kind not in (".zarr", ".npy", ".csv"):
        raise ValueError(f"{out!r} ends in {kind!r}; expected .zarr, .npy or .csv.")
    if Path(out).exists() and not overwrite:
        raise FileExistsError(f"{out!r} exists; pass --overwrite or name another place.")
    if hasattr(estimator, "recommend"):
        return {"out": out, "method": "predict", "shape": _pairs(estimator, data, out, kind)}
    with cluster.client():
        found = getattr(estimator, chosen)(_rows(data, estimator))
        shape = _write(found, out, kind)
    return {"out": out, "method": chosen, "shape": shape}


def _rows(data: str, estimator: Any) -> Any:
    """Return a dataset's path, or the rows of an svmlight file in their order."""
    if "://" in data or Path(data).is_dir():
        return data
    from sklearn.datasets import load_svmlight_file

    if not Path(data).exists():
        raise FileNotFoundError(f"no dataset or svmlight file at {data!r}.")
    n = estimator.n_features_in_
    X, _ = load_svmlight_file(data, n_features=n, zero_based=_counts_from_zero(data))
    return X


def _pairs(estimator: Any, data: str, out: str, kind: str) -> list[int]:
    """Write the rating of each pair of the CSV file `data`, beside it."""
    import pandas as pd

    if kind != ".csv":
        raise ValueError(f"{out!r} ends in {kind!r}; expected .csv for ratings of pairs.")
    pairs = pd.read_csv(data)
    missing = {"user", "item"} - set(pairs.columns)
    if missing:
        raise ValueError(
            f"{data!r} has columns {list(pairs.columns)}; expected user and item, one pair a row."
        )
    pairs["prediction"] = estimator.predict(pairs["user"], pairs["item"])
    pairs.to_csv(out, index=False)
    return list(pairs.shape)


def _counts_from_zero(file: str) -> bool:
    """Return whether a file holds column id 0; ``ingest`` decides in the same way."""
    from sklearn.datasets import load_svmlight_file

    X, _ = load_svmlight_file(file, zero_based=True)
    return bool(X.indices.size and X.indices.min() == 0)


def _write(found: Any, out: str, kind: str) -> list[int]:
    import numpy as np

    if kind == ".zarr" and hasattr(found, "compute"):
        found.rechunk({0: "auto"}).to_zarr(out, overwrite=True, compute=True)
        return [int(n) for n in found.shape]
    array = np.asarray(found)
    if kind == ".zarr":
        import zarr

        zarr.create_array(out, data=array, overwrite=True, zarr_format=3)
    elif kind == ".npy":
        np.save(out, array, allow_pickle=False)
    else:
        lines = array.reshape(len(array), -1)
        with open(out, "w") as file:
            file.writelines(",".join(map(str, row)) + "\n" for row in lines.tolist())
    return list(array.shape)


@click.command(no_args_is_help=True)
@click.argument("model")
@click.argument("data")
@on_cluster
@answered
def evaluate(cluster: Cluster, model: str, data: str) -> dict[str, Any]:
    """Tell how good MODEL is on the dataset DATA.

    \b
      dask daskps evaluate model.zarr test.zarr --json
    """
    import daskps

    estimator = daskps.load(model)
    with cluster.client():
        found: dict[str, Any] = {"model": type(estimator).__name__, "data": data}
        if hasattr(estimator, "evaluate"):
            return found | facts(estimator.evaluate(data))
        if hasattr(estimator, "perplexity"):
            return found | {"perplexity": estimator.perplexity(data)}
        if hasattr(estimator, "rmse"):
            return found | {"rmse": float(estimator.rmse(data))}
        return found | {"score": float(estimator.score(data))}
