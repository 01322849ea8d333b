"""Wheel and sdist: what is in them, and that they install and run where nothing else is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13")
PIP = ("-m", "pip", "--disable-pip-version-check", "--quiet")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SESSION = """
import importlib.metadata, sys
import numpy as np
import daskps
assert "site-packages" in daskps.__file__, daskps.__file__
X = np.eye(8)
model = daskps.LogisticRegression(max_iter=2, progress=False).fit(X, np.arange(8) % 2)
model.save("model.zarr")
assert (daskps.load("model.zarr").coef_ == model.coef_).all()
print(importlib.metadata.version("daskps"))
"""


def run(*command: Any, cwd: Path) -> str:
    """Run a command without what this process was started with, and return what it printed."""
    hidden = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    done = subprocess.run(
        [str(c) for c in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def interpreter(version: str) -> str | None:
    """Return a Python of this version, on the path or of pyenv."""
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python"))]
    for candidate in filter(None, found):
        asked = [str(candidate), "-c", "import sys; print(*sys.version_info[:2], sep='.')"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=30)
        if done.stdout.strip() == version:
            return str(candidate)
    return None


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return an sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    python = environment(sys.executable, folder / "builder")
    run(python, *PIP, "install", "hatchling", cwd=folder)
    run(python, "-m", "hatchling", "build", "-t", "sdist", "-d", folder / "dist", cwd=ROOT)
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    run(python, *PIP, "wheel", "--no-deps", "-w", folder / "dist", sdist, cwd=folder)
    (wheel,) = (folder / "dist").glob("*.whl")
    return sdist, wheel


def environment(python: str, folder: Path) -> Path:
    """Make an empty virtual environment and return its Python."""
    run(python, "-m", "venv", folder, cwd=folder.parent)
    return folder / "bin" / "python"


def test_the_wheel_holds_the_package_with_its_types_and_the_demo(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as archive:
        names = set(archive.namelist())
    for path in (ROOT / "daskps").rglob("*.py"):
        assert str(path.relative_to(ROOT)) in names
    assert {"daskps/py.typed", "daskps/_demo.py"} <= names
    assert not [n for n in names if n.startswith(("tests", "docs", "examples", "benchmarks"))]


def test_the_sdist_holds_what_the_tests_need(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as archive:
        names = {n.split("/", 1)[-1] for n in archive.getnames()}
    wanted = {"pyproject.toml", "README.md", "LICENSE", "CITATION.cff", "Makefile"}
    wanted |= {"environment.yml", "CONTRIBUTING.md", "examples/demo.py", "tests/conftest.py"}
    assert wanted <= names


@pytest.mark.parametrize("version", PYTHONS)
def test_the_wheel_installs_and_runs_in_an_empty_environment(
    built: tuple[Path, Path], version: str, tmp_path: Path
) -> None:
    base = interpreter(version)
    if base is None:
        pytest.skip(f"no Python {version} here")
    python = environment(base, tmp_path / "venv")
    run(python, *PIP, "install", built[1], cwd=tmp_path)
    with (ROOT / "pyproject.toml").open("rb") as file:
        wanted = tomllib.load(file)["project"]["version"]
    assert run(python, "-W", "error", "-c", SESSION, cwd=tmp_path).strip() == wanted
    dask = python.with_name("dask")
    for command in ("ingest", "train", "doctor", "demo"):
        assert "Usage" in run(dask, "daskps", command, "--help", cwd=tmp_path)
    assert "LogisticRegression" in run(dask, "daskps", "inspect", "model.zarr", cwd=tmp_path)
    missing = run(python, "-m", "pip", "check", cwd=tmp_path)
    assert "No broken requirements" in missing
