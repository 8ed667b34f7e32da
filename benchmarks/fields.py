"""What fields, gates and POSO bring, whom they help, and what they cost.

    OMP_NUM_THREADS=1 python benchmarks/fields.py cost
    OMP_NUM_THREADS=1 python benchmarks/fields.py hashed
    RETRIEVAL_DATA=folder python benchmarks/fields.py run ml-1m --seeds 1 2 3 [--variants "no fields" fields senet ...]
    RETRIEVAL_DATA=folder python benchmarks/fields.py run globo-news --seeds 1 2 3
    python benchmarks/fields.py table ml-1m globo-news
    RETRIEVAL_DATA=folder python benchmarks/fields.py published --seeds 1 2 3
    RETRIEVAL_DATA=folder python benchmarks/fields.py unseen --seeds 1 2 3

`cost`: a training step with ten fields (five of items, one of them a list and one a number, three of users, two of events)
against the same step without, CPU time, one thread, medians of steps taken in turns.

`hashed`: a step with ten fields, one of them hashed into many rows, whose table is read row by row (`auto`) or trained densely.

`run`: trains and measures variants of `pipelines/ml-1m/comirec-sa-fields.toml` and of
`pipelines/globo-news/interest-transformer-fields.toml`, a variant and a seed at a time. What is done already is skipped: each
leaves WORKSPACE/fields/SET/VARIANT/SEED.parquet with the recall of every test user.

`table`: of what has been run, the mean over seeds and users of recall@20 and recall@50, and the paired difference of
recall@50 from "no fields" with a 95 % interval, for all test users and for the coldest tenth: those with the fewest events at the
cut, of those who have any.

`published`: recall@50 of the articles that were published after the training cut, among all articles and among such alone, for
the variants "fields" and "no fields", against lists for everybody: what is popular in training (none of them), their
categories by popularity in training, first published first, and chance.

`unseen`: what `model.prior.unseen` does to lists of all articles: recall@50 of all targets and of articles published after the
training cut, for 5,000 users of the day before (a model of the same recipe, trained up to that day), by which a place can be chosen,
and then for 5,000 test users.
"""

import argparse
import logging
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import torch

from retrieval.core.logging import configure_logging
from retrieval.data.dataset import Dataset
from retrieval.data.fields.coding import FieldColumn, code_column
from retrieval.data.fields.settings import CategoricalField, MultiField, NumericField
from retrieval.data.sequences import SequenceDataset
from retrieval.evaluation.bootstrap import intervals
from retrieval.evaluation.measurements import Measurements
from retrieval.models.device import choose_precision
from retrieval.models.fields.inputs import FieldInputs
from retrieval.models.fields.settings import FieldsSettings
from retrieval.models.retrieval_model import RetrievalModel
from retrieval.models.table import build_model
from retrieval.stages.audience import Scope
from retrieval.stages.pipeline import Pipeline
from retrieval.stages.recipe import Recipe, read_recipe
from retrieval.stages.run import open_run
from retrieval.stages.train import held_out_users, open_model, prior_counts
from retrieval.training.examples import AbstractExamples, TrainingEvents
from retrieval.training.held_out import ValidationSettings
from retrieval.training.objective import Objective
from retrieval.training.optimizer import Optimizer
from retrieval.training.table import EXAMPLES
from retrieval.training.validation import validate

PIPELINES = Path(__file__).parents[1] / "pipelines"
RECIPES = {"ml-1m": "ml-1m/comirec-sa-fields.toml", "globo-news": "globo-news/interest-transformer-fields.toml"}
NOTHING = [f"model.fields.{name}" for name in ("items=[]", "users=[]", "events=[]", "id_dropout=0", "history_dropout=0")]


def gatenet(form: str, shared: bool) -> list[str]:
    return [f'model.fields.gate={{name="gatenet", embedding="{form}", shared={str(shared).lower()}}}']


