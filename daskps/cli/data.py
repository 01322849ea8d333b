"""``dask daskps ingest``: files to a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import click
from click.core import ParameterSource

from daskps.cli.common import Cluster, answered, on_cluster

FORMATS = ("svmlight", "ratings", "docword", "text")


@click.command(no_args_is_help=True, short_help="Make a dataset of files.")
@click.argument("files", nargs=-1, required=True)
@click.argument("store")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="svmlight",
    show_default=True,
    help="ratings: CSV or Parquet with a user, an item and a rating a row; docword: UCI bag of "
    "words; text: a document a line.",
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
@click.option("--vocabulary", help="File of the words of docword, one a line; default: beside it.")
@click.option(
    "--min-documents",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Of text: documents that a word must be in.",
)
@click.option("--stop-words", type=click.Choice(["english"]), help="Of text: words left out.")
@click.option("--partitions", type=int, help="Pieces of the data; default: by its size.")
@click.option("--hash-features", type=int, help="Hash column ids into so many, a power of two.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the shuffle.")
@click.option("--overwrite", is_flag=True, help="Replace a Zarr group at STORE.")
@on_cluster
@answered
def ingest(
    cluster: Cluster, files: tuple[str, ...], store: str, form: str, **options: Any
) -> dict[str, Any]:
    """Make a dataset at STORE of FILES: paths or quoted globs, plain or gzip.

    \b
    Rows are shuffled and cut into partitions; any worker must be able to write to STORE.
      dask daskps ingest 'day_*.svm.gz' s3://bucket/clicks.zarr --hash-features 1048576
      dask daskps ingest a9a.svm a9a.zarr --json
      dask daskps ingest ratings.csv ratings.zarr --format ratings --user userId --item movieId
      dask daskps ingest docword.kos.txt.gz kos.zarr --format docword
      dask daskps ingest 'news_*.txt' news.zarr --format text --stop-words english

    An option that FILES of this format have no use for is refused.
    """
    import daskps

    _check_used(form)
    with cluster.client():
        READERS[form](list(files), store, options)
    return dataset_facts(daskps.open_dataset(store))


def _svmlight(files: list[str], store: str, options: dict[str, Any]) -> None:
    import daskps

    zero_based = options["zero_based"]
    daskps.read_svmlight(
        files,
        store,
        n_features=options["n_features"],
        zero_based="auto" if zero_based == "auto" else zero_based == "yes",
        n_partitions=options["partitions"],
        hash_features=options["hash_features"],
        random_state=options["seed"],
        overwrite=options["overwrite"],
    )


def _ratings(files: list[str], store: str, options: dict[str, Any]) -> None:
    import daskps

    names = {name: options[name] for name in ("user", "item", "rating", "overwrite")}
    daskps.read_ratings(files, store, n_partitions=options["partitions"], **names)


def _docword(files: list[str], store: str, options: dict[str, Any]) -> None:
    import daskps

    if len(files) > 1:
        raise click.UsageError(f"{len(files)} files of docword are given; expected one.")
    how = {name: options[name] for name in ("vocabulary", "overwrite")}
    daskps.read_docword(files[0], store, n_partitions=options["partitions"], **how)


def _text(files: list[str], store: str, options: dict[str, Any]) -> None:
    from sklearn.feature_extraction.text import CountVectorizer

    import daskps

    texts = list(_documents(files))
    least = options["min_documents"]
    counter = CountVectorizer(min_df=least, stop_words=options["stop_words"])
    try:
        counter.fit(texts)
    except ValueError as error:
        raise ValueError(
            f"no word is in {least} of the {len(texts)} documents of {files} ({error}); expected a "
            "document a line. Lower --min-documents."
        ) from error
    how = {"n_partitions": options["partitions"], "overwrite": options["overwrite"]}
    daskps.from_texts(texts, counter, store, **how)


def _documents(files: list[str]) -> Iterator[str]:
    """Yield the lines of files that are not blank."""
    from daskps.data.lines import BLOCK_BYTES, cut_files, find_files, read_blocks

    for source in cut_files(find_files(files), BLOCK_BYTES):
        for block in read_blocks(source, BLOCK_BYTES):
            yield from filter(str.strip, block.data.decode(errors="replace").splitlines())


Reader = Callable[[list[str], str, dict[str, Any]], None]
READERS: dict[str, Reader] = {
    "svmlight": _svmlight,
    "ratings": _ratings,
    "docword": _docword,
    "text": _text,
}
ONLY = {
    "svmlight": ("n_features", "zero_based", "hash_features", "seed"),
    "ratings": ("user", "item", "rating"),
    "docword": ("vocabulary",),
    "text": ("min_documents", "stop_words"),
}
"""Options that a format alone has."""


def _check_used(form: str) -> None:
    """Refuse options that were given and would do nothing."""
    context = click.get_current_context()
    for other, names in ONLY.items():
        for name in names if other != form else ():
            if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                option = "--" + name.replace("_", "-")
                raise click.UsageError(
                    f"{option} is for --format {other}, but the format is {form}; leave it out."
                )


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
