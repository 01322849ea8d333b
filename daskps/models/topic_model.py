"""Latent Dirichlet allocation as the parameter server sees it: tables, state and a step.

The counts of words by topic are a table of cells, the tokens of topics a row. A partition keeps
the topics of its tokens, slice by slice of the vocabulary, and the topic counts of its documents.
In the first pass topics are drawn at random and counted; in every other each token is drawn anew.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskps.data import Partition
from daskps.errors import RunFailed
from daskps.kernels import lda, lda_gibbs
from daskps.models import topic_learning, topic_priors
from daskps.models.documents import check_values
from daskps.models.topic_course import Course
from daskps.run.events import Turn
from daskps.run.plan import ServerFunctions, StepServer
from daskps.server.keys import KeySet, localise, row_numbers, whole_table
from daskps.server.messages import Arrays
from daskps.server.tables import Placement, TableSpec
from daskps.server.updaters import Add

WORDS, TOPICS, DOCUMENTS = "word_topics", "topic_tokens", "document_counts"
DOC_PTR, DOC_CELLS = "doc_ptr", "doc_cells"


@dataclass(frozen=True, slots=True)
class TopicData:
    """The tokens of a partition whose words are in one slice of the vocabulary."""

    number: int
    """Of the slice."""
    tokens: lda.Tokens
    """Words are positions in the key set."""
    words: NDArray[np.uint64]
    """Word of each position."""
    rows: KeySet
    totals: KeySet
    lengths: NDArray[np.int64]
    """Tokens of each document, in all slices."""
    here: NDArray[np.int64]
    """Tokens of each document in this one."""
    histogram: topic_learning.Histogram | None
    """Where the counts of documents are learnt from, if priors are."""

    def __sizeof__(self) -> int:
        """Return the bytes held, so that Dask can account for them."""
        arrays = (*self.tokens, self.words, self.lengths, self.here)
        return sum(a.nbytes for a in arrays) + self.rows.__sizeof__()


@dataclass(frozen=True, slots=True)
class TopicModel:
    """Collapsed Gibbs sampling with counts of other partitions as of an earlier clock.

    Parameters
    ----------
    n_words
        Size of the vocabulary.
    alpha
        Prior of a document's topics, one for each topic.
    beta
        Prior of a topic's words.
    course
        Into how many slices the vocabulary is cut, of which a clock is about one, and partitions
        begin with different ones; and how often a clock draws its tokens.
    seed
        Of all draws.
    learn
        Which priors are learnt, ``alpha``, ``beta``; those above are the first then.
    every
        Clocks after which they are learnt anew.
    """

    n_words: int
    alpha: tuple[float, ...]
    beta: float
    course: Course
    seed: int
    learn: tuple[str, ...] = ()
    every: int = 1

    @property
    def n_topics(self) -> int:
        """Number of topics."""
        return len(self.alpha)

    @property
    def slices(self) -> int:
        """Clocks of a pass."""
        return self.course.slices

    @property
    def keeps(self) -> tuple[str, ...]:
        """Topic counts of documents, and topics of the tokens of each slice."""
        topics = (self._topics(s) for s in range(self.slices))
        return (DOC_PTR, DOC_CELLS, *topics, *(topic_learning.KEPT if self.learn else ()))

    def _topics(self, number: int) -> str:
        return f"topics_{number}"

    def tables(self) -> tuple[TableSpec, ...]:
        """Return the table of cells and that of totals."""
        K = self.n_topics
        words = TableSpec(WORDS, self.n_words, 1, Add("int32"), keys="cells", columns=K)
        tables = words, TableSpec(TOPICS, 1, K, Add("int64"))
        return (*tables, topic_learning.table(DOCUMENTS, K)) if self.learn else tables

    # -- data --------------------------------------------------------------------------------

    def prepare(self, partition: Partition, placements: Mapping[str, Placement]) -> TopicData:
        """Return all tokens of a partition as one slice."""
        return self._slice(Entries.of(partition), 0, 1, placements)

    def cut(
        self,
        partition: Partition,
        number: int,
        clocks_per_pass: int,
        placements: Mapping[str, Placement],
    ) -> Sequence[TopicData]:
        """Return the slices of a pass, beginning with another one in each partition."""
        assert clocks_per_pass == self.slices, (clocks_per_pass, self.slices)
        entries = Entries.of(partition)
        order = [(number + c) % self.slices for c in range(self.slices)]
        return [self._slice(entries, s, self.slices, placements) for s in order]

    def _slice(
        self, entries: Entries, number: int, of: int, placements: Mapping[str, Placement]
    ) -> TopicData:
        mine = entries.slice(number, of)
        rows, local = localise(placements[WORDS], mine.words)
        words = row_numbers(placements[WORDS], rows).astype(np.uint64)
        n_docs = len(entries.lengths)
        return TopicData(
            number,
            lda.tokens_of(mine.docs, local, mine.counts, len(words)),
            words,
            rows,
            whole_table(placements[TOPICS]),
            entries.lengths,
            np.bincount(mine.docs, mine.counts, n_docs).astype(np.int64),
            topic_learning.Histogram.of(placements[DOCUMENTS]) if self.learn else None,
        )

    # -- training ----------------------------------------------------------------------------

    def step(self, data: TopicData, server: StepServer) -> Mapping[str, float]:
        """Draw the slice's topics, keep them, and push by how much the counts changed."""
        K, name = self.n_topics, self._topics(data.number)
        state = server.state() or self._nothing(data)
        seeds = np.random.SeedSequence((self.seed, server.partition, server.clock))
        sweeps = self.course.sweeps(server.passes)
        some = [int(x) for x in seeds.generate_state(max(1, sweeps), np.uint64)]
        n = float(len(data.tokens.docs))
        fresh = server.clock < self.slices
        alpha, beta = self._priors(data, state, server)
        prior = lda.Prior(alpha, beta, self.n_words)
        documents = lda.Documents(state[DOC_PTR], state[DOC_CELLS])
        if fresh:
            room = lda.Room(data.lengths, K, documents)
            topics, loss = lda.scatter(data.tokens, K, room, some[0]), n * np.log(self.n_words)
            documents = room.packed()
        else:
            swept, loss = self._sweep(data, state[name], documents, server, prior, some)
            topics, documents = swept.topics, swept.documents
        mine = {DOC_PTR: documents.ptr, DOC_CELLS: documents.cells, name: topics}
        if data.histogram is not None:
            seen = state
            if self._learns(server.clock + 1):  # then the table must be up to date
                seen = topic_learning.seen_of(documents, data.lengths, self.n_topics)
            mine |= topic_learning.kept(alpha, beta, seen)
        kept = server.keep({**state, **mine})
        # what was kept first counts, so that counts and topics agree whatever is tried again
        if fresh or kept[name] is not topics:
            changed, _ = lda.changes(data.tokens, None if fresh else state[name], kept[name], K)
        else:
            changed = swept.moved
        cells = self._cells(data, changed, server.scratch)
        totals = lda.totals(changed, K)
        deltas: list[NDArray[Any]] = [changed.counts[:, None, None], totals[None, None, :]]
        keysets = [cells, data.totals]
        if data.histogram is not None:
            keyset, change = data.histogram.changes(state, kept)
            keysets, deltas = [*keysets, keyset], [*deltas, change]
        server.push(keysets, deltas, samples=n)
        documents = lda.Documents(kept[DOC_PTR], kept[DOC_CELLS])
        likelihood = lda.document_likelihood(documents, lda.cell_bits(data.lengths, K), alpha)
        sums = {"loss": float(loss), "samples": n, "document_likelihood": likelihood}
        return sums | {"fresh": n * fresh, "beta": n * beta}

    def _learns(self, clock: int) -> bool:
        return bool(self.learn) and clock >= 2 * self.every and clock % self.every == 0

    def _priors(
        self, data: TopicData, state: Arrays, server: StepServer
    ) -> tuple[NDArray[np.float64], float]:
        """Return the priors of this clock: a function of the tables when they are learnt."""
        if data.histogram is None:
            return np.array(self.alpha), self.beta
        alpha, beta = state["alpha"], float(state["beta"][0])
        if not self._learns(server.clock):
            return alpha, beta
        if "alpha" in self.learn:
            alpha = data.histogram.alpha(server.rows(data.histogram.rows), alpha)
        if "beta" in self.learn:
            pulled, _ = server.pull([data.totals])
            beta = topic_priors.beta_of(
                server.histogram(WORDS), pulled[0][0, 0], self.n_words, beta
            )
        return alpha, beta

    def _sweep(
        self,
        data: TopicData,
        topics: lda.Topics,
        documents: lda.Documents,
        server: StepServer,
        prior: lda.Prior,
        seeds: Sequence[int],
    ) -> tuple[lda_gibbs.Swept, float]:
        """Draw topics, and return also what tokens lost by all others' in the last sweep."""
        whole = data.rows.at is None  # all words: then the totals are known by the rows
        n_k = None if whole else server.pull([data.totals])[0][0][0, 0].copy()
        found = server.rows(data.rows)
        ptr = np.concatenate([[0], np.cumsum(found["lengths"], dtype=np.int64)])
        columns = server.scratch("columns", found["columns"].shape, np.uint32)
        columns[:] = found["columns"]
        rows = lda.Rows(ptr, columns, found["counts"])
        if n_k is None:
            n_k = lda.totals(rows, self.n_topics)
        swept = lda_gibbs.sweeps(
            *(data.tokens, topics, documents, data.lengths, rows, n_k, prior, seeds, server.scratch)
        )
        some = data.here > 0
        whole = np.log(data.lengths[some] - 1 + prior.alpha.sum()) @ data.here[some]
        return swept, float(whole - swept.likelihood)

    def _cells(self, data: TopicData, changed: lda.Rows, scratch: lda.Scratch) -> KeySet:
        keys = lda.keys(data.words, changed, self.n_topics, scratch)
        return KeySet(WORDS, changed.ptr[data.rows.bounds], keys, hashed=True)

    def _nothing(self, data: TopicData) -> Arrays:
        empty = np.empty(0, lda.topic_dtype(self.n_topics))
        documents = lda.Room(data.lengths, self.n_topics).packed()
        topics = {self._topics(s): empty for s in range(self.slices)}
        first = {DOC_PTR: documents.ptr, DOC_CELLS: documents.cells, **topics}
        if self.learn:
            first |= topic_learning.kept(np.array(self.alpha), self.beta, topic_learning.NOTHING)
        return first

    def evaluate(self, data: TopicData, server: StepServer) -> Mapping[str, float]:
        """Not to be called: held-out documents are evaluated by `perplexity`."""
        raise AssertionError("topic models have no evaluation on the server")


