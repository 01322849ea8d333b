"""Every error that daskps raises on purpose.

Each class also inherits the builtin that a caller would catch without knowing daskps::

    DaskpsError
    ├── DataError (ValueError)
    │   ├── DataTypeError (TypeError)
    │   └── DatasetFormatError
    ├── CorruptChunk (OSError)
    ├── CheckpointError (OSError)
    ├── NonFinitePush (FloatingPointError)
    │   └── Diverged
    ├── NotEnoughMemory (MemoryError)
    ├── ShardLost (ConnectionError)
    ├── StaleLayout (RuntimeError)
    ├── RunFailed (RuntimeError)
    └── RunTimeout (TimeoutError)

Messages say what happened, the value, what was expected, and the remedy.
"""

from __future__ import annotations


class DaskpsError(Exception):
    """Base of all errors of this package."""


class DataError(DaskpsError, ValueError):
    """The training data, or an argument that describes it, cannot be used."""


class DataTypeError(DataError, TypeError):
    """An entry of the training data is of a type that no number can be made of."""


class DatasetFormatError(DataError):
    """A Zarr group is not a complete dataset or model of a version that is understood."""


class CorruptChunk(DaskpsError, OSError):
    """A chunk of a dataset or checkpoint failed its checksum or cannot be decoded."""


class CheckpointError(DaskpsError, OSError):
    """A checkpoint cannot be written, or no usable one was found."""


class NonFinitePush(DaskpsError, FloatingPointError):
    """A push held NaN or infinity; the shard refused it and is unchanged."""


class Diverged(NonFinitePush):
    """Steps were too long: errors grew instead of falling; nothing of the step was pushed."""


class NotEnoughMemory(DaskpsError, MemoryError):
    """The data and the parameters do not fit; found out before anything is loaded."""


class ShardLost(DaskpsError, ConnectionError):
    """A shard cannot be reached: its worker died, hangs, or holds another incarnation."""


class StaleLayout(DaskpsError, RuntimeError):
    """A message was addressed by an older layout generation than the shard's."""


class RunFailed(DaskpsError, RuntimeError):
    """Training cannot go on; the message holds the cause and what is left to use."""


class RunTimeout(DaskpsError, TimeoutError):
    """A bounded wait ended; the message says what was waited for."""
