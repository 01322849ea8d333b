"""Latent Dirichlet allocation: `LatentDirichletAllocation`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from daskps.cluster import current_client
from daskps.errors import DataError
from daskps.models import answers, saved, topic_plan
from daskps.models.documents import check_documents, documents, halves
from daskps.models.parameters import absolute, check_parameters
from daskps.models.predict import check_width
from daskps.models.topic_fit import Fitted, fit_topics
from daskps.models.topic_view import TopicView
from daskps.monitor.progress import ClockCallback, progress_listeners
from daskps.run.launch import RunOptions


@saved.kind
class LatentDirichletAllocation(TopicView, BaseEstimator):
    """Topics of documents by collapsed Gibbs sampling, in parallel, with exact counts.

    Every token has one topic; the model is how often words and documents have each. In BSP the
    result depends on the data, its partitions and `random_state` alone.

    Parameters
    ----------
    n_components
        Number of topics.
    doc_topic_prior
        Dirichlet prior of a document's topics, alpha: a number for all topics, or one for each;
        None is ``1 / n_components``. ``"auto"`` learns one for each topic, beginning there.
    topic_word_prior
        Dirichlet prior of a topic's words, eta; None is ``1 / n_components``, and ``"auto"`` learns
        it, beginning there.
    solver
        ``gibbs``.
    max_iter
        Sweeps: how often each token's topic is drawn.
    consistency, staleness
        As in `LogisticRegression`. ``bsp`` also checks all counts at each clock, and notes the
        likelihood.
    slices
        Into how many slices the vocabulary is cut. At a clock a partition draws the tokens of one,
        and needs the counts of its words alone; partitions begin with different ones. None chooses
        by the number of tokens.
    sweeps_per_clock
        Sweeps between two looks at other partitions' counts; None chooses more for small data.
    random_state
        Seed of all draws; None for a new one.
    checkpoint, checkpoint_every, keep, n_shards, progress
        As in `LogisticRegression`.

    Attributes
    ----------
    topic_word_counts_
        How often each word has each topic, scipy.sparse, shape (n_components, n_words).
    doc_topic_counts_
        How many tokens of each training document have each topic, scipy.sparse, shape
        (n_docs, n_components).
    components_, topic_word_, doc_topic_
        Counts plus prior, and probabilities, as dense DataArrays that are made when they are asked
        for.
    doc_topic_prior_
        Alpha, shape (n_components,).
    topic_word_prior_
        Eta.
    vocabulary_
        Words, shape (n_words,), or None.
    history_
        By clock: ``loss``, minus the mean log-probability of a token by all others;
        ``log_likelihood``, of all words and topics together (BSP); and the figures of all
        estimators.
    n_iter_, n_features_in_, stop_reason_
        Sweeps done, words of the vocabulary, why training ended.

    References
    ----------
    Griffiths and Steyvers (2004), "Finding Scientific Topics". Newman et al. (2009), "Distributed
    Algorithms for Topic Models". Chen et al. (2016), "WarpLDA". Zaheer et al. (2016), "Exponential
    Stochastic Cellular Automata for Massively Parallel Inference".

    Examples
    --------
    >>> X = [[4, 4, 0, 0], [5, 3, 0, 0], [0, 0, 4, 4], [0, 0, 3, 6]] * 5
    >>> lda = LatentDirichletAllocation(2, max_iter=20).fit(X, vocabulary=["a", "b", "y", "z"])
    >>> sorted(sorted(row) for row in lda.top_words(2).to_numpy().tolist())
    [['a', 'b'], ['y', 'z']]
    """

    _solvers: ClassVar[tuple[str, ...]] = ("gibbs",)
    _saved: ClassVar[tuple[str, ...]] = ("topic_word_prior_",)
    keys: ClassVar[str] = "range"
    hashing_: ClassVar[None] = None

    history_: xr.Dataset
    stop_reason_: str

    def __init__(
        self,
        n_components: int = 10,
        *,
        doc_topic_prior: float | ArrayLike | Literal["auto"] | None = None,
        topic_word_prior: float | Literal["auto"] | None = None,
        solver: Literal["gibbs"] = "gibbs",
        max_iter: int = 100,
        consistency: Literal["bsp", "ssp", "asp"] = "bsp",
        staleness: int = 2,
        slices: int | None = None,
        sweeps_per_clock: int | None = None,
        random_state: int | None = 0,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int | str | None = None,
        keep: int = 2,
        n_shards: int | None = None,
        progress: bool | None = None,
    ) -> None:
        self.n_components = n_components
        self.doc_topic_prior = doc_topic_prior
        self.topic_word_prior = topic_word_prior
        self.solver = solver
        self.max_iter = max_iter
        self.consistency = consistency
        self.staleness = staleness
        self.slices = slices
        self.sweeps_per_clock = sweeps_per_clock
        self.random_state = random_state
        self.checkpoint = checkpoint
        self.checkpoint_every = checkpoint_every
        self.keep = keep
        self.n_shards = n_shards
        self.progress = progress

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        vocabulary: Sequence[str] | None = None,
        resume: bool = False,
        callback: ClockCallback | None = None,
    ) -> Self:
        """Find the topics of documents.

        Ctrl-C ends training at the next clock and leaves a usable model; a second one ends it at
        once.

        Parameters
        ----------
        X
            Counts, (n_docs, n_words): a `daskps.Dataset` (see `read_docword` and `from_texts`),
            the path or URL of one, or a matrix, whose rows keep their order: numpy, scipy.sparse,
            pydata/sparse, pandas, dask (unknown chunks too), xarray. Documents may be empty.
        y
            Not looked at; there for pipelines.
        vocabulary
            Words, one for each column; None for those of the data, if it has any.
        resume, callback
            As in `LogisticRegression.fit`.

        Raises
        ------
        DataError
            If a value is no count, there are fewer tokens than topics, or the vocabulary has
            another length; before any training.
        CheckpointError
            If `checkpoint` holds cuts of another run.
        RunFailed
            If training could not go on.
        """
        check_parameters(self)
        dataset = documents(X)
        tokens = check_documents(dataset)
        if tokens < self.n_components:
            raise DataError(
                f"{tokens} tokens cannot have {self.n_components} topics; lower n_components."
            )
        words = topic_plan.words_of(dataset, vocabulary)
        alpha = topic_plan.prior_of(self.doc_topic_prior, self.n_components)
        beta = topic_plan.beta_of(self.topic_word_prior, self.n_components)
        how = topic_plan.choose(tokens, dataset.n_partitions, self.slices, self.sweeps_per_clock)
        options = self._options(how, resume, callback)
        model = topic_plan.model(self, dataset.n_features, alpha, beta, how)
        found = fit_topics(model, dataset, options, tokens, current_client())
        self._take(found, how)
        self.doc_topic_prior_, self.topic_word_prior_ = found.alpha, found.beta
        self.vocabulary_, self.n_features_in_ = words, dataset.n_features
        if self.stop_reason_ == "interrupted":
            done = f"training was interrupted after {self.n_iter_} of {self.max_iter} sweeps"
            warnings.warn(f"{done}; the model is usable.", ConvergenceWarning, stacklevel=2)
        return self

    def _options(
        self, how: topic_plan.Course, resume: bool, callback: ClockCallback | None
    ) -> RunOptions:
        return RunOptions(
            consistency=self.consistency,
            staleness=self.staleness,
            max_iter=1 + -(-self.max_iter // how.sweeps),  # the first pass draws at random
            clocks_per_pass=how.slices,
            checkpoint=absolute(self.checkpoint),
            checkpoint_every=self.checkpoint_every,
            keep=self.keep,
            n_shards=self.n_shards,
            resume=resume,
            listeners=progress_listeners(self.progress, callback),
        )

    def _take(self, found: Fitted, how: topic_plan.Course) -> None:
        self.word_ptr_, self.word_topics_, self.word_counts_ = found.words
        self.doc_ptr_, self.doc_topics_, self.doc_counts_ = found.docs
        self.history_ = found.history
        self.n_iter_ = max(0, found.clocks // how.slices - 1) * how.sweeps
        self.stop_reason_ = found.reason

    # -- use ---------------------------------------------------------------------------------

    def transform(self, X: Any) -> Any:
        """Return the share of each topic in each document, (n_docs, n_components), float32.

        Topics are as they are; shares are found by repeating ``theta_k = alpha_k + sum_w c_w
        theta_k phi_kw / sum_j theta_j phi_jw``, normalised, up to 100 times. Rows sum to 1; an
        empty document has the shares of the prior.

        Parameters
        ----------
        X
            Anything that `fit` takes. Of a dask array, DataFrame, DataArray or a dataset on disk
            the answer is lazy and of the same kind; else it is a numpy array.
        """
        score = self._score()
        topics = np.arange(self.n_topics_)
        question = answers.Question(
            *(score, _as_it_is, np.dtype(np.float32), topics, self.n_features_in_),
            type(self).__name__,
            column="topic",
        )
        return answers.answer(question, X)

    def fit_transform(self, X: Any, y: Any = None, **fit_params: Any) -> NDArray[np.float64]:
        """Return `doc_topic_` of a fit to `X`, a numpy array."""
        return self.fit(X, y, **fit_params).doc_topic_.to_numpy()

    def perplexity(self, X: Any, *, random_state: int = 0) -> float:
        """Return how badly halves of documents foretell their other halves; lower is better.

        Every document is cut in two halves a and b, token by token, at random. With theta found of
        a as in `transform`, by 100 steps, it is ``exp(-sum_d sum_w b_dw log sum_k theta_dk phi_kw /
        sum_dw b_dw)``, with ``phi_kw = (n_kw + eta) / (n_k + V eta)``.

        Parameters
        ----------
        X
            Documents that were not trained on: anything that `fit` takes.
        random_state
            Seed of the halves.

        References
        ----------
        Wallach et al. (2009), "Evaluation Methods for Topic Models", section 5.1: document
        completion, here with an estimate of theta.
        """
        score = self._score().exactly()
        dataset = documents(X)
        check_width(dataset.n_features, self.n_features_in_, type(self).__name__, exact=False)
        rng = np.random.default_rng(random_state)
        total = n = 0.0
        for i in range(dataset.n_partitions):
            known, asked = halves(dataset.partition(i), rng)
            total += score.log_likelihood(asked, score(known))
            n += float(0 if asked.values is None else asked.values.sum())
        if not n:
            raise DataError("no document has two tokens; expected some to complete.")
        return float(np.exp(-total / n))

    def save(self, store: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the model to a Zarr group, which `daskps.load` and `xarray.open_zarr` open.

        Raises
        ------
        FileExistsError
            If there is something at `store` and `overwrite` is not given.
        """
        check_is_fitted(self)
        arrays: dict[str, tuple[NDArray[Any], tuple[str, ...]]] = {
            "word_ptr": (self.word_ptr_, ("word_edge",)),
            "word_topics": (self.word_topics_, ("word_cell",)),
            "word_counts": (self.word_counts_, ("word_cell",)),
            "doc_ptr": (self.doc_ptr_, ("document_edge",)),
            "doc_topics": (self.doc_topics_, ("document_cell",)),
            "doc_counts": (self.doc_counts_, ("document_cell",)),
            "doc_topic_prior": (self.doc_topic_prior_, ("topic",)),
        }
        if self.vocabulary_ is not None:
            arrays["vocabulary"] = (self.vocabulary_, ("word",))
        saved.save(self, arrays, store, overwrite=overwrite)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "word_ptr_")


def _as_it_is(shares: NDArray[Any]) -> NDArray[Any]:
    return shares
