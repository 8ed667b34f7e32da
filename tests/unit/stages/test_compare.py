"""Runs side by side: what is named, refused, and said of known differences."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from plotly.offline import get_plotlyjs

from retrieval.core.artifacts import Workspace
from retrieval.core.errors import IntegrityError, UsageError
from retrieval.report.compare_page import compare_page
from retrieval.report.compared import CompareContent
from retrieval.report.markdown import render_markdown
from retrieval.stages.audience import Scope
from retrieval.stages.compare import compare_runs, comparison_text, write_comparison
from retrieval.stages.compared_runs import flat_settings, open_runs
from retrieval.stages.evaluate_files import keep_measurements
from retrieval.stages.recipe import parse_recipe
from retrieval.stages.run import FinishedRun, open_run, run_all

EVIL = "<script>alert(1)</script>|\u202e"


def run_of(folder: Path, name: str = "ring", steps: int = 10, **tables: Any) -> FinishedRun:
    """Thirty users walk around a ring of 40 items, some with evil titles; markov knows what follows, popularity nothing."""
    if not (folder / f"log-{steps}.parquet").exists():
        walks = pl.DataFrame({"user_id": range(30)}).join(pl.DataFrame({"time": range(steps)}), how="cross")
        walks = walks.with_columns(item_id=(3 * pl.col("user_id") + pl.col("time")) % 40)
        walks.write_parquet(folder / f"log-{steps}.parquet")
        titles = [EVIL if item % 4 == 0 else f"title {item}" for item in range(40)]
        categories = [[f"c{item // 8}"] for item in range(40)]
        pl.DataFrame({"item_id": range(40), "title": titles, "genres": categories}).write_parquet(folder / "items.parquet")
    interactions = {
        "path": str(folder / f"log-{steps}.parquet"),
        "user": "user_id",
        "item": "item_id",
        "time": "time",
        "time_unit": "order",
    }
    values = {
        "name": name,
        "data": {
            "name": "ring",
            "interactions": interactions,
            "items": {"path": str(folder / "items.parquet"), "title": "title", "categories": "genres"},
        },
        "split": {"protocol": "leave-last-out"},
        "model": {"name": "markov"},
        "recall": {"n": 10, "pool": 30},
        "evaluate": {"cutoffs": [5, 10], "primary": "recall@5", "baselines": ["popular"], "resamples": 200, "frontier_lambdas": []},
        "report": {"map_items": 0},
        "machine": {"threads": 1},
        **tables,
    }
    return run_all(open_run(parse_recipe(values, "ring.toml"), folder / "workspace"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compare")


@pytest.fixture(scope="module")
def finished(folder: Path) -> FinishedRun:
    return run_of(folder)


@pytest.fixture(scope="module")
def content(folder: Path, finished: FinishedRun) -> CompareContent:
    return compare_runs([f"{finished.report.path}:popular", f"chain={finished.report.path}"], folder / "workspace", 4, 3)


def test_the_better_run_is_better_in_every_way(content: CompareContent) -> None:
    assert [system.name for system in content.systems] == ["popular", "chain"]
    (pair,) = content.pairs
    assert pair.comparison.higher("recall@5") is True
    values = {system.name: system.metrics["recall@5"].mean for system in content.systems}
    assert pair.comparison.differences["recall@5"].mean == pytest.approx(values["chain"] - values["popular"])
    assert (pair.gained + pair.lost + pair.same, content.users) == (30, 30)
    assert pair.gained > 20 > pair.lost
    assert content.to_json()["schema_version"] == 1
    assert CompareContent.model_validate(json.loads(json.dumps(content.to_json()))) == content


def test_those_who_moved_most_are_the_extremes_of_the_values_of_users(finished: FinishedRun, content: CompareContent) -> None:
    read = [pl.read_parquet(one.file("per_user.parquet")).sort("user_id") for one in (finished.baselines["popular"], finished.measurements)]
    changes = dict(zip(read[0]["user_id"], (read[1]["recall@5"] - read[0]["recall@5"]).to_list(), strict=True))
    (pair,) = content.pairs
    assert [user.change for user in pair.most_gained] == sorted(changes.values(), reverse=True)[:4]
    assert all(changes[user.user] == user.change < 0 for user in pair.most_lost)
    assert all(user.first + user.change == user.other for user in pair.most_gained)


def test_lists_stand_side_by_side_with_their_hits_and_places(finished: FinishedRun, content: CompareContent) -> None:
    lists = {
        name: pl.concat(pl.read_parquet(path) for path in pipeline.candidates(Scope()).files("part-"))
        for name, pipeline in (("popular", finished.pipeline.baselines()["popular"]), ("chain", finished.pipeline))
    }
    truth = pl.read_parquet(finished.pipeline.dataset_artifact.file("truth.parquet")).filter(pl.col("split") == "test")
    targets = set(truth.select("user_id", "item_id").rows())
    (pair,) = content.pairs
    assert {shown.moved for shown in pair.lists} == {*pair.most_gained, *pair.most_lost}
    for shown in pair.lists:
        ranks = {
            name: dict(one.filter(pl.col("user_id") == shown.moved.user).select("item_id", "rank").rows()) for name, one in lists.items()
        }
        for items, own, other in ((shown.first, "popular", "chain"), (shown.other, "chain", "popular")):
            assert [item.rank for item in items][:3] == [1, 2, 3]
            assert all(item.rank <= 3 or item.hit for item in items)
            assert all(ranks[own][item.item_id] == item.rank for item in items)
            within = {item_id: rank for item_id, rank in ranks[other].items() if rank <= 5}
            assert all(within.get(item.item_id) == item.elsewhere for item in items)
            assert all(item.hit == ((shown.moved.user, item.item_id) in targets) for item in items)
    shared = [
        len({row[0] for row in one} & {row[0] for row in two}) / 5
        for user in range(30)
        for one, two in [
            [each.filter((pl.col("user_id") == user) & (pl.col("rank") <= 5)).select("item_id").rows() for each in lists.values()]
        ]
    ]
    assert pair.common == pytest.approx(sum(shared) / 30)


def test_settings_that_differ_are_named_as_the_recipe_names_them(folder: Path, finished: FinishedRun) -> None:
    other = run_of(folder, "wider", recall={"n": 10, "pool": 20, "lambda": 0.5})
    found = compare_runs([str(finished.report.path), str(other.report.path)], folder / "workspace", 0, 1)
    assert {one.name: one.values for one in found.settings} == {"recall.lambda": ("0.0", "0.5"), "recall.pool": ("30", "20")}
    assert found.pairs[0].lists == ()


def test_slices_add_up_and_a_winner_beats_all(content: CompareContent) -> None:
    assert content.slices
    by_dimension = {row.dimension for row in content.slices}
    assert "target popularity" in by_dimension
    for row in content.slices:
        assert set(row.means) == {"popular", "chain"}
        assert row.winner in (None, "popular", "chain")
        if row.winner:
            assert row.means[row.winner].mean == max(mean.mean for mean in row.means.values())
            assert row.differences["chain"].adjusted < 0.05
    assert {row.winner for row in content.slices} >= {"chain"}


def test_more_runs_are_corrected_together(folder: Path, finished: FinishedRun, content: CompareContent) -> None:
    other = run_of(folder, "wider", recall={"n": 10, "pool": 20, "lambda": 0.5})
    three = compare_runs(
        [f"{finished.report.path}:popular", f"chain={finished.report.path}", str(other.report.path)], folder / "workspace", 1, 1
    )
    assert [pair.name for pair in three.pairs] == ["chain", "wider"]
    alone, together = (each.pairs[0].comparison.differences for each in (content, three))
    assert {name: found.mean for name, found in alone.items()} == {name: found.mean for name, found in together.items()}
    assert all(together[name].adjusted >= found.adjusted for name, found in alone.items() if found.adjusted is not None)
    assert together["recall@5"].adjusted > alone["recall@5"].adjusted
    assert len(compare_page(three).summary) == 6


def test_the_first_run_decides_how_and_by_what(folder: Path, finished: FinishedRun) -> None:
    evaluate = {"cutoffs": [5, 10], "primary": "ndcg@10", "confidence": 0.5, "baselines": [], "resamples": 200, "frontier_lambdas": []}
    other = run_of(folder, "other", recall={"n": 10, "pool": 20, "lambda": 0.5}, evaluate=evaluate)
    found = compare_runs([str(finished.report.path), str(other.report.path)], folder / "workspace", 1, 1)
    assert (found.primary, found.confidence, found.pairs[0].comparison.confidence) == ("recall@5", 0.95, 0.95)
    back = compare_runs([str(other.report.path), str(finished.report.path)], folder / "workspace", 1, 1)
    assert (back.primary, back.pairs[0].comparison.confidence) == ("ndcg@10", 0.5)
    shorter = run_of(folder, "shorter", evaluate={**evaluate, "cutoffs": [10]})
    with pytest.raises(UsageError, match="'shorter' was not measured at recall@5"):
        compare_runs([str(finished.report.path), str(shorter.report.path)], folder / "workspace")


def test_handles_are_paths_ids_recipes_and_names(folder: Path, finished: FinishedRun) -> None:
    report, measurements = finished.report, finished.measurements
    baseline = f"{report.id[:6]}:popular"
    for handle in (
        str(measurements.path),
        measurements.id[:8],
        f"measurements/{measurements.id}",
        str(report.path / "index.html"),
        report.id,
    ):
        runs = open_runs([f"mine={handle}", baseline], folder / "workspace")
        assert [run.name for run in runs] == ["mine", "popular"]
        assert runs[0].artifact.id == measurements.id
    assert open_runs([measurements.id, baseline], folder / "workspace")[0].name == f"markov {measurements.id[:6]}"


@pytest.mark.parametrize(
    ("handles", "says"),
    [
        (["{report}"], "nothing to compare with"),
        (["{report}", "{report}/index.html"], "are the same measurements"),
        (["{report}", "{report}:k1"], "no baseline 'k1'"),
        (["{report}", "{measurements}:popular"], "measurements have no baselines"),
        (["{report}", "zzz"], "no run matches 'zzz'"),
        (["{report}", ""], "match"),
        (["{report}", "{dataset}"], "an artifact of kind dataset"),
        (["a={report}", "a={report}:popular"], "two runs are called 'a'"),
        (["{report}", "{longer}"], "measured on different users or targets"),
        (["{report}", "missing.toml"], "missing.toml"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_line(folder: Path, finished: FinishedRun, handles: list[str], says: str) -> None:
    names = {"report": finished.report.path, "measurements": finished.measurements.path, "dataset": finished.pipeline.dataset_artifact.path}
    if "{longer}" in handles:
        names["longer"] = run_of(folder, "longer", steps=12).report.path
    with pytest.raises(UsageError, match=says) as raised:
        open_runs([handle.format(**names) for handle in handles], folder / "workspace")
    assert "\n" not in str(raised.value)


def test_what_measurements_were_made_of_has_to_be_there(tmp_path: Path) -> None:
    found = run_of(tmp_path)
    candidates = found.pipeline.candidates(Scope())
    candidates.path.rename(tmp_path / "elsewhere")
    with pytest.raises(IntegrityError, match="is gone"):
        open_runs([str(found.report.path), f"{found.report.path}:popular"], tmp_path / "workspace")


def test_text_and_page_say_the_same_and_titles_stay_titles(content: CompareContent, tmp_path: Path) -> None:
    write_comparison(content, tmp_path / "new/compare.html")
    page, text = (tmp_path / "new/compare.html").read_text(encoding="utf-8"), comparison_text(content)
    for sentence in compare_page(content).summary:
        assert sentence in text
    assert "chain is better than popular at recall@5" in text
    assert "model.name" in text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "\u202e" not in page + text
    assert max(map(len, text.splitlines())) < 400
    assert get_plotlyjs() in page
    assert "<" not in render_markdown(compare_page(content)).replace("p < ", "")


def test_nested_settings_have_dotted_names() -> None:
    assert dict(flat_settings({"a": {"b": 1, "lambda_": {"c": 2}}, "d": {}})) == {"a.b": 1, "a.lambda.c": 2, "d": {}}


def test_a_report_corrects_for_its_number_of_baselines(folder: Path, finished: FinishedRun) -> None:
    values = {"cutoffs": [5, 10], "primary": "recall@5", "baselines": ["popular", "item-knn"], "resamples": 200, "frontier_lambdas": []}
    several = run_of(folder, "several", evaluate=values)
    one, two = (json.loads(each.report.file("report.json").read_text())["results"]["comparisons"] for each in (finished, several))
    assert one["popular"]["differences"]["recall@5"]["adjusted"] == one["popular"]["differences"]["recall@5"]["p"]
    found = sorted((each["differences"]["recall@5"] for each in two.values()), key=lambda difference: difference["p"])
    assert len(found) == 2
    assert found[0]["adjusted"] == pytest.approx(min(1.0, 2 * found[0]["p"]))
    assert found[1]["adjusted"] == pytest.approx(max(found[0]["adjusted"], found[1]["p"]))


def test_lists_of_anybody_are_kept_and_compared(folder: Path, finished: FinishedRun, tmp_path: Path) -> None:
    dataset, lists = finished.pipeline.dataset_artifact, finished.pipeline.candidates(Scope())
    truth, settings = dataset.file("truth.parquet"), ["cutoffs=[5,10]", "primary=recall@5", "resamples=200"]
    theirs = tmp_path / "theirs.parquet"
    pl.concat(pl.read_parquet(part) for part in lists.files("part-")).filter(pl.col("user_id") % 2 == 0).write_parquet(theirs)
    workspace = Workspace(folder / "workspace")
    kept = keep_measurements(theirs, truth, None, None, "test", settings, workspace)
    assert keep_measurements(theirs, truth, None, None, "test", settings, workspace).id == kept.id
    found = compare_runs([f"mine={finished.report.path}", f"theirs={kept.path}"], folder / "workspace", 2, 2)
    (pair,) = found.pairs
    # Half of the users have no list.
    assert pair.comparison.differences["recall@5"].mean < 0.0
    assert (pair.common, pair.lists) == (None, ())
    assert "theirs is worse than mine" in " ".join(compare_page(found).summary)
    other = keep_measurements(theirs, truth, None, None, "valid", settings, workspace)
    with pytest.raises(UsageError, match="measured on different users or targets"):
        open_runs([str(finished.report.path), other.id], folder / "workspace")
