"""Fixtures of the estimators' tests."""

from __future__ import annotations

import pytest
from small import Data, make


@pytest.fixture(scope="session")
def binary() -> Data:
    return make(2)


@pytest.fixture(scope="session")
def multinomial() -> Data:
    return make(3)
