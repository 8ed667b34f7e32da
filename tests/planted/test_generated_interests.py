"""From the log alone: the planted answer is in it, and the log behaves as it says."""

import numpy as np
import polars as pl
import pytest

from retrieval.data.generator.generate import generate
from retrieval.data.generator.settings import GeneratorSettings

SETTINGS = GeneratorSettings(users=3000, items=2000, days=40, seed=5, behaviour={"drift": 0.3, "noise": 0.1, "interests_spread": 1})


class Log:
    """The tables of one generated log; `events` carries each event's topic."""

    def __init__(self, folder):
        self.items = pl.read_parquet(folder / "items.parquet")
        self.users = pl.read_parquet(folder / "users.parquet")
        self.topics = pl.read_parquet(folder / "planted_items.parquet")
        self.interests = pl.read_parquet(folder / "planted_interests.parquet")
        self.events = pl.read_parquet(folder / "interactions/*.parquet").join(self.topics, on="item_id", maintain_order="left")


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generated") / "log"
    generate(SETTINGS, folder)
    return Log(folder)


def hits(log, interests):
    """For each event, whether it falls into an interest of its user that is held at its time."""
    rows = log.events.with_row_index("row").join(interests, on=["user_id", "topic"])
    current = rows.filter(pl.col("timestamp").is_between("from_time", "until_time", closed="left"))
    mask = np.zeros(log.events.height, bool)
    mask[current["row"].to_numpy()] = True
    return mask


def test_the_share_of_events_in_planted_interests_is_one_minus_the_noise(log):
    # A burst that is under way when an interest drifts goes on for a few events; noise hits an interest by chance.
    assert 0.88 < hits(log, log.interests).mean() < 0.93


def test_without_noise_every_event_is_in_an_interest(tmp_path):
    settings = GeneratorSettings(users=400, items=300, days=10, catalog={"categories": 6}, behaviour={"noise": 0.0, "drift": 0.0})
    generate(settings, tmp_path / "log")
    quiet = Log(tmp_path / "log")
    assert hits(quiet, quiet.interests).all()
    assert quiet.interests.group_by("user_id").len()["len"].unique().to_list() == [4]


def test_the_most_frequent_topics_of_a_user_are_the_planted_ones(log):
    counted = log.events.group_by("user_id", "topic").len()
    ranked = counted.with_columns(rank=pl.col("len").rank("ordinal", descending=True).over("user_id"))
    stable = log.interests.filter(pl.len().over("user_id", "interest") == 1)
    busy = log.events.group_by("user_id").len().filter(pl.col("len") >= 60)
    known = ranked.join(busy, on="user_id", how="semi").filter(pl.col("rank") <= 2)
    found = known.join(log.interests.select("user_id", "topic").unique(), on=["user_id", "topic"], how="semi")
    assert stable.height > 0
    assert found.height / known.height > 0.97


def test_shares_of_events_follow_the_planted_weights(log):
    steady = log.interests.filter((pl.len().over("user_id", "interest") == 1).all().over("user_id"))
    inside = log.events.join(steady, on=["user_id", "topic"])
    shares = inside.group_by("user_id", "topic").agg(pl.len() / 1.0, pl.first("weight"))
    shares = shares.with_columns(share=pl.col("len") / pl.col("len").sum().over("user_id"))
    busy = shares.filter(pl.col("len").sum().over("user_id") >= 60)
    assert busy.select(pl.corr("share", "weight")).item() > 0.6


def test_popularity_is_a_power_law_inside_topics(log):
    """The mean log share of a rank against the log rank is a line of the planted slope, over old items and no successions."""
    behaviour = {"succession": 0.0, "noise": 0.0, "drift": 0.0, "events_per_user": 200}
    settings = SETTINGS.model_copy(update={"catalog": SETTINGS.catalog.model_copy(update={"new_items": 0.0, "categories": 4})})
    settings = GeneratorSettings(**(settings.model_dump() | {"behaviour": behaviour}))
    slope = -_rank_slope(settings)
    assert abs(slope - settings.catalog.popularity) < 0.12


def _rank_slope(settings):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as name:
        generate(settings, Path(name) / "log")
        counts = Log(Path(name) / "log").events.group_by("topic", "item_id").len()
    ranks = counts.with_columns(rank=pl.col("len").rank("ordinal", descending=True).over("topic")).filter(pl.col("rank") <= 20)
    return np.polyfit(np.log(ranks["rank"].to_numpy()), np.log(ranks["len"].to_numpy()), 1)[0]


