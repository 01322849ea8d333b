"""The commands from files to answers, in one process: what they print, write and exit with."""

from __future__ import annotations

import json
import signal
import threading
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import scipy.sparse as sp
import zarr
from click.testing import CliRunner, Result
from sklearn.datasets import dump_svmlight_file, load_svmlight_file

import daskps
from daskps.cli import daskps as command
from daskps.cli.common import show

HERE = ("--workers", "0")


def run(*args: Any) -> Result:
    return CliRunner().invoke(command, [str(a) for a in args])


def told(*args: Any) -> dict[str, Any]:
    done = run(*args, "--json")
    assert done.exit_code == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an svmlight file, its dataset, a model, and the model's checkpoint."""
    out = tmp_path_factory.mktemp("cli")
    rng = np.random.default_rng(0)
    X = sp.random_array((400, 20), density=0.3, rng=rng, format="csr")
    y = (X @ rng.normal(size=20) > 0).astype(int)
    dump_svmlight_file(X, y, str(out / "rows.svm"), zero_based=False)
    told("ingest", out / "rows.svm", out / "rows.zarr", "--n-features", 20, *HERE)
    (out / "job.toml").write_text(
        f'model = "LogisticRegression"\ndata = "{out}/rows.zarr"\n'
        "[parameters]\nalpha = 1e-3\nmax_iter = 3\ntol = 1e9\n"
    )
    options = ["--save", out / "model.zarr", "--checkpoint", out / "ckpt.zarr", "-p", "tol=None"]
    told("train", "--job", out / "job.toml", *options, *HERE)
    return out


def test_ingest_tells_what_the_dataset_holds(folder: Path, tmp_path: Path) -> None:
    found = told("ingest", folder / "rows.svm", tmp_path / "rows.zarr", "--partitions", 3, *HERE)
    assert (found["rows"], found["features"], found["partitions"]) == (400, 20, 3)
    again = run("ingest", folder / "rows.svm", tmp_path / "rows.zarr", *HERE)
    assert again.exit_code == 2
    assert "already holds a Zarr group; pass --overwrite to replace it" in again.stderr


def test_ratings_are_ingested_trained_and_predicted(tmp_path: Path) -> None:
    rows = [f"u{u},i{i},{1 + (u + i) % 5}" for u in range(8) for i in range(6) if (u * i) % 3]
    (tmp_path / "r.csv").write_text("\n".join(["who,item,rating", *rows]) + "\n")
    store, model = tmp_path / "r.zarr", tmp_path / "m.zarr"
    found = told("ingest", tmp_path / "r.csv", store, "--format", "ratings", "--user", "who", *HERE)
    assert found["values"] == len(rows)
    few = ["-p", "n_factors=2", "-p", "max_iter=2"]
    told("train", store, "--model", "MatrixFactorization", "--save", model, *few, *HERE)
    assert told("evaluate", model, store, *HERE)["rmse"] < 3
    (tmp_path / "pairs.csv").write_text("user,item\nu1,i2\n")
    told("predict", model, tmp_path / "pairs.csv", tmp_path / "out.csv", *HERE)
    assert (tmp_path / "out.csv").read_text().startswith("user,item,prediction\nu1,i2,")


def test_documents_are_ingested_from_counts_and_from_text(tmp_path: Path) -> None:
    (tmp_path / "docword.x.txt").write_text("2\n3\n3\n1 1 4\n1 2 1\n2 3 2\n")
    (tmp_path / "vocab.x.txt").write_text("a\nb\nc\n")
    form = ("--format", "docword")
    found = told("ingest", tmp_path / "docword.x.txt", tmp_path / "d.zarr", *form, *HERE)
    assert (found["rows"], found["features"], found["values"]) == (2, 3, 3)
    assert daskps.open_dataset(tmp_path / "d.zarr").feature_names.tolist() == ["a", "b", "c"]
    (tmp_path / "t.txt").write_text("the tea is hot\n\ntea and cake\nthe cake\n")
    form = ("--format", "text", "--min-documents", "2", "--stop-words", "english")
    found = told("ingest", tmp_path / "t.txt", tmp_path / "t.zarr", *form, *HERE)
    assert (found["rows"], found["features"]) == (3, 2)
    assert daskps.open_dataset(tmp_path / "t.zarr").feature_names.tolist() == ["cake", "tea"]
    many = run("ingest", tmp_path / "t.txt", tmp_path / "u.zarr", "--format", "text", *HERE)
    assert (many.exit_code, "Lower --min-documents" in many.stderr) == (2, True)


