"""``dask daskps ingest``: files to a dataset."""

from __future__ import annotations

from typing import Any

import click

from daskps.cli.common import Cluster, answered, on_cluster


@click.command()
@click.argument("files", nargs=-1, required=True)
@click.argument("store")
@click.option(
    "--format",
    "form",
    type=click.Choice(["svmlight", "ratings"]),
    default="svmlight",
    show_default=True,
    help="ratings: CSV or Parquet with a user, an item and a rating a row.",
)
@click.option("--user", default="user", help="Column of users.", show_default=True)
@click.option("--item", default="item", help="Column of items.", show_default=True)
@click.option("--rating", default="rating", help="Column of ratings.", show_default=True)
@click.option("--n-features", type=int, help="Columns; default: the largest id that occurs.")
@click.option(
    "--zero-based",
    type=click.Choice(["auto", "yes", "no"]),
    default="auto",
    show_default=True,
    help="Whether column ids start at 0.",
)
@click.option("--partitions", type=int, help="Pieces of the data; default: by its size.")
@click.option("--hash-features", type=int, help="Hash column ids into so many, a power of two.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the shuffle.")
@click.option("--overwrite", is_flag=True, help="Replace a Zarr group at STORE.")
@on_cluster
@answered
def ingest(
    cluster: Cluster,
    files: tuple[str, ...],
    store: str,
    form: str,
    user: str,
    item: str,
    rating: str,
    n_features: int | None,
    zero_based: str,
    partitions: int | None,
    hash_features: int | None,
    seed: int,
    overwrite: bool,
) -> dict[str, Any]:
    """Make a dataset at STORE of FILES: paths or quoted globs, plain or gzip.

    \b
    Rows are shuffled and cut into partitions; any worker must be able to write to STORE.
      dask daskps ingest 'day_*.svm.gz' s3://bucket/clicks.zarr --hash-features 1048576
      dask daskps ingest a9a.svm a9a.zarr --json
      dask daskps ingest ratings.csv ratings.zarr --format ratings --user userId --item movieId
    """
    import daskps

    if form == "ratings":
        with cluster.client():
            daskps.read_ratings(
                list(files),
                store,
                user=user,
                item=item,
                rating=rating,
                n_partitions=partitions,
                overwrite=overwrite,
            )
        return dataset_facts(daskps.open_dataset(store))
    with cluster.client():
        made = daskps.read_svmlight(
            list(files),
            store,
            n_features=n_features,
            zero_based="auto" if zero_based == "auto" else zero_based == "yes",
            n_partitions=partitions,
            hash_features=hash_features,
            random_state=seed,
            overwrite=overwrite,
        )
    return dataset_facts(made)


def dataset_facts(dataset: Any) -> dict[str, Any]:
    """Return what is to be said of a dataset."""
    counted = dataset.label_counts()
    return {
        "kind": "dataset",
        "store": dataset.store,
        "rows": dataset.n_rows,
        "features": dataset.n_features,
        "values": dataset.nnz,
        "partitions": dataset.n_partitions,
        "labels": None if counted is None else len(counted[0]),
        "weights": dataset.has_weight,
        "hashed": dataset.hashing is not None,
    }