def test_interests_drift_when_the_table_says_so(log):
    rows = log.interests.sort("user_id", "interest", "from_time")
    moved = rows.filter(pl.len().over("user_id", "interest") == 2)
    slots = log.interests.select("user_id", "interest").unique().height
    assert abs(moved.height / 2 / slots - SETTINGS.behaviour.drift) < 0.03
    pairs = moved.group_by("user_id", "interest", maintain_order=True).agg("topic", "from_time", "until_time")
    assert (pairs["until_time"].list.get(0) == pairs["from_time"].list.get(1)).all()
    assert (pairs["topic"].list.get(0) != pairs["topic"].list.get(1)).all()
    # Events of the old topic before, of the new one after; the reverse is noise or the rest of a burst.
    before = moved.with_columns(until_time=pl.col("from_time"), from_time=pl.lit(0)).filter(pl.int_range(pl.len()) % 2 == 1)
    after = moved.filter(pl.int_range(pl.len()) % 2 == 1)
    assert hits(log, before).sum() < 0.1 * hits(log, after).sum()


def test_a_user_never_holds_one_topic_twice(log):
    assert not log.interests.select("user_id", "topic").is_duplicated().any()
    counts = log.interests.group_by("user_id").agg(pl.col("interest").n_unique())["interest"]
    assert set(counts) == {3, 4, 5}
    first = (
        log.interests.sort("from_time").group_by("user_id", "interest").agg(pl.first("weight")).group_by("user_id").agg(pl.sum("weight"))
    )
    assert np.allclose(first["weight"].to_numpy(), 1.0)


def test_interests_are_nearly_independent_of_one_another(log):
    """Pairs of topics are as frequent as the topics alone make them: a chi-square of about one a pair."""
    held, topics = log.interests.select("user_id", "topic").unique(), SETTINGS.catalog.topics
    users = held["user_id"].rank("dense").cast(pl.Int64).to_numpy() - 1
    table = np.zeros((users.max() + 1, topics))
    table[users, held["topic"].to_numpy()] = 1
    together, alone = table.T @ table, table.mean(axis=0)
    expected = len(table) * np.outer(alone, alone)
    upper = np.triu_indices(topics, 1)
    assert 0.8 < ((together - expected) ** 2 / expected)[upper].mean() < 1.25


def test_nothing_happens_before_it_is_published_or_before_its_user_joins(log):
    events = log.events.join(log.items, on="item_id").join(log.users, on="user_id")
    end = SETTINGS.start + SETTINGS.days * 86_400
    assert (events["timestamp"] >= events["created_at"]).all()
    assert (events["timestamp"] >= events["joined_at"]).all()
    assert events["timestamp"].is_between(SETTINGS.start, end, closed="left").all()
    assert (log.interests["from_time"] <= log.interests["until_time"]).all()


def test_new_items_and_new_users_arrive_all_along(log):
    for table, column, share in ((log.items, "created_at", SETTINGS.catalog.new_items), (log.users, "joined_at", SETTINGS.new_users)):
        day = (table[column] - SETTINGS.start) // 86_400
        assert abs((day >= 0).mean() - share) < 0.04
        assert day.filter(day >= 0).n_unique() > 0.8 * SETTINGS.days
    young = log.items.filter(pl.col("created_at") >= SETTINGS.start)
    assert log.events.join(young, on="item_id", how="semi").height > 0.05 * log.events.height


def test_events_come_in_bursts_of_one_interest(log):
    ordered = log.events.sort("user_id", "timestamp", maintain_order=True)
    same = (ordered["topic"] == ordered["topic"].shift(1)) & (ordered["user_id"] == ordered["user_id"].shift(1))
    assert same.mean() > 0.55


def test_the_next_item_of_a_topic_follows_more_often_than_chance(log):
    published = (
        log.topics.join(log.items, on="item_id").sort("topic", "created_at").with_columns(place=pl.int_range(pl.len()).over("topic"))
    )
    ordered = log.events.sort("user_id", "timestamp", maintain_order=True).join(
        published.select("item_id", "place"), on="item_id", maintain_order="left"
    )
    step = ordered.select(step=pl.col("place") - pl.col("place").shift(1), ok=(pl.col("topic") == pl.col("topic").shift(1)))
    steps = step.filter("ok")["step"].value_counts().sort("count", descending=True)
    forward, backward = (steps.filter(pl.col("step") == value)["count"].item() for value in (1, -1))
    assert forward > 2 * backward


def test_the_day_has_a_night(log):
    hour = (log.events["timestamp"] - SETTINGS.start) // 3600 % 24
    counts = hour.value_counts().sort(hour.name)["count"].to_numpy()
    assert counts[10:14].sum() > 3 * (counts[:2].sum() + counts[22:].sum())


def test_users_differ_in_activity_and_the_mean_is_what_was_asked_for(log):
    counts = log.events.group_by("user_id").len()["len"]
    assert abs(counts.mean() - SETTINGS.behaviour.events_per_user) < 4
    assert counts.quantile(0.9) > 3 * counts.quantile(0.2)