def test_an_option_that_would_do_nothing_is_refused(folder: Path, tmp_path: Path) -> None:
    options = ("--format", "docword", "--hash-features", "1024")
    done = run("ingest", folder / "rows.svm", tmp_path / "x.zarr", *options, *HERE)
    assert done.exit_code == 2
    assert "--hash-features is for --format svmlight" in done.stderr


def test_options_go_before_the_job_file(folder: Path) -> None:
    model = daskps.load(folder / "model.zarr")
    assert (model.alpha, model.max_iter, model.tol) == (1e-3, 3, None)
    assert model.n_iter_ == 3


def test_resume_needs_the_checkpoint_alone(folder: Path, tmp_path: Path) -> None:
    found = told("resume", folder / "ckpt.zarr", "--max-iter", 5, "--save", tmp_path / "m", *HERE)
    assert found["passes"] == 5
    same = ["-p", "alpha=0.001", "-p", "max_iter=5", "-p", "tol=None"]
    calm = told("train", folder / "rows.zarr", "--model", "LogisticRegression", *same, *HERE)
    assert found["loss"] == pytest.approx(calm["loss"], rel=1e-6)


def test_resume_of_a_fit_says_that_the_job_is_not_known(tmp_path: Path) -> None:
    X, y = np.eye(8), np.arange(8) % 2
    daskps.LogisticRegression(max_iter=1, checkpoint=tmp_path / "c", progress=False).fit(X, y)
    done = run("resume", tmp_path / "c", *HERE)
    assert (done.exit_code, "fit(..., resume=True)" in done.stderr) == (2, True)


@pytest.mark.parametrize("name", ["a.csv", "a.npy", "a.zarr"])
def test_a_file_is_answered_line_by_line(folder: Path, tmp_path: Path, name: str) -> None:
    method = ("--method", "predict_proba")
    told("predict", folder / "model.zarr", folder / "rows.svm", tmp_path / name, *method, *HERE)
    X, _ = load_svmlight_file(str(folder / "rows.svm"), n_features=20)
    expected = daskps.load(folder / "model.zarr").predict_proba(X)
    readers = {
        "a.csv": lambda path: np.loadtxt(path, delimiter=","),
        "a.npy": np.load,
        "a.zarr": lambda path: zarr.open_array(path)[...],
    }
    np.testing.assert_allclose(readers[name](tmp_path / name), expected, rtol=1e-6)


