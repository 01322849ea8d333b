"""Training kernels against plain float64 Python, and against themselves cut another way."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.metrics import log_loss as sklearn_log_loss

from daskps.kernels import linear
from daskps.kernels.linear import STATE_FIELDS, Rows, Rule

N_ROWS, N_KEYS = 60, 12
RULES = [
    pytest.param(Rule(False, 0.2, 1.0), id="adagrad"),
    pytest.param(Rule(False, 0.2, 1.0, kappa=0.3), id="adagrad by curvature"),
    pytest.param(Rule(True, 0.2, 1.0, alpha2=1e-2, alpha1=1e-3), id="ftrl"),
]
WIDTHS = [pytest.param(1, id="binary"), pytest.param(3, id="softmax")]


def make_rows(width: int, *, values: bool = True, weight: bool = True, seed: int = 0) -> Rows:
    rng = np.random.default_rng(seed)
    indptr = np.concatenate([[0], np.cumsum(rng.integers(0, 6, N_ROWS))])
    y = rng.integers(0, max(width, 2), N_ROWS)
    return Rows(
        indptr,
        rng.integers(0, N_KEYS, indptr[-1]).astype(np.uint32),
        rng.normal(size=indptr[-1]).astype(np.float32) if values else None,
        y.astype(np.float32 if width == 1 else np.int32),
        rng.uniform(0.5, 2, N_ROWS).astype(np.float32) if weight else None,
    )


def make_pulled(width: int, fields: int = 2, m: int = N_KEYS) -> np.ndarray:
    rng = np.random.default_rng(9)
    pulled = rng.normal(size=(m, fields, width)).astype(np.float32)
    pulled[:, 1] = abs(pulled[:, 1])
    return pulled


def run(
    rule: Rule, rows: Rows, width: int, cuts: list[int]
) -> tuple[float, np.ndarray, np.ndarray]:
    T, free = 40.0, rule.unpenalised()
    state = np.empty((N_KEYS, STATE_FIELDS, width), "f4")
    bias = np.empty((1, STATE_FIELDS, width), "f4")
    linear.begin(rule, make_pulled(width), T, state)
    linear.begin(free, make_pulled(width, m=1), T, bias)
    loss = sum(linear.train(rule, rows, a, b, state, bias, T) for a, b in itertools.pairwise(cuts))
    return loss, state, bias


class Reference:
    """One coordinate at a time, float64, as in the papers."""

    def __init__(self, rule: Rule, pulled: np.ndarray, T: float) -> None:
        self.rule, self.T = rule, T
        self.value, self.n = pulled[:, 0].astype(float), pulled[:, 1].astype(float)

    def weight(self) -> np.ndarray:
        if not self.rule.ftrl:
            return self.value
        D = (self.rule.beta + np.sqrt(self.n)) / self.rule.eta + self.rule.alpha2 * self.T
        return -np.sign(self.value) * np.maximum(abs(self.value) - self.rule.alpha1 * self.T, 0) / D

    def step(self, j: int, g: np.ndarray) -> None:
        eta, before = self.rule.eta, self.weight()[j]
        root = np.sqrt(self.n[j])
        self.n[j] += g**2
        if self.rule.ftrl:
            self.value[j] += g - (np.sqrt(self.n[j]) - root) / eta * before
        else:
            D = (self.rule.beta + np.sqrt(self.n[j])) / eta + self.rule.kappa * self.n[j]
            self.value[j] -= g / D


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("values", [True, False])
def test_pass_equals_the_papers_in_float64(rule: Rule, width: int, values: bool) -> None:
    rows = make_rows(width, values=values)
    keys = Reference(rule, make_pulled(width), 40.0)
    bias = Reference(rule.unpenalised(), make_pulled(width, m=1), 40.0)
    total = 0.0
    for i in range(N_ROWS):
        at = slice(rows.indptr[i], rows.indptr[i + 1])
        x = np.ones(rows.indptr[-1]) if rows.values is None else rows.values.astype(float)
        s = bias.weight()[0] + x[at] @ keys.weight()[rows.indices[at]]
        if width == 1:
            p, target = 1 / (1 + np.exp(-s)), rows.y[i]
            loss = -np.log(p if target else 1 - p)[0]
        else:
            p, target = np.exp(s) / np.exp(s).sum(), np.eye(width)[rows.y[i]]
            loss = -np.log(p[rows.y[i]])
        total += rows.weight[i] * loss
        g = rows.weight[i] * (p - target)
        for j, xj in zip(rows.indices[at], x[at], strict=True):
            keys.step(j, g * xj)
        bias.step(0, g)
    loss, state, b = run(rule, rows, width, [0, N_ROWS])
    assert loss == pytest.approx(total, rel=1e-5)
    np.testing.assert_allclose(state[:, 2], keys.weight(), rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(state[:, 1], keys.n, rtol=1e-5)
    np.testing.assert_allclose(b[:, 2], bias.weight(), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("width", WIDTHS)
def test_cutting_a_pass_into_slices_changes_no_bit(rule: Rule, width: int) -> None:
    rows = make_rows(width)
    _, state, bias = run(rule, rows, width, [0, N_ROWS])
    _, cut_state, cut_bias = run(rule, rows, width, [0, 7, 8, 41, N_ROWS])
    assert state.tobytes() == cut_state.tobytes()
    assert bias.tobytes() == cut_bias.tobytes()


@pytest.mark.parametrize("rule", RULES)
def test_no_bit_depends_on_where_arrays_lie_in_memory(rule: Rule) -> None:
    rng = np.random.default_rng(4)
    n, each = 400, 23  # rows of no round number of entries
    entries = rng.integers(0, N_KEYS, n * each).astype(np.uint32)
    y = rng.integers(0, 2, n).astype(np.float32)
    rows = Rows(np.arange(0, n * each + 1, each), entries, None, y, None)
    wide = np.zeros((2**20, STATE_FIELDS, 1), np.float32)  # far from where small arrays are
    found = []
    for state in (*(np.zeros((N_KEYS, STATE_FIELDS, 1), "f4") for _ in range(20)), wide[:N_KEYS]):
        bias = np.zeros((1, STATE_FIELDS, 1), "f4")
        linear.train(rule, rows, 0, n, state, bias, 40.0)
        found.append(state.tobytes() + bias.tobytes())
    assert len(set(found)) == 1


def test_read_only_and_writeable_arrays_share_one_compilation() -> None:
    rows = make_rows(1)
    run(RULES[0].values[0], rows, 1, [0, N_ROWS])
    before = len(linear._binary.train.signatures)
    rows.indptr.flags.writeable = rows.indices.flags.writeable = False
    run(RULES[0].values[0], rows, 1, [0, N_ROWS])
    assert len(linear._binary.train.signatures) == before


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("fields", [3, 5])
def test_push_of_an_untouched_key_changes_nothing(rule: Rule, fields: int) -> None:
    pulled, state = make_pulled(2, fields=3), np.empty((N_KEYS, STATE_FIELDS, 2), "f4")
    push = np.full((N_KEYS, fields, 2), np.nan, "f4")
    linear.begin(rule, pulled, 10.0, state)
    linear.end(rule, pulled, state, 10.0, push)
    assert not push[:, :3].any()
    if fields == 5:
        np.testing.assert_array_equal(push[:, 4], pulled[:, 2])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("fields", [3, 5])
def test_one_weight_a_key_is_handled_as_each_of_several(rule: Rule, fields: int) -> None:
    several = make_pulled(2, 3 if fields == 5 else 2)
    change = np.random.default_rng(3).uniform(1, 2, (N_KEYS, STATE_FIELDS, 2)).astype(np.float32)

    def there_and_back(pulled: np.ndarray, change: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        state = np.empty(change.shape, np.float32)
        linear.begin(rule, pulled, 60.0, state)
        push = np.empty((N_KEYS, fields, change.shape[2]), np.float32)
        linear.end(rule, pulled, state + change, 60.0, push)
        return state, push

    of_both = there_and_back(several, change)
    for c in range(2):
        of_one = there_and_back(several[:, :, c : c + 1].copy(), change[:, :, c : c + 1].copy())
        for one, both in zip(of_one, of_both, strict=True):
            np.testing.assert_array_equal(one[:, :, 0], both[:, :, c])


def test_bias_stays_when_no_intercept_is_wanted() -> None:
    rule, rows = RULES[2].values[0], make_rows(1)
    state, bias = np.zeros((N_KEYS, STATE_FIELDS, 1), "f4"), np.zeros((1, STATE_FIELDS, 1), "f4")
    linear.train(rule, rows, 0, N_ROWS, state, bias, 1.0, fit_intercept=False)
    assert not bias.any()
    assert state.any()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("values", [True, False])
def test_scores_and_log_loss_equal_scikit_learn(width: int, values: bool) -> None:
    rows, rng = make_rows(width, values=values), np.random.default_rng(2)
    w, b = rng.normal(size=(N_KEYS, width)).astype("f4"), rng.normal(size=width).astype("f4")
    scores = linear.decision(rows.indptr, rows.indices, rows.values, w, b)
    x = np.zeros((N_ROWS, N_KEYS))
    each = np.repeat(np.arange(N_ROWS), np.diff(rows.indptr))
    np.add.at(x, (each, rows.indices), 1 if rows.values is None else rows.values)
    np.testing.assert_allclose(scores, x @ w + b, rtol=1e-4, atol=1e-5)
    s = scores.astype(float)
    p = 1 / (1 + np.exp(-s[:, 0])) if width == 1 else np.exp(s) / np.exp(s).sum(1, keepdims=True)
    expected = sklearn_log_loss(rows.y, p, sample_weight=rows.weight, normalize=False)
    assert linear.total_loss(linear.LOG_LOSS, scores, rows.y, rows.weight) == pytest.approx(
        expected, rel=1e-5
    )


def test_log_loss_survives_huge_margins() -> None:
    scores = np.array([[1e4], [-1e4]], "f4")
    assert linear.total_loss(linear.LOG_LOSS, scores, np.array([1, 0], "f4")) == 0
    assert linear.total_loss(linear.LOG_LOSS, scores, np.array([0, 1], "f4")) == pytest.approx(2e4)


def test_warm_up_leaves_nothing_to_compile() -> None:
    linear.warm_up(1, has_values=False)
    before = len(linear._binary.train.signatures)
    run(RULES[0].values[0], make_rows(1, values=False, weight=False), 1, [0, N_ROWS])
    assert len(linear._binary.train.signatures) == before


def test_response_is_half_the_geometric_mean_of_a_key_s_and_its_row_s() -> None:
    rule = Rule(False, 0.1, 1.0)
    rows = Rows(
        np.array([0, 2]), np.array([0, 1], "u4"), np.array([1, 2], "f4"), np.ones(1, "f4"), None
    )
    state, bias = np.zeros((2, STATE_FIELDS, 1), "f4"), np.zeros((1, STATE_FIELDS, 1), "f4")
    linear.train(rule, rows, 0, 1, state, bias, 1.0)
    x = np.array([1.0, 2.0, 1.0])  # the last one is the intercept
    own = x**2 * 0.1 / (1 + 0.5 * x)  # g = -x / 2
    expected = 0.5 * 0.25 * np.sqrt(own * own.sum())
    np.testing.assert_allclose([*state[:, 3, 0], bias[0, 3, 0]], expected, rtol=1e-5)


@pytest.mark.parametrize("width", WIDTHS)
def test_rows_of_weight_zero_change_nothing(width: int) -> None:
    rows = make_rows(width)._replace(weight=np.zeros(N_ROWS, "f4"))
    state = np.zeros((N_KEYS, STATE_FIELDS, width), "f4")
    bias = np.zeros((1, STATE_FIELDS, width), "f4")
    assert linear.train(RULES[0].values[0], rows, 0, N_ROWS, state, bias, 1.0) == 0
    assert not state.any()
    assert not bias.any()


@pytest.mark.parametrize(
    ("partition_rows", "n_concurrent", "expected"),
    [(500_000, 2, 500_000), (125_000, 8, 31_250), (31_250, 32, 3907), (1000, 64, 512), (7, 9, 7)],
)
def test_slices_shrink_with_the_partitions_that_work_at_once(
    partition_rows: int, n_concurrent: int, expected: int
) -> None:
    assert linear.rows_per_clock(partition_rows, n_concurrent) == expected


def test_default_rates_follow_the_scale_of_the_values() -> None:
    eta, beta = linear.default_rates(100, 3900, 3900.0)
    assert eta == pytest.approx(0.6 / 39**0.5)
    assert beta == 1
    assert linear.default_rates(100, 3900, 3900.0 * 9) == pytest.approx((eta / 3, 3))
    assert linear.default_rates(100, 0, 0.0) == (0.1, 1.0)


def test_steps_follow_the_curvature_only_where_squared_slopes_are_it() -> None:
    log_loss = linear.LOG_LOSS
    kappa = linear.curvature_of(log_loss, ftrl=False)
    assert kappa > 0
    assert linear.curvature_of(log_loss, ftrl=True) == 0
    assert linear.curvature_of(linear.Loss("hinge"), ftrl=False) == 0
    # they begin shorter, and it is curvature that ends them
    plain, curved = (linear.default_rates(100, 3900, 3900.0, kappa=k) for k in (0.0, kappa))
    first, last = ([eta / (beta + n**0.5) for n in (0, 10**6)] for eta, beta in (plain, curved))
    assert last[0] < first[0]
    assert last[1] > first[1]


@pytest.mark.parametrize("values", [True, False])
def test_rows_without_unknown_keys_are_what_column_selection_gives(values: bool) -> None:
    rows = make_rows(1, values=values)
    known = np.arange(N_KEYS) % 3 > 0
    data = np.ones(len(rows.indices)) if rows.values is None else rows.values
    pattern = list(zip(entry_rows(rows), rows.indices, data, strict=True))
    number = np.cumsum(known) - 1
    expected = [(r, number[k], x) for r, k, x in pattern if known[k]]
    left = linear.without_unknown(rows, known)
    left_data = np.ones(len(left.indices)) if left.values is None else left.values
    assert list(zip(entry_rows(left), left.indices, left_data, strict=True)) == expected
    assert (left.values is None) == (rows.values is None)
    np.testing.assert_array_equal(left.y, rows.y)
    np.testing.assert_array_equal(left.weight, rows.weight)


def entry_rows(rows: Rows) -> np.ndarray:
    return np.repeat(np.arange(len(rows.indptr) - 1), np.diff(rows.indptr))
