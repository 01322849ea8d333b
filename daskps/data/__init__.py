"""Training data: CSR partitions in Zarr or in memory, and every input that becomes one.

Owns ingest, the dataset format and access to partitions. Knows nothing of parameters or models.
"""

from .arrays import as_dataset, from_arrays
from .dataset import Dataset, open_dataset
from .docword import read_docword
from .format import Hashing
from .partition import Partition
from .ratings import Ratings, open_ratings
from .read_ratings import as_ratings, read_ratings
from .svmlight import read_svmlight
from .texts import from_texts

__all__ = [
    "Dataset",
    "Hashing",
    "Partition",
    "Ratings",
    "as_dataset",
    "as_ratings",
    "from_arrays",
    "from_texts",
    "open_dataset",
    "open_ratings",
    "read_docword",
    "read_ratings",
    "read_svmlight",
]
