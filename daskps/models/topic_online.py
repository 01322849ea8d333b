"""Online variational Bayes as the parameter server sees it: tables and a step.

Topics are Dirichlet distributions over words with parameters lambda. After step t they are ::

    lambda <- (1 - rho_t) lambda + rho_t (eta + D / |S| n),   rho_t = (offset + t) ** -decay

with n the expected counts of the |S| documents of the step. Tables hold what this is to be read off
without a change of rows that no document of a step has: ``(lambda - eta) / c`` with ``c_t`` the
product of all ``1 - rho``, to which a step adds ``rho_t / c_t D / |S| n``. So pushes are sums, and
any order of them is right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskps.data import Partition
from daskps.kernels import lda
from daskps.models.documents import check_values, whole_counts
from daskps.models.topic_priors import alpha_of_logs, logs_of
from daskps.run.plan import StepServer
from daskps.server.keys import KeySet, localise, whole_table
from daskps.server.tables import Placement, TableSpec
from daskps.server.updaters import Add

F64 = NDArray[np.float64]

LAMBDA, TOTALS, LOGS = "word_weights", "topic_weights", "topic_logs"


@dataclass(frozen=True, slots=True)
class Course:
    """How fast old documents are forgotten; names are those of scikit-learn."""

    learning_decay: float
    learning_offset: float
    begun: int
    """Steps that were taken before this run."""
    steps: int
    """Steps that this run may take, at most."""

    def rates(self) -> tuple[F64, F64]:
        """Return rho of each step, and c before each step and after the last."""
        t = np.arange(self.steps, dtype=np.float64) + (self.begun + 1)
        rho: F64 = (self.learning_offset + t) ** -self.learning_decay
        return rho, np.concatenate([[1.0], np.cumprod(1 - rho)])


@dataclass(frozen=True, slots=True)
class OnlineData:
    """Some documents; words are positions in the key set."""

    indptr: NDArray[np.int64]
    words: NDArray[np.uint32]
    counts: NDArray[np.float32]
    rows: KeySet
    others: tuple[KeySet, ...]
    """All of the totals, and of the expected logarithms if a prior is learnt."""

    def __sizeof__(self) -> int:
        """Return the bytes held, so that Dask can account for them."""
        arrays = (self.indptr, self.words, self.counts)
        return sum(a.nbytes for a in arrays) + self.rows.__sizeof__()


@dataclass(frozen=True, slots=True)
class OnlineTopicModel:
    """Steps of online variational Bayes, each over the documents of all partitions at a clock.

    Parameters
    ----------
    n_words
        Size of the vocabulary.
    alpha
        Prior of a document's topics, one for each topic.
    eta
        Prior of a topic's words.
    course
        Rates of the steps.
    batch
        Documents of a step.
    documents
        D: documents that the topics are to be about.
    n_iter, tol
        See `daskps.kernels.lda.e_step`.
    learn
        Whether alpha is learnt; it is the first then.

    References
    ----------
    Hoffman, Blei and Bach (2010), "Online Learning for Latent Dirichlet Allocation", algorithm 2.
    """

    n_words: int
    alpha: tuple[float, ...]
    eta: float
    course: Course
    batch: float
    documents: float
    n_iter: int
    tol: float
    learn: bool = False

    def tables(self) -> tuple[TableSpec, ...]:
        """Return the tables of words' weights, of their sums, and of what alpha is learnt from."""
        K, exact = len(self.alpha), Add("float64")  # 1 / c outgrows float32
        tables = TableSpec(LAMBDA, self.n_words, K, exact), TableSpec(TOTALS, 1, K, exact)
        return (*tables, TableSpec(LOGS, 1, K, exact)) if self.learn else tables

    def prepare(self, partition: Partition, placements: Mapping[str, Placement]) -> OnlineData:
        """Rewrite words to positions in the key set."""
        check_values(partition)
        rows, local = localise(placements[LAMBDA], partition.indices)
        names = (TOTALS, LOGS) if self.learn else (TOTALS,)
        others = tuple(whole_table(placements[name]) for name in names)
        return OnlineData(partition.indptr, local, whole_counts(partition), rows, others)

    def step(self, data: OnlineData, server: StepServer) -> Mapping[str, float]:
        """Find the documents' topics under the topics that are there, and push what they say."""
        rho, c = self.course.rates()
        pulled, seen = server.pull([data.rows, *data.others])
        # in SSP and ASP the time is what the shards have seen
        t = server.clock if server.sync else min(int(seen / self.batch), len(rho) - 1)
        together = server.samples_together if server.sync else self.batch
        weights = self.eta + c[t] * pulled[0][:, 0]
        totals = self.n_words * self.eta + c[t] * pulled[1][0, 0]
        alpha = np.array(self.alpha)
        if self.learn:
            alpha = alpha_of_logs(c[t] * pulled[2][0, 0] + logs_of(alpha), alpha)
        beta = lda.expected_words(weights, totals)
        stats, logs, bound = lda.e_step(
            *(data.indptr, data.words, data.counts, beta, alpha), n_iter=self.n_iter, tol=self.tol
        )
        share = rho[t] / c[t + 1] / together
        n = stats.astype(np.float64)
        deltas: list[NDArray[Any]] = [n, n.sum(axis=0)[None]]
        deltas = [share * self.documents * x[:, None] for x in deltas]
        docs = len(data.indptr) - 1
        if self.learn:
            deltas.append(share * (logs - docs * logs_of(np.array(self.alpha)))[None, None])
        server.push([data.rows, *data.others], deltas, samples=docs)
        return {"loss": -bound, "samples": float(data.counts.sum())}

    def evaluate(self, data: OnlineData, server: Any) -> Mapping[str, float]:
        """Not to be called: held-out documents are evaluated by `perplexity`."""
        raise AssertionError("topic models have no evaluation on the server")

    def result(self, values: Mapping[str, Any], c: float) -> tuple[F64, F64]:
        """Return lambda - eta, shape (n_words, K), and alpha, by the tables of a run."""
        alpha = np.array(self.alpha)
        if self.learn:
            alpha = alpha_of_logs(c * values[LOGS][1][0] + logs_of(alpha), alpha)
        return c * values[LAMBDA][1], alpha
