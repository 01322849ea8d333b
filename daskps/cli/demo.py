"""``dask daskps demo``: a cluster, real text, a killed process, and the comparison."""

from __future__ import annotations

import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

import click


def script() -> Path:
    """Return the demo: packed into a wheel, or the example of a clone."""
    packed = find_spec("daskps._demo")
    if packed is not None and packed.origin is not None:
        return Path(packed.origin)
    return Path(__file__).resolve().parents[2] / "examples" / "demo.py"


@click.command(short_help="Train, kill a process on the way, and compare with the calm run.")
@click.option("--data", type=click.Path(exists=True), help="svmlight file with classes as labels.")
@click.option("--out", default="demo-out", show_default=True, help="Folder to write to.")
def demo(data: str | None, out: str) -> None:
    """Train on two processes, kill one in the middle, and compare with the calm run.

    \b
      dask daskps demo
      dask daskps demo --data a9a.svm --out a9a-demo
    """
    before, sys.argv = sys.argv, ["demo", "--out", out, *(() if data is None else ("--data", data))]
    try:
        runpy.run_path(str(script()), run_name="__main__")
    finally:
        sys.argv = before
