"""Interest health against figures worked out by hand and a plain loop over users."""

import numpy as np
import polars as pl
import pytest

from retrieval.core.errors import DataContractError
from retrieval.evaluation import health as health_of
from retrieval.evaluation.health import InterestHealth, interest_health
from retrieval.evaluation.truth import ground_truth


def write(folder, vectors, valid, ids, *, entropy=0.5, overlap=0.25, name="00000"):
    users, interests = np.nonzero(valid)
    frame = {
        "user_id": ids.gather(users),
        "interest": pl.Series(interests, dtype=pl.Int32),
        "vector": pl.Series(vectors[valid].astype(np.float32), dtype=pl.Array(pl.Float32, vectors.shape[2])),
        "routing_entropy": pl.Series([entropy] * len(users), dtype=pl.Float32),
    }
    pl.DataFrame(frame).write_parquet(folder / f"interests-{name}.parquet")
    overlaps = pl.Series([overlap if count > 1 else None for count in valid.sum(axis=1)], dtype=pl.Float32)
    pl.DataFrame({"user_id": ids, "overlap": overlaps}).write_parquet(folder / f"users-{name}.parquet")
    lists = {"user_id": ids.gather(users), "interest": pl.Series(interests, dtype=pl.Int32)}
    pl.DataFrame(lists).write_parquet(folder / f"part-{name}.parquet")


def health(folder, item_vectors, truth, item_ids=None, users=None):
    files = [sorted(folder.glob(f"{kind}-*.parquet")) for kind in ("interests", "users", "part")]
    ids = pl.Series("item_id", range(len(item_vectors))) if item_ids is None else item_ids
    return interest_health(*files, item_vectors.astype(np.float32), ids, truth, users)


def one_user(folder, *vectors):
    stacked = np.array([vectors], np.float64)
    write(folder, stacked, np.ones(stacked.shape[:2], bool), pl.Series("user_id", [7]))


def truth_of(user_ids, item_ids):
    return ground_truth(pl.DataFrame({"user_id": user_ids, "item_id": item_ids}))


def test_orthogonal_interests_have_full_rank_and_no_cosine(tmp_path):
    one_user(tmp_path, [3.0, 0.0], [0.0, 0.5])
    found = health(tmp_path, np.eye(2), truth_of([7, 7], [0, 1]))
    assert found.pairwise_cosine == pytest.approx(0.0, abs=1e-7)
    assert found.effective_rank == pytest.approx(2.0, abs=1e-6)
    assert found.positive_shares == [0.5, 0.5]
    assert (found.dead_interests, found.contributing, found.near_pairs) == (0.0, 2.0, [])
    assert (found.overlap, found.routing_entropy) == (0.25, 0.5)
    assert found.sentences() == ["No interest has collapsed: users have an effective rank of 2.0 of 2.0 interests, and each wins targets."]


def test_equal_interests_are_named(tmp_path):
    one_user(tmp_path, [1.0, 0.0], [0.0, 1.0], [2.0, 0.0])
    found = health(tmp_path, np.eye(2), truth_of([7, 7], [0, 1]))
    # Interests 0 and 2 point the same way: cosines 1, 0, 0; singular values sqrt 2 and 1.
    assert found.pairwise_cosine == pytest.approx(1 / 3)
    shares = np.array([np.sqrt(2), 1]) / (np.sqrt(2) + 1)
    assert found.effective_rank == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), abs=1e-5)
    # The longer of the two equal directions wins by inner product, so the shorter is dead.
    assert found.positive_shares == [0.0, 0.5, 0.5]
    assert found.dead_interests == pytest.approx(1 / 3)
    assert found.sentences()[:2] == [
        "Interests 0 and 2 are nearly the same for most users (cosine 1.00).",
        "Interest 0 is dead: it wins 0.0% of its users' targets.",
    ]