def test_a_dataset_is_answered_lazily_into_zarr(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.zarr"
    told("predict", folder / "model.zarr", folder / "rows.zarr", out, *HERE)
    expected = daskps.load(folder / "model.zarr").predict(str(folder / "rows.zarr")).compute()
    np.testing.assert_array_equal(zarr.open_array(out)[...], expected)
    assert run("predict", folder / "model.zarr", folder / "rows.zarr", out, *HERE).exit_code == 2


def test_evaluate_agrees_with_the_estimator(folder: Path) -> None:
    found = told("evaluate", folder / "model.zarr", folder / "rows.zarr", *HERE)
    score = daskps.load(folder / "model.zarr").score(str(folder / "rows.zarr"))
    assert found["accuracy"] == pytest.approx(score)


def test_inspect_tells_dataset_checkpoint_and_model_apart(folder: Path, tmp_path: Path) -> None:
    names = ("rows.zarr", "ckpt.zarr", "model.zarr")
    found = [told("inspect", folder / name) for name in names]
    assert [f["kind"] for f in found] == ["dataset", "checkpoint", "model"]
    assert all(cut["usable"] for cut in found[1]["cuts"])
    assert found[1]["cuts"][0]["passes"] >= 3
    zarr.open_group(tmp_path / "other", mode="w")
    for path in (tmp_path / "other", tmp_path / "nothing"):
        assert run("inspect", path).exit_code == 2


def test_people_get_lines_and_progress_goes_to_stderr(folder: Path) -> None:
    options = ["--model", "LogisticRegression", "-p", "max_iter=1"]
    done = run("train", folder / "rows.zarr", *options, *HERE)
    assert done.exit_code == 0
    assert "stop_reason" in done.stdout
    assert "memory of all workers together" in done.stderr
    assert "memory" not in done.stdout


def test_an_interrupted_training_saves_and_says_so(folder: Path, tmp_path: Path) -> None:
    options = ["-p", "max_iter=100000", "-p", "tol=None", "--save", tmp_path / "m.zarr"]
    timer = threading.Timer(1.0, signal.raise_signal, [signal.SIGINT])
    timer.start()
    with pytest.warns(Warning, match="interrupted"):
        done = run("train", folder / "rows.zarr", "--model", "LogisticRegression", *options, *HERE)
    assert done.exit_code == 130
    assert daskps.load(tmp_path / "m.zarr").stop_reason_ == "interrupted"


def test_an_earlier_checkpoint_is_refused_with_the_option_that_goes_on(folder: Path) -> None:
    done = run("train", "--job", folder / "job.toml", "--checkpoint", folder / "ckpt.zarr", *HERE)
    assert done.exit_code == 2
    assert "of an earlier run; pass --resume to go on" in done.stderr


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        (("inspect", "nowhere"), "nothing that Zarr opens at 'nowhere'"),
        (("train", "--job", "no.toml"), "there is no job file 'no.toml' (working directory '"),
        (("evaluate", "m", "d", *HERE), "no saved model at 'm'"),
        (("resume", "c", *HERE), "no checkpoint at 'c'"),
    ],
)
def test_what_is_not_there_is_named(command: tuple[str, ...], wanted: str) -> None:
    done = run(*command)
    assert (done.exit_code, done.stdout) == (2, "")
    assert wanted in done.stderr


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("modle = 'x'", "unknown field 'modle'; did you mean 'model'?"),
        ("model = 'LogisticRegresion'\ndata = 'd'", "did you mean 'LogisticRegression'?"),
        ("data = 'd'", "no field 'model'; give it there, or as --model"),
        ("model = 'LinearSVC'\ndata = 3", "field 'data' of job file"),
        ("model = 'LinearSVC'\ndata = 'd'\n[parameters]\nalhpa = 1", "'parameters.alhpa'"),
        ("model = 'LinearSVC'\ndata = 'd'\n[parameters]\nalhpa = 1", "did you mean 'alpha'?"),
        ("model = ", "is not valid toml"),
        ("model = 'LinearSVC'\ndata = 'nowhere.zarr'", "nowhere.zarr"),
    ],
)
def test_a_bad_job_names_the_field(tmp_path: Path, text: str, wanted: str) -> None:
    (tmp_path / "job.toml").write_text(text)
    done = run("train", "--job", tmp_path / "job.toml", *HERE)
    assert (done.exit_code, done.stdout) == (2, "")
    assert wanted in done.stderr


def test_a_job_may_be_yaml(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(
        f"model: LinearSVC\ndata: {folder}/rows.zarr\nparameters:\n  max_iter: 1\n"
    )
    assert told("train", "--job", tmp_path / "job.yaml", *HERE)["passes"] == 1


def test_a_bad_value_is_refused_as_the_estimator_refuses_it(folder: Path) -> None:
    done = run("train", folder / "rows.zarr", "--model", "LinearSVC", "-p", "alpha=-1", *HERE)
    assert done.exit_code == 2
    assert "alpha" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_scheduler_that_is_not_there_ends_with_its_address(folder: Path) -> None:
    where = ("--scheduler", "tcp://127.0.0.1:1")
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        done = run("evaluate", folder / "model.zarr", folder / "rows.zarr", *where)
    assert done.exit_code == 1
    assert "tcp://127.0.0.1:1" in done.stderr


def test_numbers_that_json_does_not_know_are_null(capsys: pytest.CaptureFixture[str]) -> None:
    show({"loss": float("nan"), "cuts": [{"loss": float("inf")}]}, True)
    assert json.loads(capsys.readouterr().out) == {"loss": None, "cuts": [{"loss": None}]}


def test_dask_finds_the_command_by_its_entry_point() -> None:
    root = Path(__file__).resolve().parents[2]
    table = tomllib.loads((root / "pyproject.toml").read_text())["project"]["entry-points"]
    point = EntryPoint("daskps", table["dask_cli"]["daskps"], "dask_cli")
    assert point.load() is command
    assert {"ingest", "train", "resume", "predict", "evaluate", "inspect"} < set(command.commands)