PLAIN = ['model.fields.poso={form="none"}']
VARIANTS = {
    "no fields": [*NOTHING, *PLAIN],
    "fields": PLAIN,
    "poso-mlp": ['model.fields.poso={form="mlp"}'],
    "senet": [*PLAIN, 'model.fields.gate={name="senet"}'],
    "gatenet-bit-private": [*PLAIN, *gatenet("bit-wise", shared=False)],
    "gatenet-vector-private": [*PLAIN, *gatenet("vector-wise", shared=False)],
    "poso-mlp-alone": [*NOTHING, 'model.fields.poso={form="mlp"}'],
    "gatenet-bit-shared": [*PLAIN, *gatenet("bit-wise", shared=True)],
    "gatenet-vector-shared": [*PLAIN, *gatenet("vector-wise", shared=True)],
    "layers": [*PLAIN, "model.fields.layers=2"],
    "gatenet-hidden": [*PLAIN, "model.fields.layers=2", 'model.fields.gate={name="gatenet", embedding="none", hidden=true}'],
    "poso-attention": ['model.fields.poso={form="attention"}'],
    "poso-mmoe": ['model.fields.poso={form="mmoe"}'],
}
SHOWN = ("recall@20", "recall@50")
COLDEST = 0.1


def pipeline_of(name: str, variant: str, seed: int, arguments: argparse.Namespace, further: list[str] | None = None) -> Pipeline:
    light = ["machine.threads=1", "evaluate.baselines=[]", "evaluate.frontier_builders=[]", "recall.pool=50"]
    overrides = [f"seed={seed}", *light, *VARIANTS[variant], *(further or []), *arguments.overrides]
    return open_run(read_recipe(PIPELINES / RECIPES[name], overrides), arguments.workspace)


def result_of(name: str, variant: str, seed: int, arguments: argparse.Namespace) -> Path:
    return Path(arguments.workspace) / "fields" / name / variant.replace(" ", "-") / f"{seed}.parquet"


def run(arguments: argparse.Namespace) -> None:
    for seed in arguments.seeds:
        for variant in arguments.variants:
            path = result_of(arguments.sets[0], variant, seed, arguments)
            if not path.is_file():
                _run_one(pipeline_of(arguments.sets[0], variant, seed, arguments), path)
            values = pl.read_parquet(path)
            figures = "  ".join(f"{metric} {values[metric].mean():.4f}" for metric in SHOWN)
            print(
                f"{arguments.sets[0]}  {variant:<24} seed {seed}  {figures}  coldest {coldest(values)['recall@50'].mean():.4f}", flush=True
            )


def _run_one(pipeline: Pipeline, path: Path) -> None:
    artifact = pipeline.measurements
    measured = Measurements.read(artifact.file)
    split, users = pipeline.dataset.split, pipeline.dataset.users
    visible = pl.DataFrame({"user_id": users["user_id"], "visible": split.test_start})
    path.parent.mkdir(parents=True, exist_ok=True)
    measured.per_user.select("user_id", *SHOWN).join(visible, on="user_id", how="left", maintain_order="left").write_parquet(path)


def coldest(values: pl.DataFrame) -> pl.DataFrame:
    """The tenth with the fewest visible events, of those who have any."""
    known = values.filter(pl.col("visible") > 0).sort("visible", "user_id")
    return known.head(max(1, round(COLDEST * len(known))))


def table(arguments: argparse.Namespace) -> None:
    for name in arguments.sets:
        runs = {variant: _runs(name, variant, arguments) for variant in VARIANTS}
        reference = runs["no fields"]
        for variant, found in runs.items():
            if found is not None:
                print(_line(name, variant, found, reference))


def _runs(name: str, variant: str, arguments: argparse.Namespace) -> pl.DataFrame | None:
    """Each user's mean over the seeds that have been run."""
    paths = [path for seed in arguments.seeds if (path := result_of(name, variant, seed, arguments)).is_file()]
    if not paths:
        return None
    return pl.concat(pl.read_parquet(path) for path in paths).group_by("user_id", maintain_order=True).mean().with_columns(seeds=len(paths))


