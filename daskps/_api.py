"""What `daskps` offers, imported when the first of it is asked for; registers all estimators.

Apart from `daskps` itself, so that the command ``dask``, which looks at every package's commands,
does not wait for it.
"""

from daskps import errors
from daskps.cluster import local_cluster
from daskps.data import (
    Dataset,
    Ratings,
    from_arrays,
    from_texts,
    open_dataset,
    open_ratings,
    read_docword,
    read_ratings,
    read_svmlight,
)
from daskps.models.factorization import FactorizationMachine
from daskps.models.logistic import LogisticRegression
from daskps.models.matrix_factorization import MatrixFactorization
from daskps.models.own import Model, Table
from daskps.models.own_fit import Trained, train
from daskps.models.regression import LinearRegression
from daskps.models.saved import load
from daskps.models.svm import LinearSVC
from daskps.models.topics import LatentDirichletAllocation
from daskps.monitor.link import dashboard
from daskps.run.detached import DetachedRun, attach

__all__ = [
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
