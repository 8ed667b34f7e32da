"""Every metric against an independent implementation (scikit-learn, scipy, plain loops over users) on random cases.

The cases have users without a list, short lists, items outside the catalog, several targets, targets given twice, users without
targets, items of no and of several categories, and zero vectors.
"""

from math import log2

import numpy as np
import polars as pl
import pytest
from scipy.spatial.distance import jensenshannon, pdist
from scipy.stats import entropy
from sklearn.metrics import ndcg_score

from retrieval.evaluation.evaluator import Evaluation
from retrieval.evaluation.facts import ItemFacts
from retrieval.evaluation.metrics import Knowledge
from retrieval.evaluation.settings import EvaluationSettings
from retrieval.evaluation.truth import ground_truth

USERS, ITEMS, OUTSIDE, DEPTH = 40, 60, 5, 12
CUTOFFS = (12, 1, 5)
NAMES = np.array([f"category {number}" for number in range(7)])


class Case:
    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.lists = {u: rng.permutation(ITEMS + OUTSIDE)[: rng.integers(0, DEPTH + 1)].tolist() for u in range(USERS + 5)}
        self.truth = {u: rng.choice(ITEMS + OUTSIDE, rng.integers(1, 9)).tolist() for u in range(3, USERS)}
        self.truth[3], self.lists[3], self.lists[4] = self.lists[7][:1] or [0], self.lists[7], []
        self.categories = [rng.choice(NAMES, rng.integers(0, 4), replace=False).tolist() for _ in range(ITEMS)]
        self.events = rng.integers(0, 50, ITEMS)
        self.vectors = rng.standard_normal((ITEMS, 4)).astype(np.float32)
        self.vectors[::9] = 0.0
        self.histories = {u: rng.integers(0, ITEMS, rng.integers(0, 10)).tolist() for u in range(USERS)}

    def measured(self, **settings) -> tuple[dict[int, dict], Evaluation]:
        chosen = EvaluationSettings(cutoffs=CUTOFFS, primary="recall@5", resamples=10, **settings)
        items = pl.DataFrame({"item_id": range(ITEMS), "categories": self.categories, "events": self.events})
        facts = ItemFacts.of(items, chosen).with_vectors(self.vectors)
        rows = [(user, item, place) for user, ranked in self.lists.items() for place, item in enumerate(ranked, 1)]
        pairs = [(user, item) for user, targets in self.truth.items() for item in targets]
        frames: list[pl.DataFrame] = []
        evaluation = Evaluation(chosen, Knowledge.of(facts, self.past))
        self.summary = evaluation.run(
            pl.DataFrame(rows, ["user_id", "item_id", "rank"], orient="row"),
            ground_truth(pl.DataFrame(pairs, ["user_id", "item_id"], orient="row")),
            None,
            lambda values, _: frames.append(values),
        )
        return {row["user_id"]: row for row in pl.concat(frames).to_dicts()}, evaluation

    def past(self, users: pl.Series) -> tuple[np.ndarray, np.ndarray]:
        lengths = [len(self.histories[user]) for user in users]
        return np.concatenate([[0], np.cumsum(lengths)]), np.array([item for user in users for item in self.histories[user]], np.int32)

    def expected(self, user: int, n: int) -> dict[str, float | None]:
        top, targets = self.lists[user][:n], set(self.truth[user])
        known = [item for item in top if item < ITEMS]
        return accuracy(self.lists[user], targets, n) | {
            "alpha_ndcg": self.alpha_ndcg(user, n),
            **self.variety(known),
            **self.popularity(known),
            "distance": self.distance(known),
            **self.calibration(user, known),
        }

    def alpha_ndcg(self, user: int, n: int) -> float | None:
        targets = sorted(set(self.truth[user]))
        hits = [item if item in set(targets) else None for item in self.lists[user][:n]]
        best, left = [], list(targets)
        while left:
            best.append(max(left, key=lambda item: self.gain(item, best)))
            left.remove(best[-1])
        ideal = self.discounted(best[:n])
        return self.discounted(hits) / ideal if ideal else None

    def names(self, item: int) -> list[str]:
        return self.categories[item] if item < ITEMS else []

    def gain(self, item: int, before: list) -> float:
        return sum(0.5 ** sum(name in self.names(other) for other in before if other is not None) for name in self.names(item))

    def discounted(self, ranked: list) -> float:
        return sum(self.gain(item, ranked[:place]) / log2(place + 2) for place, item in enumerate(ranked) if item is not None)

    def variety(self, known: list[int]) -> dict[str, float | None]:
        first = [self.categories[item][0] for item in known if self.categories[item]]
        pairs = [a != b for place, a in enumerate(first) for b in first[:place]]
        mixed = entropy(np.unique(first, return_counts=True)[1], base=2) if first else None
        return {"diversity": np.mean(pairs) if pairs else None, "entropy": mixed}

    def popularity(self, known: list[int]) -> dict[str, float | None]:
        if not known:
            return dict.fromkeys(("novelty", "head_share", "torso_share", "tail_share"))
        order, total, seen = sorted(range(ITEMS), key=lambda item: (-self.events[item], item)), self.events.sum(), 0
        group = {}
        for item in order:
            group[item] = "head" if seen < 0.2 * total else "tail" if total - seen <= 0.2 * total else "torso"
            seen += self.events[item]
        shares = {f"{name}_share": np.mean([group[item] == name for item in known]) for name in ("head", "torso", "tail")}
        return {"novelty": np.mean([-log2(max(self.events[item], 1) / total) for item in known]), **shares}

    def distance(self, known: list[int]) -> float | None:
        if len(known) < 2:
            return None
        zero = ~self.vectors[known].any(axis=1)
        vectors = np.concatenate([self.vectors[known], np.diag(zero * 1.0)[:, zero]], axis=1)  # a direction of its own: cosine 0 with all
        return pdist(vectors.astype(np.float64), "cosine").mean()

    def shares(self, items: list[int]) -> np.ndarray | None:
        named = [self.categories[item] for item in items if self.categories[item]]
        return np.mean([np.isin(NAMES, names) / len(names) for names in named], axis=0) if named else None

    def calibration(self, user: int, known: list[int]) -> dict[str, float | None]:
        past, shown = self.shares(self.histories[user]), self.shares(known)
        if past is None or shown is None:
            return {"calibration_kl": None, "calibration_js": None}
        return {"calibration_kl": entropy(past, 0.99 * shown + 0.01 * past), "calibration_js": jensenshannon(past, shown, base=2) ** 2}


