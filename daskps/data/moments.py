"""Times of ratings as seconds since 1970: columns of numbers, of dates, of text; single moments."""

from __future__ import annotations

from typing import Any

import pandas as pd

from daskps.errors import DataError, DataTypeError


def seconds(column: Any, where: str) -> Any:
    """Return a column of times as numbers; numbers are taken as they are.

    Raises
    ------
    DataTypeError
        If there is text that is no date.
    """
    if pd.api.types.is_numeric_dtype(column):
        return column
    if column.dtype.kind != "M":
        try:
            column = pd.to_datetime(column, utc=True, format="ISO8601")
        except (TypeError, ValueError) as error:
            raise DataTypeError(
                f"column {column.name!r} of times{where} holds neither numbers nor dates "
                f"({error}); expected one of them, dates like 2015-09-21 or 2015-09-21 10:30."
            ) from error
    return (column - pd.Timestamp(0, tz=column.dt.tz)) / pd.Timedelta(seconds=1)


def moment(when: Any) -> float:
    """Return one moment, a number or a date, as times are kept; dates without a zone are UTC.

    Raises
    ------
    DataError
        If it is neither.
    """
    if isinstance(when, (int, float)) and not isinstance(when, bool):
        return float(when)
    try:
        stamp = pd.Timestamp(when)
        epoch = pd.Timestamp(0, tz=stamp.tz)
        return float((stamp - epoch) / pd.Timedelta(seconds=1))
    except (TypeError, ValueError) as error:
        raise DataError(
            f"when={when!r} is no moment ({error}); expected a number, as the times are, or a date."
        ) from error