def _line(name: str, variant: str, found: pl.DataFrame, reference: pl.DataFrame | None) -> str:
    parts = [f"{name}  {variant:<24} seeds {found['seeds'][0]}"]
    for label, choose in (("all", lambda frame: frame), ("coldest", coldest)):
        chosen = choose(found)
        parts.append(f"{label} ({len(chosen)} users) " + "  ".join(f"{metric} {chosen[metric].mean():.4f}" for metric in SHOWN))
        if reference is not None and variant != "no fields":
            parts.append(_gain(chosen, choose(reference)))
    return "  ".join(parts)


def _gain(found: pl.DataFrame, reference: pl.DataFrame) -> str:
    both = found.join(reference, on="user_id", suffix="_without")
    differences = (both["recall@50"] - both["recall@50_without"]).to_numpy()[:, None]
    gain = intervals(differences, resamples=1000, confidence=0.95, seed=0)[0]
    return f"{gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"


def published(arguments: argparse.Namespace) -> None:
    for seed in arguments.seeds:
        for variant in arguments.variants:
            everything = pipeline_of("globo-news", variant, seed, arguments)
            truth, articles = new_articles(everything.dataset_artifact, everything.dataset)
            ids = Path(arguments.workspace) / "fields" / "published.csv"
            ids.parent.mkdir(parents=True, exist_ok=True)
            articles.select("item_id").write_csv(ids)
            among = pipeline_of("globo-news", variant, seed, arguments, [f'recall.filter.allow=["{ids}"]'])
            lists = [pl.concat(pl.read_parquet(path) for path in each.candidates(Scope()).files("part-")) for each in (everything, among)]
            values = [personal_recall(each, truth) for each in lists]
            print(f"{variant:<12} seed {seed}  of all {shown(values[0])}  of such alone {shown(values[1])}", flush=True)
    for label, order in by_rule(everything.dataset, articles).items():
        print(f"{label:<32} of such alone {shown(recall_of(order, truth))}")
    print(f"{len(articles)} articles, {len(truth)} targets of {truth['user_id'].n_unique()} users; chance {50 / len(articles):.4f}")


