"""The examples of own models as modules, and a model that does what a test wants."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import daskps

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def example(name: str) -> ModuleType:
    """Return ``examples/<name>.py`` as a module."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Doing(daskps.Model):
    """Does in a step what a test wants."""

    wanted: Sequence[daskps.Table]
    act: Callable[[Any, Any], Any] = field(repr=False)
    keeps: tuple[str, ...] = ()

    def tables(self) -> Sequence[daskps.Table]:
        return self.wanted

    def step(self, rows: Any, server: Any) -> float:
        found = self.act(rows, server)
        return 0.0 if found is None else found


def digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return X / 16, y
