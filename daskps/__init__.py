"""daskps: an elastic parameter server on Dask.

Trains models on sparse data with a Dask cluster, keeps going when workers die, join or leave, and
gives back a model that xarray opens.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from daskps.version import VERSION

if TYPE_CHECKING:
    from daskps._api import *  # noqa: F403  # for type checkers; __all__ names all

__version__ = VERSION

__all__ = [  # noqa: F405  # __getattr__ finds them
    "Dataset",
    "DetachedRun",
    "FactorizationMachine",
    "LatentDirichletAllocation",
    "LinearRegression",
    "LinearSVC",
    "LogisticRegression",
    "MatrixFactorization",
    "Model",
    "Ratings",
    "Table",
    "Trained",
    "attach",
    "dashboard",
    "errors",
    "from_arrays",
    "from_texts",
    "load",
    "local_cluster",
    "open_dataset",
    "open_ratings",
    "read_docword",
    "read_ratings",
    "read_svmlight",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a submodule, or everything that is public at the first use of any of it."""
    if name in __all__ and name != "errors":
        return getattr(importlib.import_module("daskps._api"), name)
    try:
        return importlib.import_module(f"daskps.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"daskps.{name}":
            raise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
