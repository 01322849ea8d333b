"""The example of the README runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import dump_svmlight_file

README = Path(__file__).resolve().parent.parent / "README.md"


def example() -> str:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 1
    code: str = blocks[0]
    return code


def test_example_is_twelve_lines() -> None:
    assert len(example().splitlines()) <= 12


@pytest.mark.cluster
def test_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    X = sparse.random_array((600, 40), density=0.2, rng=rng, format="csr", dtype=np.float32)
    y = np.where(X @ rng.normal(size=40) > 0, 1, -1)
    dump_svmlight_file(X, y, str(tmp_path / "a9a"), zero_based=False)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    try:
        exec(example(), names)
        assert names["clf"].score(X, y) > 0.8
        assert (tmp_path / "model.zarr").is_dir()
    finally:
        if client := names.get("client"):
            # the client first: one that finds its cluster gone leaves its event loop running
            cluster = client.cluster
            client.close()
            cluster.close()
