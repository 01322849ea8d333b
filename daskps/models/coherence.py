"""How well the top words of topics go together: u_mass and NPMI, by documents, in one pass."""

from __future__ import annotations

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from daskps.data import Dataset

F64 = NDArray[np.float64]


def together(dataset: Dataset, words: NDArray[np.int64]) -> tuple[F64, int]:
    """Return in how many documents each pair of words occurs, (m, m), and that have any word.

    Parameters
    ----------
    dataset
        Documents; each partition is read once.
    words
        Distinct, ascending.
    """
    pairs, n = np.zeros((len(words), len(words))), 0
    for i in range(dataset.n_partitions):
        part = dataset.partition(i)
        present = np.ones(part.nnz, bool) if part.values is None else part.values > 0
        row = np.repeat(np.arange(part.n_rows), np.diff(part.indptr))
        n += len(np.unique(row[present]))
        at = np.searchsorted(words, part.indices)
        known = present & (at < len(words))
        known[known] = words[at[known]] == part.indices[known]
        cells = row[known], at[known]
        shape = part.n_rows, len(words)
        found = scipy.sparse.csr_array((np.ones(len(cells[0])), cells), shape)
        pairs += (found.T @ found).toarray()
    return pairs, n


def u_mass(pairs: F64, top: NDArray[np.intp]) -> F64:
    """Return the mean of log (D(v, w) + 1) / D(w) over pairs of each topic, w the better ranked.

    Parameters
    ----------
    pairs
        Documents that have both words.
    top
        Positions of each topic's words, best first, shape (K, n).

    References
    ----------
    Mimno et al. (2011), "Optimizing Semantic Coherence in Topic Models", equation 1 (there a sum).
    """
    better, worse = np.tril_indices(top.shape[1], -1)[::-1]
    first, second = top[:, better], top[:, worse]
    # a word that no document has goes with none
    own = np.maximum(pairs[first, first], 1)
    scores: F64 = np.log((pairs[first, second] + 1) / own).mean(axis=1)
    return scores


def npmi(pairs: F64, n: int, top: NDArray[np.intp]) -> F64:
    """Return the mean normalised pointwise mutual information over pairs of each topic's words.

    That of two words is ``log(P(v, w) / (P(v) P(w))) / -log P(v, w)``, in [-1, 1], -1 if they never
    occur in one document; P are shares of the `n` documents that have any word.

    References
    ----------
    Bouma (2009), "Normalized (Pointwise) Mutual Information in Collocation Extraction". Lau et al.
    (2014), "Machine Reading Tea Leaves".
    """
    better, worse = np.tril_indices(top.shape[1], -1)[::-1]
    first, second = top[:, better], top[:, worse]
    both, alone = pairs[first, second] / n, np.diag(pairs) / n
    scores = np.full(both.shape, -1.0)
    some, sure = (both > 0) & (both < 1), both == 1
    mutual = np.log(both, where=some, out=np.zeros_like(both))
    apart = np.log(alone, where=alone > 0, out=np.zeros_like(alone))
    gain = mutual - apart[first] - apart[second]
    np.divide(gain, -mutual, where=some, out=scores)
    scores[sure] = 1.0  # both words in every document
    mean: F64 = scores.mean(axis=1)
    return mean