def test_one_interest_has_no_pairs(tmp_path):
    one_user(tmp_path, [1.0, 2.0])
    found = health(tmp_path, np.eye(2), truth_of([7], [1]))
    assert (found.pairwise_cosine, found.overlap, found.near_pairs) == (None, None, [])
    assert found.effective_rank == pytest.approx(1.0)
    assert (found.mean_valid_interests, found.positive_shares, found.contributing) == (1.0, [1.0], 1.0)
    assert found.sentences() == ["No user has two interests, so there is nothing to compare."]


def test_lists_fed_by_one_of_two_interests_are_named(tmp_path):
    one_user(tmp_path, [1.0, 0.0], [0.0, 1.0])
    pl.DataFrame({"user_id": [7, 7, 8], "interest": [1, 1, -1]}).write_parquet(tmp_path / "part-00000.parquet")
    found = health(tmp_path, np.eye(2), truth_of([7, 7], [0, 1]))
    assert found.contributing == 1.0
    assert found.sentences() == ["Lists draw on 1.0 of 2.0 interests."]


def test_an_interest_of_few_users_is_not_dead(tmp_path):
    # One of 300 users has a second interest, and it wins all there is for it to win.
    vectors, valid = np.zeros((300, 3, 2)), np.zeros((300, 3), bool)
    vectors[:, 0], valid[:, 0] = [1.0, 0.0], True
    vectors[0, 1], valid[0, 1] = [2.0, 0.0], True
    vectors[1, 2], valid[1, 2] = [0.0, 1.0], True
    write(tmp_path, vectors, valid, pl.Series("user_id", range(300)))
    found = health(tmp_path, np.eye(2), truth_of([u for u in range(300) if u != 1], [0] * 299))
    assert found.positive_shares == [pytest.approx(298 / 299), 1.0, None]
    assert found.dead_interests == 0.0


def test_only_users_who_count_are_measured(tmp_path):
    vectors, valid = np.zeros((4, 2, 2)), np.array([[True, False], [True, True], [True, False], [True, True]])
    vectors[:, 0], vectors[:, 1] = [1.0, 0.0], [1.0, 0.0]
    write(tmp_path, vectors, valid, pl.Series("user_id", [1, 2, 3, 4]))
    found = health(tmp_path, np.eye(2), truth_of([1, 3, 2], [0, 0, 0]), users=pl.Series([3, 1]))
    assert (found.users, found.mean_valid_interests, found.pairwise_cosine) == (2, 1.0, None)
    assert (found.positive_shares, found.overlap, found.contributing) == ([1.0], None, 1.0)


def test_a_list_may_go_over_the_end_of_a_batch(tmp_path, monkeypatch):
    read = health_of.batches
    monkeypatch.setattr(health_of, "batches", lambda paths, columns: read(paths, columns, rows=2))
    rng = np.random.default_rng(2)
    valid = rng.random((50, 4)) < 0.7
    valid[:, 0] = True
    write(tmp_path, rng.normal(size=(50, 4, 3)), valid, pl.Series("user_id", range(50)))
    assert health(tmp_path, np.eye(3), truth_of([7], [0])).contributing == pytest.approx(valid.sum() / 50)


def naive(vectors, valid, item_vectors, targets):
    cosines, ranks, wins = [], [], np.zeros(valid.shape[1])
    for u in range(len(valid)):
        chosen = [vectors[u, k] / np.linalg.norm(vectors[u, k]) for k in range(valid.shape[1]) if valid[u, k]]
        pairs = [a @ b for i, a in enumerate(chosen) for b in chosen[:i]]
        cosines += [np.mean(pairs)] if pairs else []
        singular = np.linalg.svd(np.array(chosen), compute_uv=False)
        shares = singular / singular.sum()
        ranks.append(np.exp(-sum(s * np.log(s) for s in shares if s > 0)))
        for item in targets[u]:
            scores = [vectors[u, k] @ item_vectors[item] if valid[u, k] else -np.inf for k in range(valid.shape[1])]
            wins[int(np.argmax(scores))] += 1
    asked = valid.T @ [len(of_user) for of_user in targets]
    return np.mean(cosines), np.mean(ranks), wins / asked


