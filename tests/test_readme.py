"""The example of the README runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import dump_svmlight_file

import daskps

README = Path(__file__).resolve().parent.parent / "README.md"


def examples() -> list[str]:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    return blocks


def test_examples_are_at_most_twelve_lines() -> None:
    assert all(len(block.splitlines()) <= 12 for block in examples())


def test_example_of_ratings_and_documents_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    pairs = [(u, i) for u in range(1, 60) for i in rng.permutation(30)[:12].tolist()]
    lines = [f"{u},{i},{rng.integers(1, 6)}" for u, i in pairs]
    (tmp_path / "ratings.csv").write_text("\n".join(["user,item,rating", *lines]) + "\n")
    words = [f"{d} {w} {rng.integers(1, 4)}" for d in range(1, 41) for w in range(1, 20, 1 + d % 3)]
    head = ["40", "20", str(len(words))]
    (tmp_path / "docword.kos.txt").write_text("\n".join([*head, *words]) + "\n")
    (tmp_path / "vocab.kos.txt").write_text("\n".join(f"w{n}" for n in range(20)) + "\n")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"daskps": daskps}
    exec(examples()[1], names)
    best = names["mf"].recommend([1, 42], k=10)
    assert best["user"].tolist() == [1] * 10 + [42] * 10
    assert not set(zip(best["user"], best["item"], strict=True)) & set(pairs)
    assert len(names["lda"].top_words(10)) >= 100


@pytest.mark.cluster
def test_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    X = sparse.random_array((600, 40), density=0.2, rng=rng, format="csr", dtype=np.float32)
    y = np.where(X @ rng.normal(size=40) > 0, 1, -1)
    dump_svmlight_file(X, y, str(tmp_path / "a9a"), zero_based=False)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    try:
        exec(examples()[0], names)
        assert names["clf"].score(X, y) > 0.8
        assert (tmp_path / "model.zarr").is_dir()
    finally:
        if client := names.get("client"):
            # the client first: one that finds its cluster gone leaves its event loop running
            cluster = client.cluster
            client.close()
            cluster.close()
