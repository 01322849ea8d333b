"""The documentation: its code runs, it names everything that is public, the site builds."""

from __future__ import annotations

import copy
import importlib.util
import inspect
import logging
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import dask
import distributed  # noqa: F401  # its settings are among those that are taken back
import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import dump_svmlight_file

import daskps
from daskps import config, errors
from daskps.cli import daskps as cli
from daskps.cli import job

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = {str(path.relative_to(DOCS)): path for path in sorted(DOCS.rglob("*.md"))}
ADDRESS = "tcp://host:8786"
BLOCK = re.compile(
    r"^(?:<!-- (.+?) -->\n)?```([\w{}-]*)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE
)


class Block(NamedTuple):
    """Code between fences, what a comment before it says, and its language."""

    mark: str
    language: str
    code: str


def blocks(page: str) -> list[Block]:
    return [Block(*found) for found in BLOCK.findall(PAGES[page].read_text(encoding="utf-8"))]


def code(page: str) -> list[Block]:
    return [b for b in blocks(page) if b.language == "python" and not b.mark.startswith("not run")]


def pages_of_code(*, slow: bool) -> list[str]:
    return [p for p in PAGES if code(p) and any(b.mark == "slow" for b in code(p)) == slow]


@pytest.fixture
def settings() -> Iterator[None]:
    """Take back what a page sets for the whole process."""
    before, level = copy.deepcopy(dask.config.config), logging.getLogger("daskps").level
    yield
    dask.config.config.clear()
    dask.config.config.update(before)
    logging.getLogger("daskps").setLevel(level)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: None) -> None:
    """Make the files that pages read, in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    X = sparse.random_array((400, 60), density=0.2, rng=rng, format="csr", dtype=np.float32)
    y = np.where(X @ rng.normal(size=60) > 0, 1, -1)
    dump_svmlight_file(X, y, "a9a", zero_based=False)
    pairs = [(u, i) for u in range(1, 40) for i in rng.permutation(30)[:10].tolist()]
    lines = [f"{u},{i},{rng.integers(1, 6)}" for u, i in pairs]
    Path("ratings.csv").write_text("\n".join(["user,item,rating", *lines]) + "\n")
    words = [f"{d} {w} {rng.integers(1, 4)}" for d in range(1, 31) for w in range(1, 20, 1 + d % 3)]
    Path("docword.kos.txt").write_text("\n".join(["30", "20", str(len(words)), *words]) + "\n")
    Path("vocab.kos.txt").write_text("\n".join(f"w{n}" for n in range(20)) + "\n")


def run(page: str, here: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run the code of a page, and return its names; `here` stands for addresses in it."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in code(page):
        text = block.code
        for there, this in (here or {}).items():
            text = text.replace(there, this)
        exec(compile(text, page, "exec"), names)
    return names


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("page", pages_of_code(slow=False))
def test_code_of_page_runs(page: str) -> None:
    run(page)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("page", pages_of_code(slow=True))
def test_code_of_page_with_a_cluster_runs(page: str, tmp_path: Path) -> None:
    if not any(ADDRESS in block.code for block in code(page)):
        run(page)
        return
    with daskps.local_cluster(2) as cluster:
        daskps.read_svmlight("a9a", "ads.zarr")
        names = run(page, {ADDRESS: cluster.scheduler_address, "s3://bucket": str(tmp_path)})
        names["client"].close()


def lines_of_commands() -> list[str]:
    """Return the lines of pages and of the command's own help that call ``dask daskps``."""
    texts = [b.code for page in PAGES for b in blocks(page) if not b.language]
    texts += [inspect.getdoc(c.callback) or "" for c in (cli, *cli.commands.values())]
    joined = "\n".join(texts).replace("\\\n", " ")
    return re.findall(r"^ *(dask daskps .+?) *(?:# .*|\| .*)?$", joined, re.MULTILINE)


@pytest.mark.parametrize("line", lines_of_commands())
def test_command_of_page_is_one(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ca.pem", "cert.pem", "key.pem", "a9a.svm"):
        Path(name).touch()
    name, *rest = shlex.split(line)[2:]
    cli.commands[name].make_context(name, rest)  # raises where an option is unknown or missing


def test_job_file_of_page_is_one() -> None:
    (text,) = [b.code for b in blocks("how-to/command-line.md") if b.code.startswith("model =")]
    raw = tomllib.loads(text)
    assert job.parse(raw).save == "model.zarr"
    daskps.LogisticRegression(**raw["parameters"])


@pytest.mark.parametrize("page", PAGES)
def test_code_that_is_not_run_says_why(page: str) -> None:
    for block in blocks(page):
        assert block.mark in ("", "slow") or block.mark.startswith("not run: "), block.mark
        if block.language == "":
            lines = block.code.splitlines()
            assert not [x for x in lines if x.startswith(("import ", "from "))], "python unmarked"


def reference(name: str) -> str:
    return (DOCS / "reference" / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [n for n in daskps.__all__ if n != "errors"])
def test_reference_has_public_name(name: str) -> None:
    kind = "class" if inspect.isclass(getattr(daskps, name)) else "function"
    assert re.search(rf"^\.\. auto{kind}:: (?:daskps\.)?{name}$", reference("api"), re.MULTILINE)


def test_tree_of_errors_names_every_error() -> None:
    tree = inspect.getdoc(errors) or ""
    classes = [n for n, x in vars(errors).items() if inspect.isclass(x)]
    assert [n for n in classes if not re.search(rf"\b{n}\b", tree)] == []


def test_reference_has_every_setting_as_the_schema_describes_it() -> None:
    row = re.compile(r"^\| `([\w-]+)` \| `(\w+)` \|[^|]*\| ([^|]*) \|$", re.MULTILINE)
    rows = row.findall(reference("configuration"))
    found = {key: (default, said.replace("`", "").replace('"', "")) for key, default, said in rows}
    assert list(found) == list(config.DEFAULTS)
    for key, entry in config.schema().items():
        default, said = found[key]
        value = config.DEFAULTS[key]
        assert default == {None: "null", True: "true"}.get(value, str(value)), key
        assert said == " ".join(entry["description"].split()).replace('"', ""), key


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("sphinx") is None, reason="Sphinx comes with the docs extra; make docs"
)
def test_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "docs", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
