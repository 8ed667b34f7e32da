"""What the gates ask for: figures of the night beside those of what is published."""

import json
import re
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import polars as pl

from retrieval.core.artifacts import Artifact
from retrieval.core.errors import UsageError
from retrieval.core.publication import Publication, Version
from retrieval.core.seeds import derive_seed
from retrieval.evaluation.comparison import Comparison, compare
from retrieval.evaluation.health import InterestHealth
from retrieval.evaluation.measurements import Measurements, paired_users
from retrieval.evaluation.tables import batches
from retrieval.index.choice.clock import latency
from retrieval.index.settings import IndexSettings
from retrieval.stages.build_index import index_settings, load_vectors, open_index
from retrieval.stages.index_choice import make_search
from retrieval.stages.nightly import gates
from retrieval.stages.nightly.day import DayProfile, rows_after
from retrieval.stages.nightly.gates import Gate
from retrieval.stages.nightly.past import Past, asked_of
from retrieval.stages.nightly.reference import Reference
from retrieval.stages.pipeline import Pipeline

_LATENCY_USERS = 200


@dataclass(frozen=True)
class Published:
    """The version that a night is judged against."""

    publication: Publication
    version: Version
    night: Pipeline

    opened: dict[str, Artifact] = field(default_factory=dict, repr=False)

    def artifact(self, kind: str) -> Artifact:
        """Its artifact of a kind, whose files are checked once."""
        if kind not in self.opened:
            self.opened[kind] = self.publication.artifact(self.version, kind)
        return self.opened[kind]

    @property
    def reference(self) -> Reference | None:
        """Its model on the night's log; None where that model has no answers for it, and `unanswered` says why."""
        return self._found[0]

    @property
    def unanswered(self) -> str:
        """Why there is no reference; "" where there is."""
        return self._found[1]

    @cached_property
    def _found(self) -> tuple[Reference | None, str]:
        rescorer = self.artifact("rescorer") if "rescorer" in self.version.artifacts else None
        try:
            return Reference(self.night, self.artifact("model"), self.artifact("dataset"), rescorer), ""
        except UsageError as error:
            return None, error.what


def data_gates(night: Pipeline, day: DayProfile, past: Past, published: Published | None) -> list[Gate]:
    """Volume, drift and bad rows of the night's day against days before, and its ids against the published ones."""
    settings, artifact = night.recipe.nightly.data, night.dataset_artifact
    new_rows = rows_after(past.read, night.dataset, artifact)
    return [
        gates.volume_gate(settings, day, past),
        gates.drift_gate(settings, day, past.day),
        gates.bad_gate(settings, day, past, new_rows, night.recipe.data.contract.max_bad_share),
        gates.ids_gate(settings, _ids(artifact), _ids(published.artifact("dataset")) if published else {}),
    ]


def _ids(dataset: Artifact) -> dict[str, pl.Series]:
    columns = {"users": "user_id", "items": "item_id"}
    return {name: pl.read_parquet(dataset.file(f"{name}.parquet"), columns=[column])[column] for name, column in columns.items()}


def model_gates(night: Pipeline, published: Published | None, past: Past) -> list[Gate]:
    """Leaks, recall against the published model, its least value, interests and coverage."""
    settings, metric = night.recipe.nightly, night.recipe.evaluate.primary
    summary, reference = night.measurements.summary, published.reference if published else None
    mean = (summary["metrics"].get(metric) or {}).get("mean")
    coverage = f"coverage@{night.recipe.evaluate.primary_cutoff}"
    against, theirs, reason = _paired(night, reference, published)
    covered = reference.measurements.summary["overall"].get(coverage) if reference else None
    return [
        gates.leaks_gate(summary["leaks"]["kinds"], summary["leaks"]["verdict"]),
        gates.recall_gate(settings.model, metric, theirs, against, reason),
        gates.primary_gate(settings.model, metric, mean, past.figure(asked_of(night.recipe))),
        gates.interests_gate(settings.model, _health(night.measurements)),
        gates.coverage_gate(settings.lists, summary["overall"].get(coverage), covered),
    ]