def new_articles(artifact: object, dataset: Dataset) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Test targets on articles published after the training cut, and those articles."""
    cut = int(dataset.sequences.times[_training(dataset)].max())
    frame = dataset.catalog.frame.filter((pl.col("events") == 0) & (pl.col("field_published") > cut))
    truth = pl.read_parquet(artifact.file("truth.parquet")).filter(pl.col("split") == "test")
    return truth.join(frame.select("item_id"), on="item_id", how="semi").select("user_id", "item_id"), frame


def _training(dataset: Dataset) -> np.ndarray:
    sequences = dataset.sequences
    place = np.arange(sequences.n_events) - np.repeat(sequences.offsets[:-1], sequences.lengths)
    return place < np.repeat(dataset.split.train_end, sequences.lengths)


PLACES = (0.5, 0.8, 0.9, 0.95, 0.98, 1.0)
DAY_BEFORE = [
    "split.valid_from=2017-10-15T00:00:00Z",
    "split.test_from=2017-10-15T03:00:00Z",
    "data.filters.before=2017-10-16T00:00:00Z",
]


def unseen(arguments: argparse.Namespace) -> None:
    for day, further in (("day before", DAY_BEFORE), ("test day", [])):
        for seed in arguments.seeds:
            pipeline = pipeline_of("globo-news", "fields", seed, arguments, further)
            model = open_model(pipeline.model_artifact, pipeline.recipe, pipeline.dataset)
            assert isinstance(model, RetrievalModel)
            _, articles = new_articles(pipeline.dataset_artifact, pipeline.dataset)
            new = pipeline.dataset.catalog.frame["item_id"].is_in(articles["item_id"].implode()).to_numpy()
            parts = [held_out_users(pipeline.dataset, "test", 5_000, seed, known) for known in (np.ones_like(new), new)]
            for place in PLACES:
                put_unseen(model, place, pipeline)
                found = [validate(model, part, ValidationSettings(n=50, filter_seen=True))["recall@50"] for part in parts]
                print(f"{day:<10} seed {seed} unseen {place:<4}  all targets {found[0]:.4f}  new articles {found[1]:.4f}", flush=True)


def put_unseen(model: RetrievalModel, place: float, pipeline: Pipeline) -> None:
    """Serve what training has not met from another place among the priors."""
    prior = model.settings.prior.model_copy(update={"unseen": place})
    model.settings = model.settings.model_copy(update={"prior": prior})
    model.fit_prior(*prior_counts(pipeline.recipe, pipeline.dataset, prior.hours))


def by_rule(dataset: Dataset, articles: pl.DataFrame) -> dict[str, pl.Series]:
    """Lists of such articles that are the same for everybody."""
    clicks = dataset.catalog.frame.group_by("field_category").agg(clicks=pl.col("events").sum())
    known = articles.join(clicks, on="field_category", how="left").with_columns(pl.col("clicks").fill_null(0))
    return {
        "popular in training (all zero)": known.sort("events", "item_id", descending=[True, False])["item_id"].head(50),
        "by their category's popularity": known.sort("clicks", "item_id", descending=[True, False])["item_id"].head(50),
        "first published first": known.sort("field_published")["item_id"].head(50),
    }


def personal_recall(lists: pl.DataFrame, truth: pl.DataFrame) -> np.ndarray:
    found = truth.join(lists.filter(pl.col("rank") <= 50).select("user_id", "item_id", hit=1.0), on=["user_id", "item_id"], how="left")
    return found.group_by("user_id", maintain_order=True).agg(pl.col("hit").fill_null(0.0).mean())["hit"].to_numpy()


def recall_of(items: pl.Series, truth: pl.DataFrame) -> np.ndarray:
    found = truth.with_columns(hit=pl.col("item_id").is_in(items.implode()).cast(pl.Float64))
    return found.group_by("user_id", maintain_order=True).agg(pl.col("hit").mean())["hit"].to_numpy()


def shown(values: np.ndarray) -> str:
    found = intervals(values[:, None], resamples=1000, confidence=0.95, seed=0)[0]
    return f"{found.mean:.4f} [{found.low:.4f}, {found.high:.4f}]"


ITEMS, USERS, EVENTS = 3416, 6040, 165
TEN = FieldsSettings(
    items=("genre", "tags", "year", "length", "maker"), users=("gender", "age", "occupation"), events=("device", "rating"), id_dropout=0.1
)


def ten_fields(random: np.random.Generator, hashed: int = 0) -> FieldInputs:
    """The makers of items are names, or hashed into so many rows."""

    def names(count: int, values: int, name: str, hashed: int = 0) -> FieldColumn:
        found = pl.Series([f"v{number}" for number in random.integers(values, size=count)])
        return code_column(name, CategoricalField(hashed=hashed), found, np.ones(count, dtype=np.int64))

    every = np.ones(ITEMS, dtype=np.int64)
    lists = [[f"t{number}" for number in random.integers(40, size=random.integers(1, 5))] for _ in range(ITEMS)]
    items = [
        names(ITEMS, 18, "genre"),
        code_column("tags", MultiField(), pl.Series(lists), every),
        code_column("year", NumericField(buckets=16), pl.Series(random.normal(size=ITEMS)), every),
        code_column("length", NumericField(), pl.Series(random.normal(size=ITEMS)), every),
        names(ITEMS, 500, "maker", hashed),
    ]
    users = [names(USERS, count, name) for count, name in ((2, "gender"), (7, "age"), (21, "occupation"))]
    events = [names(USERS * EVENTS, count, name) for count, name in ((5, "device"), (5, "rating"))]
    return FieldInputs(items, users, events, (), np.ones(ITEMS, dtype=np.bool_))


class Step:
    """A training step as the loop does it, on a log of MovieLens-1M's size."""

    def __init__(self, recipe: Recipe, events: TrainingEvents, fields: FieldInputs | None, gate: str = "none", table: str = "auto") -> None:
        chosen = FieldsSettings.model_validate({**TEN.model_dump(), "gate": {"name": gate}})
        settings = recipe.model if fields is None else recipe.model.model_copy(update={"fields": chosen})
        model = build_model(settings, ITEMS, 1, fields=fields)
        assert isinstance(model, RetrievalModel)
        self.model, compute = model, choose_precision(recipe.train.precision, torch.device("cpu"))
        self.examples: AbstractExamples = EXAMPLES[recipe.train.examples.name](events, model.history, recipe.train.examples, 1)
        self.objective = Objective(model, events, recipe.train.loss, compute, 1, self.examples)
        self.optimizer = Optimizer(model, recipe.train.optimizer.model_copy(update={"item_table": table}), row_wise=False)

    def seconds(self, step: int) -> float:
        started = time.thread_time()
        self.optimizer.clear()
        loss = self.objective(self.examples.batch(step), step, least_history=self.examples.least_history)
        loss.backward()
        self.optimizer.collect(5.0)
        self.optimizer.step(1e-3)
        return time.thread_time() - started


