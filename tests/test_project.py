"""Rules of the project that no other tool holds: dependencies, imports, names, sizes."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "daskps").rglob("*.py"))
MAX_LINES = 400
# conda-forge splits dask: dask-core is what PyPI calls dask, and numpy is named beside it.
CONDA_NAMES = {"dask": "dask-core"}

# State machines, events in and actions out: a clock or a thread in them would make tests inexact.
PURE = ("run/coordinator.py", "run/events.py", "run/ledger.py", "server/layout.py")
IMPURE = {
    *("asyncio", "concurrent", "datetime", "multiprocessing", "os", "queue", "random", "secrets"),
    *("select", "selectors", "signal", "socket", "subprocess", "threading", "time", "uuid"),
    *("dask", "distributed", "tornado", "zarr"),
}

every_source = pytest.mark.parametrize(
    "path", SOURCES, ids=[str(path.relative_to(ROOT)) for path in SOURCES]
)


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        table: dict[str, Any] = tomllib.load(file)["project"]
    return table


def parse_requirement(line: str) -> tuple[str, str]:
    """Split "dask[array]>=2026.8.0" into the name, without extras, and the bounds."""
    match = re.fullmatch(r"([A-Za-z0-9._-]+?)(?:\[[^]]*\])?\s*([<>=!~].*)?", line.strip())
    assert match, f"unreadable requirement {line!r}"
    return match[1].lower(), match[2] or ""


def imported_modules(path: Path) -> Iterator[str]:
    """Yield the full name of every absolute import of a file, those in functions included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


def run_python(code: str) -> str:
    """Run `code` in a fresh interpreter and return what it printed."""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_conda_environment_names_the_dependencies_of_pyproject(project: dict[str, Any]) -> None:
    extras = project["optional-dependencies"].items()
    wanted = [line for name, extra in extras if name != "peers" for line in extra]
    lines = [*project["dependencies"], *wanted]
    expected = {
        CONDA_NAMES.get(name, name): bounds for name, bounds in map(parse_requirement, lines)
    }
    expected["python"] = project["requires-python"]
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    found = dict(map(parse_requirement, listed))
    assert found.pop("pip") == ""
    assert found == expected


def test_the_version_is_the_same_everywhere(project: dict[str, Any]) -> None:
    import daskps

    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    assert daskps.__version__ == project["version"] == cited


def test_every_dependency_has_a_floor(project: dict[str, Any]) -> None:
    extras = project["optional-dependencies"].values()
    lines = [*project["dependencies"], *(line for extra in extras for line in extra)]
    assert [line for line in lines if ">=" not in line] == []


def imported_distributions() -> set[str]:
    """Name the distributions whose modules the package imports."""
    modules = {name.partition(".")[0] for path in SOURCES for name in imported_modules(path)}
    third_party = modules - sys.stdlib_module_names - {"daskps", "__future__"}
    distributions = packages_distributions()
    return {distributions[name][0].lower().replace("_", "-") for name in third_party}


def test_every_imported_package_is_declared(project: dict[str, Any]) -> None:
    extras = project["optional-dependencies"]
    lines = project["dependencies"] + extras["dashboard"] + extras["viz"] + extras["jupyter"]
    declared = {name for name, _ in map(parse_requirement, lines)}
    assert imported_distributions() - declared == set()


def test_every_declared_package_is_imported(project: dict[str, Any]) -> None:
    declared = {name for name, _ in map(parse_requirement, project["dependencies"])}
    assert declared - imported_distributions() == set()


@pytest.mark.skipif(
    importlib.util.find_spec("importlinter") is None,
    reason="import-linter comes with the dev extra; make lint runs it in any case",
)
def test_imports_point_one_way() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stdout + done.stderr


@every_source
def test_no_file_is_too_long_to_read(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@every_source
def test_no_module_imports_pickle(path: Path) -> None:
    banned = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    assert banned.isdisjoint(name.partition(".")[0] for name in imported_modules(path))


@pytest.mark.parametrize("name", PURE)
def test_state_machine_has_no_clock_thread_or_socket(name: str) -> None:
    imports = {module.partition(".")[0] for module in imported_modules(ROOT / "daskps" / name)}
    assert imports & IMPURE == set()


@every_source
def test_every_module_says_what_it_owns(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not text.strip() or ast.get_docstring(ast.parse(text)), "no module docstring"


def rows_of_contributing() -> set[str]:
    """Name the files in the first column of CONTRIBUTING's tables."""
    return set(
        re.findall(r"^\| `([^`]+)` \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    )


def test_contributing_lists_every_file_of_the_package() -> None:
    package = ROOT / "daskps"
    missing = [
        f"| `{path.relative_to(package)}` | {(ast.get_docstring(tree) or '').splitlines()[0]} |"
        for path in SOURCES
        if (tree := ast.parse(path.read_text(encoding="utf-8"))).body
        and str(path.relative_to(package)) not in rows_of_contributing()
    ]
    assert missing == []


def test_contributing_lists_no_file_that_is_gone() -> None:
    listed = {row for row in rows_of_contributing() if row.endswith(".py")}
    gone = {
        row for row in listed if not ((ROOT / "daskps" / row).exists() or (ROOT / row).exists())
    }
    assert gone == set()


def documents() -> list[Path]:
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize(
    "path", documents(), ids=[str(path.relative_to(ROOT)) for path in documents()]
)
def test_relative_links_of_documents_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    assert [target for target in targets if not (path.parent / target).exists()] == []


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 120


def public_names() -> list[str]:
    import daskps

    return list(getattr(daskps, "__all__", []))


def test_public_names_are_sorted_and_few() -> None:
    names = public_names()
    assert names == sorted(set(names))
    assert len(names) <= 25


@pytest.mark.parametrize("name", public_names())
def test_public_name_exists_and_is_documented(name: str) -> None:
    import daskps

    value = getattr(daskps, name)
    if not (inspect.isclass(value) or inspect.isroutine(value)):
        return  # a submodule or a constant such as __version__
    assert inspect.getdoc(value), f"daskps.{name} has no docstring"
    methods = [m for m in vars(value) if not m.startswith("_") and callable(getattr(value, m))]
    undocumented = [m for m in methods if not inspect.getdoc(getattr(value, m))]
    assert undocumented == []


def test_importing_daskps_loads_no_dashboard() -> None:
    heavy = {"bokeh", "distributed.dashboard", "matplotlib", "IPython"}
    loaded = run_python("import sys, daskps._api; print(*sys.modules)").split()
    assert heavy.isdisjoint(loaded)


def test_the_command_of_dask_does_not_wait_for_daskps() -> None:
    loaded = run_python("import sys, daskps.cli; print(*sys.modules)").split()
    assert {"numpy", "numba", "distributed", "sklearn", "zarr"}.isdisjoint(loaded)


def test_importing_daskps_takes_no_time_beyond_that_of_distributed() -> None:
    code = (
        "import time, distributed; start = time.process_time(); import daskps;"
        " print(time.process_time() - start)"
    )
    assert float(run_python(code)) < 1.0


def test_everything_public_is_imported_together() -> None:
    import daskps
    from daskps import _api

    assert _api.__all__ == daskps.__all__


def test_importing_daskps_starts_no_thread() -> None:
    assert (
        run_python("import threading, daskps._api; print(threading.active_count())").strip() == "1"
    )