@dataclass(frozen=True, slots=True)
class ConductedTopicModel(TopicModel):
    """The same in BSP, where counts are looked at between clocks."""

    @property
    def results(self) -> tuple[str, ...]:
        """All tables."""
        return tuple(t.name for t in self.tables())

    @property
    def looks_at(self) -> tuple[str, ...]:
        """The one server function, which changes nothing."""
        return ("topic_counts",)

    def take_turn(
        self, server: ServerFunctions, sums: Mapping[str, float], before: Mapping[str, Any] | None
    ) -> Turn:
        """Check that all counts agree, and return log p(w, z).

        Raises
        ------
        RunFailed
            If they do not: this must not happen.
        """
        tokens = sums["fresh"] + (0 if before is None else before["tokens"])
        beta = sums["beta"] / sums["samples"] if self.learn and sums["samples"] else self.beta
        found = server("topic_counts", words=WORDS, topics=TOPICS, beta=beta, n=self.n_words)
        check_counts(found, tokens)
        joint = float(found[6]) + sums["document_likelihood"]
        return Turn({"tokens": tokens}, {"log_likelihood": joint, "cells": float(found[5])})


def check_counts(found: NDArray[np.float64], tokens: float) -> None:
    """Check the sums of `daskps.server.topics.measure`."""
    by_cells, by_totals, print_cells, print_totals, negative = found[:5]
    if (by_cells, by_totals, print_cells, negative) != (tokens, tokens, print_totals, 0):
        raise RunFailed(
            f"topic counts do not agree: {by_cells:.0f} by words and {by_totals:.0f} by topics "
            f"(fingerprints {print_cells:.0f} and {print_totals:.0f}, {negative:.0f} below "
            f"nothing), expected {tokens:.0f} tokens. This is a fault of daskps; please report it."
        )