def accuracy(ranked: list[int], targets: set[int], n: int) -> dict[str, float]:
    hits = [rank for rank, item in enumerate(ranked[:n], 1) if item in targets]
    relevance = np.isin(np.arange(ITEMS + OUTSIDE), list(targets))[None]
    scores = np.full(ITEMS + OUTSIDE, -1.0)
    scores[ranked] = -np.arange(len(ranked), dtype=float) / 100
    missed = np.isin(np.arange(ITEMS + OUTSIDE), ranked[:n], invert=True)
    # What is not listed must not be found by chance at the end of a short list.
    found = np.where(missed, 0, relevance[0])[None]
    gain = ndcg_score(found, scores[None], k=n) if found.any() else 0.0
    best = sum(1 / log2(rank + 1) for rank in range(1, min(n, len(targets)) + 1))
    own = sum(1 / log2(rank + 1) for rank in range(1, len(hits) + 1))
    return {
        "recall": len(hits) / len(targets),
        "hr": float(bool(hits)),
        "precision": len(hits) / n,
        "ndcg": gain * own / best,
        "ndcg_comirec": gain,
        "mrr": 1 / hits[0] if hits else 0.0,
        "map": sum(place / rank for place, rank in enumerate(hits, 1)) / min(n, len(targets)),
    }


@pytest.mark.parametrize("seed", range(4))
def test_every_metric_equals_an_independent_one(seed):
    case = Case(seed)
    found, evaluation = case.measured()
    assert set(found) == set(case.truth)
    nothing = dict.fromkeys(evaluation.metrics.columns, 0)
    for user in case.truth:
        for n in CUTOFFS:
            expected = case.expected(user, n)
            assert {f"{name}@{n}" for name in expected} == {name for name in evaluation.metrics.columns if name.endswith(f"@{n}")}
            for name, value in expected.items():
                measured = found[user][f"{name}@{n}"]
                nothing[f"{name}@{n}"] += value is None
                assert measured == (None if value is None else pytest.approx(value, abs=1e-6)), (user, name, n)
    assert 0 < nothing["distance@5"] < len(case.truth)
    assert 0 < nothing["calibration_js@5"] < len(case.truth)


def test_coverage_and_gini_equal_a_count():
    case = Case(9)
    case.measured()
    shown = np.bincount([item for user in case.truth for item in case.lists[user][:5] if item < ITEMS], minlength=ITEMS)
    assert case.summary.overall["coverage@5"].mean == pytest.approx((shown > 0).mean())
    gini = np.abs(shown[:, None] - shown).sum() / (2 * ITEMS * shown.sum())
    assert case.summary.overall["gini@5"].mean == pytest.approx(gini)


@pytest.mark.parametrize("block_users", [1, 7])
def test_blocks_of_users_do_not_matter(block_users):
    whole, case = Case(2), Case(2)
    assert case.measured(block_users=block_users)[0] == whole.measured()[0]
    assert case.summary.counts == whole.summary.counts
    assert case.summary.overall == whole.summary.overall
    for name, value in whole.summary.metrics.items():
        other = case.summary.metrics[name]
        assert (value.mean, value.low, value.high) == pytest.approx((other.mean, other.low, other.high), abs=1e-5)