@pytest.mark.parametrize("text", [False, True])
def test_equals_a_loop_over_users_in_several_files(tmp_path, text):
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(60, 4, 8)).astype(np.float32)
    valid = rng.random((60, 4)) < 0.6
    valid[:, 1] |= ~valid.any(axis=1)
    item_vectors = rng.normal(size=(30, 8)).astype(np.float32)
    targets = [sorted({int(item) for item in rng.integers(0, 30, 5)}) for _ in range(60)]
    name = (lambda number: f"ü{number}") if text else (lambda number: 2**63 - 1 - number)
    ids = pl.Series("user_id", [name(number) for number in range(60)])
    for part in range(3):
        block = slice(part * 20, part * 20 + 20)
        write(tmp_path, vectors[block], valid[block], ids[block], name=f"{part:05d}")
    item_ids = pl.Series("item_id", [name(number) for number in range(30)])
    pairs = [(ids[u], item_ids[item]) for u in range(60) for item in targets[u]] + [(name(99), item_ids[0]), (ids[0], name(77))]
    found = health(tmp_path, item_vectors, truth_of(*zip(*pairs, strict=True)), item_ids)
    cosine, rank, shares = naive(vectors, valid, item_vectors, targets)
    assert found.users == 60
    assert found.mean_valid_interests == pytest.approx(valid.sum() / 60)
    assert found.pairwise_cosine == pytest.approx(cosine, abs=1e-6)
    assert found.effective_rank == pytest.approx(rank, abs=1e-5)
    assert found.positive_shares == pytest.approx(shares.tolist())
    assert found.contributing == pytest.approx(valid.sum() / 60)


def test_survives_json(tmp_path):
    one_user(tmp_path, [1.0, 0.0], [0.9, 0.1])
    found = health(tmp_path, np.eye(2), truth_of([7], [0]))
    assert InterestHealth.model_validate_json(found.model_dump_json()) == found
    assert found.model_dump()["dead_interests"] == 0.5


def test_no_scorable_target_gives_no_shares(tmp_path):
    one_user(tmp_path, [1.0, 0.0], [0.0, 1.0])
    found = health(tmp_path, np.eye(2), truth_of([8], [0]))
    assert (found.positive_shares, found.dead_interests) == ([], None)


def test_unknown_entropy_is_none(tmp_path):
    write(tmp_path, np.ones((1, 1, 2)), np.ones((1, 1), bool), pl.Series("user_id", [1]), entropy=None)
    assert health(tmp_path, np.eye(2), truth_of([1], [0])).routing_entropy is None


def refused(folder, *arguments):
    with pytest.raises(DataContractError) as caught:
        health(folder, *arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_diagnostics_is_one_line(tmp_path):
    assert "no diagnostics" in refused(tmp_path, np.eye(2), truth_of([1], [0]))


def test_diagnostics_without_rows_is_one_line(tmp_path):
    write(tmp_path, np.ones((1, 1, 2)), np.zeros((1, 1), bool), pl.Series("user_id", [1]))
    assert "no interests" in refused(tmp_path, np.eye(2), truth_of([1], [0]))


def test_other_dimension_is_one_line(tmp_path):
    one_user(tmp_path, [1.0, 0.0, 0.0])
    assert "expected 2 numbers" in refused(tmp_path, np.eye(2), truth_of([7], [0]))


def test_nan_is_one_line(tmp_path):
    one_user(tmp_path, [np.nan, 0.0])
    assert "NaN" in refused(tmp_path, np.eye(2), truth_of([7], [0]))


@pytest.mark.parametrize(("user", "item"), [("7", 0), (7, "0")])
def test_ids_of_another_type_are_one_line(tmp_path, user, item):
    one_user(tmp_path, [1.0, 0.0])
    assert "expected String" in refused(tmp_path, np.eye(2), truth_of([user], [item]))


def test_an_interest_twice_is_one_line(tmp_path):
    one_user(tmp_path, [1.0, 0.0])
    path = tmp_path / "interests-00000.parquet"
    frame = pl.read_parquet(path)
    pl.concat([frame, frame]).write_parquet(path)
    assert "twice" in refused(tmp_path, np.eye(2), truth_of([7], [0]))
