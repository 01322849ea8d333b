"""Data for the notebooks of this folder: files where they are, else what every machine has.

The files are no part of the project. They are looked for in the folder that a notebook names, that
the environment variable DASKPS_DATA names (empty: nowhere), or that is called ``shared/data``
beside the project. Where they are not, data are made of the source files of installed packages.
"""

from __future__ import annotations

import ast
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from demo import PACKAGES, docstrings_in, sources_of
from scipy import sparse
from sklearn.datasets import dump_svmlight_file
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.model_selection import train_test_split

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"
FILES = 150
"""Of each package, whose calls are counted."""


def find(name: str, data: str | None) -> Path | None:
    """Return the folder of a data set, None if there is none."""
    place = os.environ.get("DASKPS_DATA") if data is None else data
    if place == "":
        return None
    folder = Path(BESIDE if place is None else place) / name
    if place is not None and not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {str(folder)!r}; name another, or none.")
    return folder if folder.is_dir() else None


def events(data: str | None, scratch: Path) -> tuple[str, str, str]:
    """Return svmlight files to train on and to test on, and what they are about."""
    folder = find("a9a", data)
    if folder is not None:
        about = "people of the census of 1994, who earn more than 50,000 dollars (+1) or not (-1)"
        return str(folder / "a9a"), str(folder / "a9a.t"), about
    table = docstrings()
    names = re.compile(rf"\b({'|'.join(PACKAGES)}|da|np|pd|sp|xr|scikit|learn)\b")
    counter = CountVectorizer(
        preprocessor=lambda text: names.sub(" ", text.lower()),  # a name would give it away
        ngram_range=(1, 2),
        min_df=3,
        binary=True,
    )
    X = counter.fit_transform(table.text)
    y = np.where(table.package == "pandas", 1, -1)
    parts = train_test_split(X, y, test_size=1 / 3, random_state=0)
    files = [str(scratch / name) for name in ("train.svm", "test.svm")]
    for file, rows, labels in zip(files, parts[:2], parts[2:], strict=True):
        dump_svmlight_file(rows, labels, file, zero_based=False)
    return *files, "docstrings of installed packages, which are those of pandas (+1) or not (-1)"


def ratings(data: str | None) -> tuple[pd.DataFrame, str]:
    """Return a table of ratings, columns user, item and rating, and what they are about."""
    folder = find("ml-latest-small", data)
    if folder is None:
        return calls(), "source files of installed packages (users) and functions that they call"
    table = pd.read_csv(folder / "ratings.csv")
    movies = pd.read_csv(folder / "movies.csv")
    # a few titles are there twice, as two movies
    titles = movies.title.where(~movies.title.duplicated(), movies.title + " (again)")
    title = dict(zip(movies.movieId, titles, strict=True))
    table = pd.DataFrame(
        {"user": table.userId, "item": table.movieId.map(title), "rating": table.rating}
    )
    return table, "people and movies (MovieLens)"


def documents(data: str | None) -> tuple[sparse.csr_array, list[str], str]:
    """Return how often documents have words, the words, and what they are about."""
    folder = find("ap", data)
    if folder is None:
        counter = CountVectorizer(
            stop_words="english", token_pattern=r"\b[a-z]{3,}\b", min_df=5, max_df=0.1
        )
        X = sparse.csr_array(counter.fit_transform(docstrings().text))
        return X, counter.get_feature_names_out().tolist(), "docstrings of installed packages"
    words = (folder / "vocab.txt").read_text().split()
    lines = (folder / "ap.dat").read_text().splitlines()
    pairs = [[entry.split(":") for entry in line.split()[1:]] for line in lines]
    indptr = np.cumsum([0, *map(len, pairs)])
    cells = np.array([cell for line in pairs for cell in line], np.int64)
    X = sparse.csr_array((cells[:, 1], cells[:, 0], indptr), shape=(len(lines), len(words)))
    return X, words, "news of the Associated Press, 1988"


def docstrings() -> pd.DataFrame:
    """Return docstrings of installed packages, columns package and text, none twice."""
    owner: dict[str, str] = {}
    for package in PACKAGES:
        for text in docstrings_in(package):
            owner.setdefault(" ".join(text.split()), package)
    found = pd.DataFrame({"package": list(owner.values()), "text": list(owner)})
    return found.sample(frac=1, random_state=0, ignore_index=True)


def calls() -> pd.DataFrame:
    """Return how much source files use functions of modules, as ratings from 1 to 5.

    A user is a file, an item a name such as ``numpy.zeros``; the rating is 1 more than the binary
    logarithm of how often it is there.
    """
    rows = [
        (f"{file.parent.name}/{file.name}", name, count)
        for package in PACKAGES
        for file in sources_of(package)[:FILES]
        for name, count in _uses(file).items()
    ]
    table = pd.DataFrame(rows, columns=["user", "item", "count"])
    table = table.groupby(["user", "item"], as_index=False)["count"].sum()
    for column, least in (("item", 5), ("user", 5)):  # who was met once says nothing of others
        times = table[column].value_counts()
        table = table[table[column].isin(times.index[times >= least])]
    table["rating"] = np.minimum(5.0, 1 + np.log2(table["count"])).round(1)
    return table[["user", "item", "rating"]].reset_index(drop=True)


def _uses(file: Path) -> Counter[str]:
    """Count the names that a file takes from modules which it imports."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return Counter()
    modules = dict(_imports(tree))
    return Counter(
        f"{modules[node.value.id]}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in modules
    )


def _imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname or "." not in alias.name:
                    yield alias.asname or alias.name, alias.name
