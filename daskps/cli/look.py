"""``dask daskps inspect``: what is at a path, a dataset, a checkpoint or a saved model."""

from __future__ import annotations

from typing import Any

import click

from daskps.cli.common import answered


@click.command(
    no_args_is_help=True, short_help="Say what is at a path: dataset, checkpoint or model."
)
@click.argument("path")
@answered
def inspect(path: str) -> dict[str, Any]:
    """Say what is at PATH: a dataset, a checkpoint or a saved model; no cluster is needed.

    \b
      dask daskps inspect ckpt.zarr
      dask daskps inspect model.zarr --json | jq .parameters
    """
    import zarr

    import daskps
    from daskps.cli.data import dataset_facts
    from daskps.errors import DataError
    from daskps.run import checkpoint

    try:
        group = zarr.open_group(path, mode="r", zarr_format=3)
    except (OSError, ValueError, KeyError) as error:
        raise FileNotFoundError(
            f"nothing that Zarr opens at {path!r} ({error}); expected the path or URL of a "
            "dataset, a checkpoint or a saved model."
        ) from error
    raw: Any = group.attrs.get("daskps")
    kind = raw.get("format") if isinstance(raw, dict) else None
    if kind == "dataset":
        return dataset_facts(daskps.open_dataset(path))
    if kind == "model":
        return _model_facts(path, daskps.load(path))
    if kind == "tables":
        shapes = {name: list(array.shape) for name, array in group.arrays() if array.ndim == 2}
        found = {name: raw[name] for name in ("model", "n_iter", "stop_reason")}
        return {"kind": "tables", "store": path, **found, "tables": shapes}
    if cuts := checkpoint.published(path):
        return _checkpoint_facts(path, cuts)
    raise DataError(
        f"{path!r} is a Zarr group, but no daskps dataset, checkpoint, model or tables (attribute "
        f"daskps: {raw!r}); a dataset is complete when its ingest has ended, a checkpoint with its "
        "first cut."
    )


def _model_facts(path: str, model: Any) -> dict[str, Any]:
    from daskps.cli.train import outcome

    changed = {k: v for k, v in model.get_params().items() if v is not None}
    return {
        "kind": "model",
        "store": path,
        "model": type(model).__name__,
        "features": getattr(model, "n_features_in_", None),
        **outcome(model),
        "parameters": changed,
    }


def _checkpoint_facts(path: str, cuts: list[str]) -> dict[str, Any]:
    from daskps.run import checkpoint

    entries = [checkpoint.facts(path, cut) for cut in cuts]
    return {"kind": "checkpoint", "store": path, "cuts": entries}
