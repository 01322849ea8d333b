"""What users ask of topics: names, shares, top words, coherence, other libraries' forms.

Owns views of fitted counts. Does not train, and reads documents only where they are given.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import pandas as pd
import scipy.sparse
import xarray as xr
from numpy.typing import NDArray
from scipy.special import psi
from sklearn import decomposition
from sklearn.utils.validation import check_is_fitted

from daskps.models import coherence
from daskps.models.documents import documents
from daskps.models.predict import check_width
from daskps.models.shown import Shown
from daskps.models.topic_merge import groups_of, merged
from daskps.models.topic_score import TopicScore, completion


class TopicView(Shown):
    """Base of a topic model with counts; see `LatentDirichletAllocation` for the attributes."""

    word_ptr_: NDArray[np.int64]
    word_topics_: NDArray[np.uint32]
    word_counts_: NDArray[np.int32] | NDArray[np.float32]
    doc_ptr_: NDArray[np.int64] | None = None
    """None where no documents were kept."""
    doc_topics_: NDArray[np.uint32] | None = None
    doc_counts_: NDArray[np.int32] | None = None
    doc_topic_prior_: NDArray[np.float64]
    topic_word_prior_: float
    vocabulary_: NDArray[Any] | None = None
    n_iter_: int
    n_batch_iter_: int = 1
    n_features_in_: int

    @property
    def n_topics_(self) -> int:
        """Number of topics."""
        return len(self.doc_topic_prior_)

    @property
    def topic_word_counts_(self) -> scipy.sparse.csc_array:
        """How often each word has each topic, or is expected to, (n_topics, n_words), sparse."""
        check_is_fitted(self)
        shape = (self.n_topics_, self.n_features_in_)
        arrays = (self.word_counts_, self.word_topics_, self.word_ptr_)
        return scipy.sparse.csc_array(arrays, shape=shape)

    @property
    def topic_counts_(self) -> NDArray[np.int64] | NDArray[np.float64]:
        """Tokens of each topic, shape (n_topics,)."""
        check_is_fitted(self)
        found = np.bincount(self.word_topics_, self.word_counts_, self.n_topics_)
        return found if self.word_counts_.dtype.kind == "f" else found.astype(np.int64)

    @property
    def doc_topic_counts_(self) -> scipy.sparse.csr_array:
        """How many tokens of each training document have each topic, (n_docs, n_topics), sparse.

        Raises
        ------
        AttributeError
            If the documents were not kept.
        """
        check_is_fitted(self)
        if self.doc_ptr_ is None:
            raise AttributeError(
                "solver='online' keeps no documents; use transform(X) for the topics of some."
            )
        shape = (len(self.doc_ptr_) - 1, self.n_topics_)
        arrays = (self.doc_counts_, self.doc_topics_, self.doc_ptr_)
        return scipy.sparse.csr_array(arrays, shape=shape)

    @property
    def words_(self) -> NDArray[Any]:
        """Words of the vocabulary, or their numbers."""
        return np.arange(self.n_features_in_) if self.vocabulary_ is None else self.vocabulary_

    def _by_word(self, values: NDArray[Any]) -> xr.DataArray:
        coords = {"topic": np.arange(self.n_topics_), "word": self.words_}
        return xr.DataArray(values, coords, ("topic", "word"))

    @property
    def components_(self) -> xr.DataArray:
        """Counts plus prior, as scikit-learn has them, (topic, word); dense."""
        return self._by_word(self.topic_word_counts_.toarray() + self.topic_word_prior_)

    @property
    def topic_word_(self) -> xr.DataArray:
        """Probability of each word in each topic, (topic, word); dense, rows sum to 1."""
        phi = self._score().phi(np.arange(self.n_features_in_)).T.astype(np.float64)
        return self._by_word(phi / phi.sum(axis=1, keepdims=True))

    @property
    def doc_topic_(self) -> xr.DataArray:
        """Share of each topic in each training document, (document, topic); rows sum to 1."""
        theta = self.doc_topic_counts_.toarray() + self.doc_topic_prior_
        theta /= theta.sum(axis=1, keepdims=True)
        coords = {"topic": np.arange(self.n_topics_)}
        return xr.DataArray(theta, coords, ("document", "topic"))

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
        return completion(score, dataset, np.random.default_rng(random_state))

    def _score(self) -> TopicScore:
        check_is_fitted(self)
        return TopicScore(
            *(self.word_ptr_, self.word_topics_, self.word_counts_, self.topic_counts_),
            *(self.doc_topic_prior_, self.topic_word_prior_),
        )

    # -- words -------------------------------------------------------------------------------

    def _top(self, n: int) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Return the numbers and counts of each topic's `n` most frequent words, (K, n)."""
        if n < 1:
            raise ValueError(f"n={n!r} words; expected at least 1.")
        n = min(n, self.n_features_in_)
        rows = self.topic_word_counts_.tocsr()
        top = np.empty((self.n_topics_, n), np.int64)
        counts = np.zeros(top.shape, rows.dtype)
        for k in range(self.n_topics_):
            some = slice(rows.indptr[k], rows.indptr[k + 1])
            words, c = rows.indices[some], rows.data[some]
            best = np.lexsort((words, -c))[:n]
            m = len(best)
            top[k, :m], counts[k, :m] = words[best], c[best]
            if m < n:  # words that it never had, by their numbers
                top[k, m:] = np.setdiff1d(np.arange(n + m), words[best])[: n - m]
        return top, counts

    def top_words(self, n: int = 10) -> pd.DataFrame:
        """Return the `n` most probable words of each topic, best first.

        Parameters
        ----------
        n
            Words a topic; fewer if the vocabulary has fewer.

        Returns
        -------
        words
            A row for each topic; columns are ranks from 0.
        """
        top, _ = self._top(n)
        return pd.DataFrame(self.words_[top], index=pd.RangeIndex(len(top), name="topic"))

    def describe(self, n: int = 5) -> pd.DataFrame:
        """Return a line about each topic: tokens, their share, prior, words it has, top words.

        Parameters
        ----------
        n
            Top words to name.
        """
        tokens = self.topic_counts_
        names = self.words_[self._top(n)[0]]
        there = self.word_topics_[self.word_counts_ >= 0.5]  # online, all words have a little
        facts = {
            "tokens": tokens,
            "share": tokens / tokens.sum(),
            "prior": self.doc_topic_prior_,
            "words": np.bincount(there, minlength=self.n_topics_),
            "top": [" ".join(map(str, row)) for row in names],
        }
        return pd.DataFrame(facts, index=pd.RangeIndex(len(tokens), name="topic"))

    def coherence(self, X: Any, n: int = 10) -> xr.Dataset:
        """Return how well each topic's top words go together in documents, in one pass.

        Parameters
        ----------
        X
            Documents: anything that `fit` takes.
        n
            Top words, at least 2.

        Returns
        -------
        found
            ``u_mass`` and ``npmi`` over ``topic``, higher is better; formulas in
            `daskps.models.coherence`.
        """
        if n < 2:
            raise ValueError(f"n={n!r} words have no pairs; expected at least 2.")
        top, _ = self._top(n)
        words, at = np.unique(top, return_inverse=True)
        pairs, n_docs = coherence.together(documents(X), words)
        at = at.reshape(top.shape)
        data = {"u_mass": coherence.u_mass(pairs, at), "npmi": coherence.npmi(pairs, n_docs, at)}
        coords = {"topic": np.arange(len(top))}
        return xr.Dataset({name: ("topic", x) for name, x in data.items()}, coords)

    # -- other forms -------------------------------------------------------------------------

    def merge_similar(self, threshold: float = 0.9) -> Self:
        """Return a model in which topics that are nearly the same are one.

        Parameters
        ----------
        threshold
            Topics are one whose vectors of counts have at least this cosine, directly or through
            others; above 0, at most 1. Their priors are added.
        """
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold={threshold!r}; expected a number above 0, at most 1.")
        check_is_fitted(self)
        return merged(self, groups_of(self.topic_word_counts_, threshold))

    def to_sklearn(self) -> decomposition.LatentDirichletAllocation:
        """Return a fitted `sklearn.decomposition.LatentDirichletAllocation` with these topics.

        It has one prior for all topics: their mean.
        """
        alpha, eta = float(self.doc_topic_prior_.mean()), self.topic_word_prior_
        other = decomposition.LatentDirichletAllocation(
            n_components=self.n_topics_, doc_topic_prior=alpha, topic_word_prior=eta
        )
        other.components_ = self.components_.to_numpy()
        whole = other.components_.sum(axis=1, keepdims=True)
        other.exp_dirichlet_component_ = np.exp(psi(other.components_) - psi(whole))
        other.doc_topic_prior_, other.topic_word_prior_ = alpha, eta
        other.n_features_in_, other.n_iter_ = self.n_features_in_, self.n_iter_
        other.n_batch_iter_ = self.n_batch_iter_
        other.random_state_ = np.random.RandomState(0)  # what it expects
        return other

    def to_pyldavis(self, X: Any = None) -> dict[str, Any]:
        """Return the keyword arguments of `pyLDAvis.prepare`.

        Parameters
        ----------
        X
            Documents to show, anything that `fit` takes; None for those of training.
        """
        if X is None:
            counts = self.doc_topic_counts_
            shares, lengths = self.doc_topic_.to_numpy(), np.asarray(counts.sum(axis=1)).ravel()
        else:
            dataset = documents(X)
            parts = [dataset.partition(i) for i in range(dataset.n_partitions)]
            score = self._score()
            shares = np.concatenate([score(part) for part in parts]).astype(np.float64)
            shares /= shares.sum(axis=1, keepdims=True)
            lengths = np.concatenate([part.to_scipy().sum(axis=1) for part in parts])
        return {
            "topic_term_dists": self.topic_word_.to_numpy(),
            "doc_topic_dists": shares,
            "doc_lengths": lengths,
            "vocab": [str(w) for w in self.words_],
            "term_frequency": np.asarray(self.topic_word_counts_.sum(axis=0)).ravel(),
        }

    # -- as arrays ---------------------------------------------------------------------------

    def _arrays(self) -> dict[str, tuple[NDArray[Any], tuple[str, ...]]]:
        """Return what is saved: by the attribute's name, without "_", its value and dimensions."""
        dims = {
            "word_ptr": "word_edge",
            "word_topics": "word_cell",
            "word_counts": "word_cell",
            "doc_ptr": "document_edge",
            "doc_topics": "document_cell",
            "doc_counts": "document_cell",
            "doc_topic_prior": "topic",
            "vocabulary": "word",
        }
        found = {name: getattr(self, f"{name}_") for name in dims}
        return {name: (x, (dims[name],)) for name, x in found.items() if x is not None}

    def _weights(self) -> NDArray[np.float64]:
        """Return what was learnt online about each word and topic, (n_words, n_topics)."""
        shape = self.n_features_in_, self.n_topics_
        return self.word_counts_.astype(np.float64).reshape(shape)
