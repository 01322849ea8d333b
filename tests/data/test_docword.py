"""UCI bag-of-words files and raw texts become documents in their order."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import dask.bag as db
import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer

import daskps
from daskps.data import docword
from daskps.errors import DataError

KOS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "kos"
GOOD = "4\n3\n4\n1 1 2\n1 3 1\n3 2 5\n3 3 1\n"
DENSE = [[2, 0, 1], [0, 0, 0], [0, 5, 1], [0, 0, 0]]


def matrix(dataset: daskps.Dataset) -> np.ndarray:
    parts = [dataset.partition(i).to_scipy().toarray() for i in range(dataset.n_partitions)]
    return np.concatenate(parts)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def written(text: str) -> Path:
        path = tmp_path / "docword.some.txt"
        path.write_text(text)
        return path

    return written


@pytest.mark.parametrize("block_bytes", [1, 8, 2**20])
@pytest.mark.parametrize("packed", [False, True])
def test_documents_come_in_their_order_with_their_words(
    tmp_path: Path, packed: bool, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docword, "BLOCK_BYTES", block_bytes)
    path = tmp_path / ("docword.some.txt.gz" if packed else "docword.some.txt")
    path.write_bytes(gzip.compress(GOOD.encode()) if packed else GOOD.encode())
    (tmp_path / "vocab.some.txt").write_text("ant\nbee\ncat\n")
    for store in (None, tmp_path / "data.zarr"):
        dataset = daskps.read_docword(path, store, n_partitions=2)
        np.testing.assert_array_equal(matrix(dataset), DENSE)
        assert dataset.feature_names is not None
        assert dataset.feature_names.tolist() == ["ant", "bee", "cat"]


def test_no_vocabulary_is_needed_and_repeated_words_add_up(write: Callable[[str], Path]) -> None:
    dataset = daskps.read_docword(write("2\n2\n3\n2 2 1\n2 1 4\n2 2 2\n"))
    np.testing.assert_array_equal(matrix(dataset), [[0, 0], [4, 3]])
    assert dataset.feature_names is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("1 1 1\n", "expected three lines", id="no header"),
        pytest.param("", "expected three lines", id="empty"),
        pytest.param("1\n1\n1\n1 1\n", "line 4 is b'1 1'", id="short line"),
        pytest.param("1\n1\n1\n1 1 1.5\n", "line 4", id="fraction"),
        pytest.param("1\n1\n1\n1 1 -2\n", "line 4", id="negative"),
        pytest.param("1\n1\n2\n1 1 1\n1 2 1\n", "line 5", id="unknown word"),
        pytest.param("1\n1\n1\n2 1 1\n", "line 4", id="unknown document"),
        pytest.param("2\n1\n2\n2 1 1\n1 1 1\n", "document 1 after 2", id="order"),
        pytest.param("1\n1\n2\n1 1 1\n", "has 1 entries, but says 2", id="truncated"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(
    write: Callable[[str], Path], text: str, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        daskps.read_docword(write(text))


def test_a_vocabulary_of_another_length_is_refused(write: Callable[[str], Path]) -> None:
    with pytest.raises(DataError, match="has 2 words"):
        daskps.read_docword(write(GOOD), vocabulary=["a", "b"])


@pytest.mark.skipif(not KOS.exists(), reason="../shared/data is not there")
def test_kos_is_what_was_published() -> None:
    dataset = daskps.read_docword(KOS / "docword.kos.txt.gz")
    assert (dataset.n_rows, dataset.n_features, dataset.nnz) == (3430, 6906, 353160)
    parts = [dataset.partition(i) for i in range(dataset.n_partitions)]
    assert sum(float(p.values.sum()) for p in parts if p.values is not None) == 467714


TEXTS = ["an ant and an ant", "", "a bee", "ants bee bee"]


@pytest.mark.parametrize("lazy", [False, True])
def test_texts_are_counted_in_their_order(lazy: bool) -> None:
    vectorizer = CountVectorizer().fit(TEXTS)
    texts = db.from_sequence(TEXTS, npartitions=2) if lazy else TEXTS
    dataset = daskps.from_texts(texts, vectorizer)
    np.testing.assert_array_equal(matrix(dataset), vectorizer.transform(TEXTS).toarray())
    assert dataset.feature_names is not None
    assert dataset.feature_names.tolist() == vectorizer.get_feature_names_out().tolist()


def test_one_string_is_not_taken_for_many_texts() -> None:
    with pytest.raises(DataError, match="one string"):
        daskps.from_texts("an ant", CountVectorizer().fit(TEXTS))