@dataclass(frozen=True, slots=True)
class Entries:
    """Counted words of a partition's documents."""

    docs: NDArray[np.uint32]
    words: NDArray[Any]
    counts: NDArray[np.int32]
    lengths: NDArray[np.int64]
    """Tokens of each document."""

    @classmethod
    def of(cls, partition: Partition) -> Entries:
        """Return the entries of a partition, without zeros.

        Raises
        ------
        DataError
            If a value is no count.
        """
        n = partition.n_rows
        docs = np.repeat(np.arange(n, dtype=np.uint32), np.diff(partition.indptr))
        words, values = partition.indices, partition.values
        if values is None:
            counts = np.ones(len(docs), np.int32)
        else:
            check_values(partition)
            counts = values.astype(np.int32)
            if not counts.all():
                some = counts > 0
                docs, words, counts = docs[some], words[some], counts[some]
        lengths = np.bincount(docs, counts, n).astype(np.int64)
        return cls(docs, words, counts, lengths)

    def slice(self, number: int, of: int) -> Entries:
        """Return the entries of the words of one slice of the vocabulary."""
        if of == 1:
            return self
        mine = self.words % self.words.dtype.type(of) == number
        some = {n: getattr(self, n)[mine] for n in ("docs", "words", "counts")}
        return dataclasses.replace(self, **some)
