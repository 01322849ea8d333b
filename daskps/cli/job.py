"""Jobs: what to train, on what, how; from a TOML or YAML file, from options, or from a checkpoint.

Owns the form of a job and the checks whose messages name the field. Whether a value makes sense to
an estimator, the estimator says.
"""

from __future__ import annotations

import difflib
import inspect
import os
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import yaml

from daskps.errors import DataError

ATTRIBUTE = "daskps-job"
"""Of a checkpoint's group: the job that writes it."""


class Job(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A training job.

    Examples
    --------
    >>> parse({"model": "LogisticRegression", "data": "a9a.zarr", "parameters": {"alpha": 1e-5}})
    Job(model='LogisticRegression', data='a9a.zarr', ..., parameters={'alpha': 1e-05})
    """

    model: str
    """Name of an estimator of daskps."""
    data: str
    """Path or URL of a dataset."""
    eval: str | None = None
    """Held-out dataset, evaluated after each pass."""
    save: str | None = None
    """Where the model goes."""
    overwrite: bool = False
    """Whether a model at `save` is replaced."""
    parameters: dict[str, Any] = {}
    """Of the estimator, checkpoint among them."""


def read(file: str) -> dict[str, Any]:
    """Return the contents of a job file; see `parse`.

    Raises
    ------
    FileNotFoundError
        If there is none.
    DataError
        If it is no TOML or YAML, or not a table.
    """
    path = Path(file)
    readers = {".toml": tomllib.loads, ".yaml": yaml.safe_load, ".yml": yaml.safe_load}
    if path.suffix not in readers:
        raise DataError(f"job file {file!r} ends in {path.suffix!r}; expected .toml or .yaml.")
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no job file {file!r} (working directory {str(Path.cwd())!r}); check the "
            "path."
        )
    try:
        found = readers[path.suffix](path.read_text())
    except (tomllib.TOMLDecodeError, yaml.YAMLError) as error:
        raise DataError(f"job file {file!r} is not valid {path.suffix[1:]}: {error}.") from error
    if not isinstance(found, dict):
        raise DataError(f"job file {file!r} holds {found!r}; expected fields such as model = ...")
    return found


def parse(raw: dict[str, Any], where: str = "the job") -> Job:
    """Return a checked job.

    Raises
    ------
    DataError
        Naming the field, its value and what was expected.
    """
    known = [field.name for field in msgspec.structs.fields(Job)]
    for name in raw:
        if name not in known:
            raise DataError(f"{where} has the unknown field {name!r}{_near(name, known)}")
    for name, option in (("model", "--model"), ("data", "DATA")):
        if raw.get(name) is None:
            raise DataError(f"{where} has no field {name!r}; give it there, or as {option}.")
    for field in msgspec.structs.fields(Job):
        if field.name in raw:
            try:
                msgspec.convert(raw[field.name], field.type)
            except msgspec.ValidationError as error:
                raise DataError(
                    f"field {field.name!r} of {where} is {raw[field.name]!r}: {error}."
                ) from error
    job = msgspec.convert(raw, Job)
    _check_parameters(job, where)
    return job


def _near(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    meant = f"; did you mean {near[0]!r}?" if near else "."
    return f"{meant} Known: {', '.join(known)}."


def estimator_class(name: str) -> type:
    """Return the class of estimators with this name.

    Raises
    ------
    DataError
        If there is none.
    """
    import daskps._api  # noqa: F401  # registers its estimators
    from daskps.models import saved

    kinds = saved.kinds()
    if name not in kinds:
        raise DataError(f"there is no model {name!r}{_near(name, sorted(kinds))}")
    return kinds[name]


def parameters_of(kind: type) -> list[str]:
    """Return the names of an estimator's parameters."""
    return list(inspect.signature(kind).parameters)


def _check_parameters(job: Job, where: str) -> None:
    known = parameters_of(estimator_class(job.model))
    for name in job.parameters:
        if name not in known:
            raise DataError(
                f"field 'parameters.{name}' of {where} is no parameter of {job.model}"
                f"{_near(name, known)}"
            )


def absolute(job: Job) -> Job:
    """Return the same job with paths that hold in any folder."""
    named = {n: _path(getattr(job, n)) for n in ("data", "eval", "save")}
    parameters = dict(job.parameters)
    if "checkpoint" in parameters:
        parameters["checkpoint"] = _path(parameters["checkpoint"])
    return msgspec.structs.replace(job, **named, parameters=parameters)


def _path(path: Any) -> Any:
    return os.path.abspath(path) if isinstance(path, str) and "://" not in path else path


def remember(job: Job) -> None:
    """Write the job beside its cuts, so that ``resume`` needs the checkpoint alone."""
    import zarr

    store = job.parameters.get("checkpoint")
    if store is not None:
        group = zarr.open_group(store, mode="a", zarr_format=3)
        group.attrs[ATTRIBUTE] = msgspec.to_builtins(job)


def remembered(store: str) -> dict[str, Any]:
    """Return the job of a checkpoint.

    Raises
    ------
    DataError
        If no job was written there.
    """
    import zarr

    try:
        raw = zarr.open_group(store, mode="r", zarr_format=3).attrs.get(ATTRIBUTE)
    except (OSError, ValueError, KeyError) as error:
        raise FileNotFoundError(f"no checkpoint at {store!r}: {error}") from error
    if not isinstance(raw, dict):
        raise DataError(
            f"checkpoint {store!r} does not say which job made it: it was written by fit(), not by "
            "'dask daskps train'. Call fit(..., resume=True), or train with --job and --resume."
        )
    return raw
