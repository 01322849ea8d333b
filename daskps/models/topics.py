"""Latent Dirichlet allocation: `LatentDirichletAllocation`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self, overload

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from daskps.cluster import current_client
from daskps.data import Dataset
from daskps.errors import DataError
from daskps.models import answers, saved, topic_plan, topic_stream
from daskps.models.documents import check_documents, documents
from daskps.models.parameters import absolute
from daskps.models.predict import check_width
from daskps.models.topic_fit import fit_topics
from daskps.models.topic_view import TopicView
from daskps.monitor.progress import ClockCallback, progress_listeners
from daskps.run.detached import DetachedRun, start_detached
from daskps.run.driver import Listener
from daskps.run.launch import RunOptions


@saved.kind
class LatentDirichletAllocation(TopicView, BaseEstimator):
    """Topics of documents, by Gibbs sampling with exact counts or by variational Bayes on streams.

    With ``solver="gibbs"`` every token has one topic; the model is how often words and documents
    have each. With ``"online"`` topics are weights of words, brought up to date after each batch of
    documents, which are not kept. In BSP the result depends on the data, its partitions and
    `random_state` alone.

    Parameters
    ----------
    n_components
        Number of topics.
    doc_topic_prior
        Dirichlet prior of a document's topics, alpha: a number for all topics, or one for each;
        None is ``1 / n_components``. ``"auto"`` learns one for each topic, beginning there.
    topic_word_prior
        Dirichlet prior of a topic's words, eta; None is ``1 / n_components``, and ``"auto"`` learns
        it, beginning there (``gibbs``).
    solver
        ``gibbs``, or ``online``: variational Bayes a batch at a time, which also has `partial_fit`.
    max_iter
        Sweeps: how often each token's topic is drawn; of ``online`` passes over the documents.
        None is 100 sweeps or 10 passes.
    consistency, staleness, quorum
        As in `LogisticRegression`. ``gibbs`` in ``bsp`` checks counts and notes likelihoods, too.
    slices
        Into how many slices the vocabulary is cut (``gibbs``). At a clock a partition draws the
        tokens of one, and needs the counts of its words alone; partitions begin with different
        ones. None chooses by the number of tokens.
    sweeps_per_clock
        Sweeps between two looks at other partitions' counts (``gibbs``); None chooses more for
        small data, and in BSP more when topics have formed.
    learning_decay, learning_offset
        Step t weighs ``(learning_offset + t) ** -learning_decay`` against all before it
        (``online``); a decay in (0.5, 1] converges.
    batch_size
        Documents of a step, of all partitions together (``online``).
    total_samples
        Documents that `partial_fit` is going to see.
    mean_change_tol, max_doc_update_iter
        Topics of a document are found when they change by less on average, or after so many
        updates (``online``).
    random_state
        Seed of all draws; None for a new one.
    checkpoint, checkpoint_every, keep, n_shards, replicas, progress
        As in `LogisticRegression`.

    Attributes
    ----------
    topic_word_counts_
        How often each word has each topic, scipy.sparse, shape (n_components, n_words); of
        ``online`` what is expected.
    doc_topic_counts_
        How many tokens of each training document have each topic, scipy.sparse, shape
        (n_docs, n_components); not of ``online``.
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
        By clock: ``loss``, minus the mean log-probability of a token by all others, or with
        ``online`` minus the bound of it under the topics before; ``log_likelihood``, of all words
        and topics together (BSP, ``gibbs``); and the figures of all estimators.
    n_iter_, n_features_in_, stop_reason_
        Sweeps or passes done, words of the vocabulary, why training ended.
    n_batch_iter_
        Number of the next step of ``online``, from 1.

    References
    ----------
    Griffiths and Steyvers (2004), "Finding Scientific Topics". Newman et al. (2009), "Distributed
    Algorithms for Topic Models". Chen et al. (2016), "WarpLDA". Zaheer et al. (2016), "Exponential
    Stochastic Cellular Automata for Massively Parallel Inference". Hoffman, Blei and Bach (2010),
    "Online Learning for Latent Dirichlet Allocation".

    Examples
    --------
    >>> X = [[4, 4, 0, 0], [5, 3, 0, 0], [0, 0, 4, 4], [0, 0, 3, 6]] * 5
    >>> lda = LatentDirichletAllocation(2, max_iter=20).fit(X, vocabulary=["a", "b", "y", "z"])
    >>> sorted(sorted(row) for row in lda.top_words(2).to_numpy().tolist())
    [['a', 'b'], ['y', 'z']]
    """

    _solvers: ClassVar[tuple[str, ...]] = topic_plan.SOLVERS
    _checks: ClassVar[Any] = topic_plan.CHECKS
    _saved: ClassVar[tuple[str, ...]] = ("topic_word_prior_", "n_batch_iter_")
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
        solver: Literal["gibbs", "online"] = "gibbs",
        max_iter: int | None = None,
        consistency: Literal["bsp", "ssp", "asp"] = "bsp",
        staleness: int = 2,
        quorum: float = 1.0,
        slices: int | None = None,
        sweeps_per_clock: int | None = None,
        learning_decay: float = 0.7,
        learning_offset: float = 10.0,
        batch_size: int = 128,
        total_samples: float = 1e6,
        mean_change_tol: float = 1e-3,
        max_doc_update_iter: int = 100,
        random_state: int | None = 0,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: int | str | None = None,
        keep: int = 2,
        n_shards: int | None = None,
        replicas: int = 0,
        progress: bool | None = None,
    ) -> None:
        self.n_components = n_components
        self.doc_topic_prior = doc_topic_prior
        self.topic_word_prior = topic_word_prior
        self.solver = solver
        self.max_iter = max_iter
        self.consistency = consistency
        self.staleness = staleness
        self.quorum = quorum
        self.slices = slices
        self.sweeps_per_clock = sweeps_per_clock
        self.learning_decay = learning_decay
        self.learning_offset = learning_offset
        self.batch_size = batch_size
        self.total_samples = total_samples
        self.mean_change_tol = mean_change_tol
        self.max_doc_update_iter = max_doc_update_iter
        self.random_state = random_state
        self.checkpoint = checkpoint
        self.checkpoint_every = checkpoint_every
        self.keep = keep
        self.n_shards = n_shards
        self.replicas = replicas
        self.progress = progress

    @overload
    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        vocabulary: Sequence[str] | None = None,
        resume: bool = False,
        callback: ClockCallback | None = None,
        detach: Literal[False] = False,
    ) -> Self: ...

    @overload
    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        vocabulary: Sequence[str] | None = None,
        resume: bool = False,
        detach: str | Literal[True],
    ) -> DetachedRun: ...

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        vocabulary: Sequence[str] | None = None,
        resume: bool = False,
        callback: ClockCallback | None = None,
        detach: bool | str = False,
    ) -> Self | DetachedRun:
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
        resume, callback, detach
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
        topic_plan.check(self)
        if detach:
            given = {"X": X, "vocabulary": vocabulary}
            return start_detached(self, detach, resume, callback, given)
        dataset = documents(X)
        tokens = check_documents(dataset)
        words = topic_plan.words_of(dataset, vocabulary)
        priors = topic_plan.priors(self)
        heard = progress_listeners(self.progress, callback, title=type(self).__name__)
        if self.solver == "online":
            self._stream(dataset, priors, resume=resume, listeners=heard)
        else:
            self._draw(dataset, tokens, priors, resume=resume, listeners=heard)
        self.vocabulary_, self.n_features_in_ = words, dataset.n_features
        if self.stop_reason_ == "interrupted":
            what = "passes" if self.solver == "online" else "sweeps"
            done = f"training was interrupted after {self.n_iter_} of {self._max_iter} {what}"
            warnings.warn(f"{done}; the model is usable.", ConvergenceWarning, stacklevel=3)
        return self

    def partial_fit(
        self, X: Any, y: Any = None, *, vocabulary: Sequence[str] | None = None
    ) -> Self:
        """Bring the topics up to date with more documents, in one pass; ``solver="online"``.

        Steps go on from those before, and take the documents for a part of `total_samples`.

        Parameters
        ----------
        X, y, vocabulary
            As in `fit`; the words are those of the first call.

        Raises
        ------
        DataError
            As `fit`, and if there are other words than in the calls before.
        ValueError
            If the solver cannot do it.
        """
        topic_plan.check(self, partial=True)
        dataset = documents(X)
        check_documents(dataset)
        words = topic_plan.words_of(dataset, vocabulary)
        went_on = hasattr(self, "word_ptr_") and self.doc_ptr_ is None
        if went_on:
            check_width(dataset.n_features, self.n_features_in_, type(self).__name__, exact=True)
        self._stream(dataset, topic_plan.priors(self), further=True, went_on=went_on)
        if not went_on:
            self.vocabulary_, self.n_features_in_ = words, dataset.n_features
        return self

    @property
    def _max_iter(self) -> int:
        return self.max_iter or (10 if self.solver == "online" else 100)

    def _draw(self, dataset: Dataset, tokens: int, priors: topic_plan.Priors, **how: Any) -> None:
        """Fit by Gibbs sampling."""
        if tokens < self.n_components:
            raise DataError(
                f"{tokens} tokens cannot have {self.n_components} topics; lower n_components."
            )
        course = topic_plan.course_of(self, tokens, dataset.n_partitions)
        options = self._options(course.passes(self._max_iter), course.slices, **how)
        model = topic_plan.model(self, dataset.n_features, *priors, course)
        found = fit_topics(model, dataset, options, tokens, current_client())
        self.word_ptr_, self.word_topics_, self.word_counts_ = found.words
        self.doc_ptr_, self.doc_topics_, self.doc_counts_ = found.docs
        self.doc_topic_prior_, self.topic_word_prior_ = found.alpha, found.beta
        self.history_, self.stop_reason_ = found.history, found.reason
        self.n_iter_ = course.done(found.clocks // course.slices)
        self.n_batch_iter_ = 1

    def _stream(
        self,
        dataset: Dataset,
        priors: topic_plan.Priors,
        *,
        further: bool = False,
        went_on: bool = False,
        resume: bool = False,
        listeners: Sequence[Listener] = (),
    ) -> None:
        """Fit by online variational Bayes, from the model that is there if it is gone on with."""
        clocks = topic_stream.steps_per_pass(dataset, self.batch_size)
        passes = 1 if further else self._max_iter
        options = self._options(passes, clocks, resume=resume, listeners=listeners)
        start = topic_stream.Start.of(self, dataset, priors, went_on=went_on)
        whole: float = dataset.n_rows
        if further:
            options, whole = replace(options, checkpoint=None), self.total_samples
        model = topic_stream.model(self, dataset.n_rows, whole, start, options)
        found = topic_stream.fit_online(model, dataset, options, start.weights, current_client())
        self.word_ptr_, self.word_topics_, self.word_counts_ = topic_stream.cells(found.weights)
        self.doc_ptr_ = self.doc_topics_ = self.doc_counts_ = None
        self.doc_topic_prior_, self.topic_word_prior_ = found.alpha, model.eta
        self.history_, self.stop_reason_ = found.history, found.reason
        self.n_iter_, self.n_batch_iter_ = found.passes, found.steps + 1

    def _options(
        self, passes: int, clocks: int, *, resume: bool, listeners: Sequence[Listener]
    ) -> RunOptions:
        same = ("consistency", "staleness", "quorum", "checkpoint_every", "keep", "n_shards")
        return RunOptions(
            max_iter=passes,
            clocks_per_pass=clocks,
            checkpoint=absolute(self.checkpoint),
            resume=resume,
            listeners=listeners,
            **{name: getattr(self, name) for name in (*same, "replicas")},
        )

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

    def fit_transform(self, X: Any, y: Any = None, **fit_params: Any) -> Any:
        """Return `doc_topic_` of a fit to `X`, a numpy array; of ``online`` `transform` of it."""
        self.fit(X, y, **fit_params)
        return self.transform(X) if self.doc_ptr_ is None else self.doc_topic_.to_numpy()

    def save(self, store: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the model to a Zarr group, which `daskps.load` and `xarray.open_zarr` open.

        Raises
        ------
        FileExistsError
            If there is something at `store` and `overwrite` is not given.
        """
        check_is_fitted(self)
        saved.save(self, self._arrays(), store, overwrite=overwrite)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "word_ptr_")


def _as_it_is(shares: NDArray[Any]) -> NDArray[Any]:
    return shares
