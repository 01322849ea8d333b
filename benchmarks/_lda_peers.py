"""The peers of the topic benchmark, each as its own documentation says that it is fastest.

All return points: passes over the documents, seconds of training without loading, and perplexity.
Those that are not Gibbs samplers take 10 to 100 times as long for a pass, and get few of them.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn import decomposition
from sklearn.datasets import dump_svmlight_file

from benchmarks._documents import Documents, perplexity

WORKERS = 2
ETA = 0.01
PASSES = (1, 2)
"""Of online variational Bayes."""
SHARE = 0.05
"""Of the documents, that Spark takes for a step."""

Point = tuple[float, float, float]
"""Passes, seconds, perplexity."""
Method = Callable[[Documents, int, Sequence[int]], list[Point]]


def tomotopy_points(data: Documents, K: int, sweeps: Sequence[int]) -> list[Point]:
    import tomotopy

    model = tomotopy.LDAModel(k=K, alpha=10 / K, eta=ETA, seed=1)
    X = data.train
    for first, last in zip(X.indptr[:-1], X.indptr[1:], strict=True):
        words = np.repeat(X.indices[first:last], X.data[first:last].astype(int))
        if len(words):
            model.add_doc([str(w) for w in words])
    model.optim_interval = 0
    scheme = {"workers": WORKERS, "parallel": tomotopy.ParallelScheme.PARTITION}
    model.train(0, **scheme)
    words = np.array([int(w) for w in model.used_vocabs])
    points, seconds, done = [], 0.0, 0
    for n in sweeps:
        start = time.perf_counter()
        model.train(n - done, **scheme)
        seconds, done = seconds + time.perf_counter() - start, n
        phi = np.zeros((K, X.shape[1]))
        phi[:, words] = [model.get_topic_word_dist(k) for k in range(K)]
        points.append((n, seconds, perplexity(phi, data)))
    return points


def sklearn_points(data: Documents, K: int, sweeps: Sequence[int]) -> list[Point]:
    """Online variational Bayes."""
    model = decomposition.LatentDirichletAllocation(
        K,
        doc_topic_prior=10 / K,
        topic_word_prior=ETA,
        total_samples=data.train.shape[0],
        batch_size=512,
        n_jobs=WORKERS,
        random_state=1,
    )
    points, seconds = [], 0.0
    for n in PASSES:
        start = time.perf_counter()
        model.partial_fit(data.train)
        seconds += time.perf_counter() - start
        points.append((n, seconds, perplexity(model.components_, data)))
    return points


def gensim_points(data: Documents, K: int, sweeps: Sequence[int]) -> list[Point]:
    """`LdaMulticore`: online variational Bayes in processes."""
    from gensim.matutils import Sparse2Corpus
    from gensim.models import LdaMulticore

    corpus = [
        [(int(w), int(c)) for w, c in document]
        for document in Sparse2Corpus(data.train, documents_columns=False)
    ]
    words = {i: str(i) for i in range(data.train.shape[1])}
    points = []
    for n in PASSES:
        start = time.perf_counter()
        model = LdaMulticore(
            corpus,
            num_topics=K,
            id2word=words,
            workers=WORKERS,
            passes=n,
            chunksize=500,
            alpha=np.full(K, 10 / K),
            eta=ETA,
            eval_every=None,
            random_state=1,
        )
        seconds = time.perf_counter() - start
        points.append((n, seconds, perplexity(model.get_topics().astype(np.float64), data)))
    return points


def spark_points(data: Documents, K: int, sweeps: Sequence[int]) -> list[Point]:
    """Online variational Bayes; `PYSPARK_PYTHON` and Java are the user's."""
    from pyspark.ml.clustering import LDA
    from pyspark.sql import SparkSession

    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    session = (
        SparkSession.builder.master(f"local[{WORKERS}]")
        .config("spark.driver.memory", "6g")
        .config("spark.ui.enabled", "false")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("ERROR")
    points = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "train.svm"
            dump_svmlight_file(
                data.train, np.zeros(data.train.shape[0]), str(path), zero_based=False
            )
            reader = session.read.format("libsvm").option("numFeatures", str(data.train.shape[1]))
            rows = reader.load(str(path)).repartition(2 * WORKERS).cache()
            rows.count()
            for n in PASSES:
                lda: Any = LDA(
                    k=K,
                    maxIter=round(n / SHARE),
                    optimizer="online",
                    subsamplingRate=SHARE,
                    learningOffset=10.0,
                    learningDecay=0.7,
                    optimizeDocConcentration=False,
                    docConcentration=[10 / K],
                    topicConcentration=ETA,
                    seed=1,
                )
                start = time.perf_counter()
                model = lda.fit(rows)
                seconds = time.perf_counter() - start
                points.append((n, seconds, perplexity(model.topicsMatrix().toArray().T, data)))
    finally:
        session.stop()
    return points


PEERS: dict[str, tuple[str, Method]] = {
    "tomotopy": ("tomotopy", tomotopy_points),
    "scikit-learn": ("sklearn", sklearn_points),
    "gensim": ("gensim", gensim_points),
    "Spark": ("pyspark", spark_points),
}
"""By name: module, and points."""