def walks(random: np.random.Generator) -> TrainingEvents:
    items = random.zipf(1.3, size=USERS * EVENTS) % ITEMS
    sequences = SequenceDataset(np.arange(USERS + 1) * EVENTS, items.astype(np.int32), np.tile(np.arange(EVENTS), USERS))
    return TrainingEvents.of(sequences, np.full(USERS, EVENTS))


def hashed(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    recipe = read_recipe(PIPELINES / "ml-1m/comirec-sa.toml", [f"data.{side}.path=none" for side in ("interactions", "items", "users")])
    for rows in (100_000, 1_000_000, 4_000_000):
        medians = {}
        for table in ("auto", "dense"):
            random = np.random.default_rng(0)
            step = Step(recipe, walks(random), ten_fields(random, rows), table=table)
            medians[table] = statistics.median([step.seconds(number) for number in range(arguments.steps)][2:])
        print(f"{rows:>9,} rows", "  ".join(f"{label} {1e3 * value:.1f} ms" for label, value in medians.items()), flush=True)


def cost(arguments: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    events, fields = walks(random), ten_fields(random)
    makers: dict[str, Callable[[Recipe], Step]] = {
        "without": lambda recipe: Step(recipe, events, None),
        "ten fields": lambda recipe: Step(recipe, events, fields),
        "ten fields, SENet": lambda recipe: Step(recipe, events, fields, "senet"),
        "ten fields, GateNet": lambda recipe: Step(recipe, events, fields, "gatenet"),
    }
    for name in arguments.models:
        recipe = read_recipe(
            PIPELINES / f"ml-1m/{name}.toml", ["data.interactions.path=none", "data.items.path=none", "data.users.path=none"]
        )
        steps = {label: make(recipe) for label, make in makers.items()}
        times: dict[str, list[float]] = {label: [] for label in steps}
        for number in range(arguments.steps):
            for label, step in steps.items():
                times[label].append(step.seconds(number))
        medians = {label: statistics.median(each[2:]) for label, each in times.items()}
        line = "  ".join(f"{label} {1e3 * value:.1f} ms ({medians['without'] / value:.2f})" for label, value in medians.items())
        print(f"{name:<22} {line}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["cost", "hashed", "run", "table", "published", "unseen"])
    parser.add_argument("sets", nargs="*", default=list(RECIPES), metavar="SET")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--models", nargs="+", default=["youtube-dnn", "comirec-sa", "interest-transformer"])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--workspace", type=Path, default=Path("workspace"))
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    arguments = parser.parse_args()
    arguments.variants = arguments.variants or (["fields", "no fields"] if arguments.what == "published" else list(VARIANTS))
    configure_logging(as_json=False, level=logging.WARNING)
    {"cost": cost, "hashed": hashed, "run": run, "table": table, "published": published, "unseen": unseen}[arguments.what](arguments)


if __name__ == "__main__":
    main()
