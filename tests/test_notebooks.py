"""The example notebooks run from top to bottom, on real data and on what every machine has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
NOTEBOOKS = ("clicks", "ratings", "topics")
DATA = ROOT.parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"there is no {DATA}")
BOUND = 120.0
"""Seconds that a notebook may take."""


def source(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((EXAMPLES / f"{name}.ipynb").read_text(encoding="utf-8"))
    return found


def executed(name: str, folder: Path, data: Path | None) -> dict[str, Any]:
    """Run a notebook in a kernel and return it with what it shows."""
    out = folder / f"{name}.ipynb"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        "DASKPS_DATA": "" if data is None else str(data),
        "TMPDIR": str(folder),
        "IPYTHONDIR": str(folder / "ipython"),
    }
    tool = Path(sys.executable).with_name("jupyter-execute")
    command = [str(tool), f"--output={out}", f"--timeout={2 * BOUND:g}", f"{name}.ipynb"]
    done = subprocess.run(
        command, cwd=EXAMPLES, env=environment, capture_output=True, text=True, timeout=4 * BOUND
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return found


def shown(notebook: dict[str, Any], kind: str) -> list[str]:
    """Return what cells show of a kind."""
    outputs = [o for cell in notebook["cells"] for o in cell.get("outputs", ())]
    data = [o.get("data", {}).get(kind) for o in outputs if "data" in o]
    return ["".join(d) for d in data if d is not None]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_are_kept_without_what_they_show(name: str) -> None:
    cells = [cell for cell in source(name)["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells)
    assert cells[0]["metadata"]["tags"] == ["parameters"]


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(500)
@pytest.mark.parametrize("name", NOTEBOOKS)
@pytest.mark.parametrize(
    "data", [pytest.param(None, id="everywhere"), pytest.param(DATA, id="real", marks=needs_data)]
)
def test_a_notebook_runs_from_top_to_bottom(name: str, data: Path | None, tmp_path: Path) -> None:
    start = time.monotonic()
    notebook = executed(name, tmp_path, data)
    assert time.monotonic() - start < BOUND
    html = shown(notebook, "text/html")
    assert any("/daskps' title='daskps'" in text for text in html)  # the page is shown
    assert any("/status' target='_blank'>Dask dashboard" in text for text in html)
    assert any("<b>trained " in text for text in html)  # panels have come to their end
    assert not any("<b>training " in text for text in html)
    assert shown(notebook, "image/png")
    outputs = [o for cell in notebook["cells"] for o in cell.get("outputs", ())]
    noise = ["".join(o["text"]) for o in outputs if o.get("name") == "stderr"]
    assert noise == []
    if name == "clicks":
        said = "".join("".join(o["text"]) for o in outputs if o.get("name") == "stdout")
        assert "same bits: True" in said