def list_gates(night: Pipeline, lists: Artifact, published: Published | None) -> list[Gate]:
    """Overlap with the published lists, empty and short ones, and how long a user's search takes."""
    settings = night.recipe.nightly.lists
    overlap = overlaps(lists, published.artifact("candidates"), settings.users) if published else None
    waits = _seconds(night, night.index, night.vectors), _published_seconds(published) if published else None
    return [gates.overlap_gate(settings, overlap), *gates.length_gates(settings, lists.summary), gates.latency_gate(settings, *waits)]


def overlaps(night: Artifact, published: Artifact, users: int) -> list[float]:
    """The share of a list that stood in the same user's list before, of users drawn from the night's who had one.

    Held at once: the two lists of the drawn users, and a batch of rows.
    """
    drawn = _drawn(night, users)
    now, before = _lists_of(night, drawn), _lists_of(published, drawn)
    if now.schema != before.schema:
        return []
    now = now.join(before.select("user_id").unique(), on="user_id", how="semi")
    kept = now.join(before.with_columns(kept=1), on=["user_id", "item_id"], how="left")
    return kept.group_by("user_id").agg(pl.col("kept").fill_null(0).mean())["kept"].sort().to_list()


def _drawn(lists: Artifact, users: int) -> pl.Series:
    """Ids of some users with a list, drawn by seed."""
    found = [frame["user_id"].unique(maintain_order=True) for frame in batches(lists.files("part-"), ("user_id",))]
    ids = pl.concat(found).unique(maintain_order=True) if found else pl.Series("user_id", [], pl.Int64)
    order = np.random.default_rng(derive_seed("nightly", "overlap")).permutation(len(ids))
    return ids.gather(np.sort(order[:users]))


def _lists_of(lists: Artifact, users: pl.Series) -> pl.DataFrame:
    frames = batches(lists.files("part-"), ("user_id", "item_id"))
    same_type = (frame for frame in frames if frame["user_id"].dtype == users.dtype)
    found = [frame.filter(pl.col("user_id").is_in(users.implode())) for frame in same_type]
    return pl.concat(found) if found else pl.DataFrame(schema={"user_id": users.dtype, "item_id": pl.Null})


def _paired(night: Pipeline, reference: Reference | None, published: Published | None) -> tuple[Comparison | None, float | None, str]:
    """The night's measurements against the reference's, over users that neither model knows, and the reference's mean of the primary
    metric over them; or why there are none.
    """
    if reference is None or published is None:
        return None, None, published.unanswered if published else "nothing is published"
    users = reference.judges()
    mine, others = (_of_users(each.measurements, users) for each in (night, reference))
    if mine.per_user.is_empty() or others.per_user.is_empty():
        return None, None, "the published model may know the targets of every test user"
    metric = night.recipe.evaluate.primary
    theirs = paired_users(mine.per_user, others.per_user)[1].select(pl.col(f"^{re.escape(metric)}$").drop_nulls().drop_nans().mean())
    return compare(mine, others), theirs.item() if theirs.width else None, ""


def _of_users(artifact: Artifact, users: pl.Series) -> Measurements:
    measured = Measurements.read(artifact.file)
    return Measurements(measured.per_user.join(users.to_frame("user_id"), on="user_id", how="semi"), measured.summary)


def _health(measurements: Artifact) -> InterestHealth:
    return InterestHealth.model_validate(json.loads(measurements.file("health.json").read_text(encoding="utf-8"))["figures"])


def _seconds(pipeline: Pipeline, index: Artifact, vectors: Artifact, settings: IndexSettings | None = None) -> float | None:
    """Seconds that 95 of 100 single users of a pipeline wait for their search in an index; None where nobody has an interest."""
    settings = settings or index_settings(pipeline.recipe)
    items = load_vectors(vectors)
    opened = open_index(index, vectors, settings)
    search = make_search(pipeline.recipe.recall.pool_size, settings.threads)(opened, items)
    users = pipeline.some_users(_LATENCY_USERS)

    def one(number: int) -> object:
        return search(users.vectors[[number]], users.valid[[number]])

    return latency(one, len(users.valid)) if len(users.valid) else None


def _published_seconds(published: Published) -> float | None:
    night, reference = published.night, published.reference
    if reference is None:
        return None
    index = published.artifact("index")
    settings = IndexSettings.model_validate(index.manifest.settings).model_copy(update={"threads": index_settings(night.recipe).threads})
    return _seconds(reference, index, published.artifact("vectors"), settings)
