"""What gates let through, on average: per field of every tower, for slices of users by how many events they have."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retrieval.core.artifacts import Artifact
from retrieval.core.seeds import derive_seed
from retrieval.data.dataset import Dataset
from retrieval.data.splits import ranges
from retrieval.models.fields.users import Stages, UserFields, activity_bucket
from retrieval.models.gates.settings import NoGate
from retrieval.models.retrieval_model import AbstractRetrievalModel, RetrievalModel
from retrieval.training.tensor_files import TensorFile

GATES = "gates.json"
_USERS = 4096
_SLICES = {"no event": (0, 1), "1 event": (1, 2), "2 to 9": (2, 10), "10 to 99": (10, 100), "100 and more": (100, 2**62)}


def gates_of(artifact: Artifact) -> list[dict[str, Any]]:
    """Rows of tower, field and the mean gate by slice, as a model's artifact keeps them; none where nothing is gated."""
    if GATES not in artifact.manifest.files:
        return []
    found: list[dict[str, Any]] = json.loads(artifact.file(GATES).read_text(encoding="utf-8"))
    return found


@torch.no_grad()
def mean_gates(model: AbstractRetrievalModel, dataset: Dataset, seed: int, written: TensorFile) -> list[dict[str, Any]]:
    """Rows of tower, field, and `means`: slice of users -> mean gate; 1 lets a field through as it is.

    An item's gates count for the users whose events it is in, an event's for its user. At most 4,096 users, drawn by seed,
    with the whole of their histories. Hidden layers with a gate are rows, too. POSO's gates are two: the mean over the module's
    parts, and their spread, the standard deviation over them, without which parts that are let through more and less would cancel out.
    `written` are the model's weights as they will be read: of a sharded table, of which this process has a part, its rows come from there.
    """
    if not isinstance(model, RetrievalModel) or not _gated(model):
        return []
    model.eval()
    users = _some_users(dataset, seed)
    lengths = np.asarray(dataset.sequences.lengths)[users]
    items = _item_rows(model, dataset, users, lengths, written)
    rows = [*items, *_event_rows(model, dataset, users, lengths), *_user_rows(model, users, lengths)]
    return [{"tower": tower, "field": field, "means": means} for tower, field, means in rows]


def _gated(model: RetrievalModel) -> bool:
    fields = model.settings.fields
    return not isinstance(fields.gate, NoGate) or fields.poso.form != "none"


def _some_users(dataset: Dataset, seed: int) -> NDArray[np.int64]:
    every = np.random.default_rng(derive_seed(seed, "gates")).permutation(dataset.sequences.n_users)
    return np.sort(every[:_USERS])


def _item_rows(
    model: RetrievalModel, dataset: Dataset, users: Any, lengths: Any, written: TensorFile
) -> Iterator[tuple[str, str, dict[str, float]]]:
    fields = model.items.fields
    if fields is None:
        return
    positions, owner = ranges(dataset.sequences.offsets[:-1][users], lengths)
    met, places = np.unique(np.asarray(dataset.sequences.items[positions]), return_inverse=True)
    rows = torch.from_numpy(met.astype(np.int64)).to(model.items.embedding.weight.device)
    ids = _ids_in(written, rows, model) if model.items.sharded else model.items.ids(rows)
    gates = fields.sum.mean_gates(fields.parts(ids, rows), fields.names)
    yield from _sliced("items", gates, lengths[owner], places)


def _ids_in(written: TensorFile, rows: Tensor, model: RetrievalModel) -> Tensor:
    (name,) = model.per_item
    table = model.items.embedding.weight
    ids = table.new_empty(len(rows), table.shape[1])
    written.take(name, rows.cpu(), ids)
    return ids


def _event_rows(model: RetrievalModel, dataset: Dataset, users: Any, lengths: Any) -> Iterator[tuple[str, str, dict[str, float]]]:
    fields = model.event_fields
    if fields is None:
        return
    positions, owner = ranges(dataset.sequences.offsets[:-1][users], lengths)
    every = fields.vectors(torch.arange(fields.count, device=fields.combination.device))
    met = fields.combination.cpu().numpy()[positions]
    yield from _sliced("events", fields.sum.mean_gates(every, fields.vectors.names), lengths[owner], met)


def _user_rows(model: RetrievalModel, users: Any, lengths: Any) -> Iterator[tuple[str, str, dict[str, float]]]:
    fields = model.user_fields
    if fields is None:
        return
    device = model.items.embedding.weight.device
    stages = Stages(torch.from_numpy(users).to(device), activity_bucket(torch.from_numpy(lengths).to(device)))
    if fields.fields is not None:
        yield from _sliced("users", fields.fields.sum.mean_gates(fields.fields.parts(stages), fields.fields.names), lengths)
    yield from _poso_rows(fields, stages, lengths)


def _poso_rows(fields: UserFields, stages: Stages, lengths: Any) -> Iterator[tuple[str, str, dict[str, float]]]:
    if fields.poso is None or fields.keys is None:
        return
    gates = fields.poso.gates(fields.keys(stages))
    spread = gates.std(dim=1, correction=0)
    yield from _sliced("poso", {"mean of all parts": gates.mean(dim=1), "spread of all parts": spread}, lengths)


def _sliced(
    tower: str, gates: Mapping[str, Tensor], lengths: Any, places: Any = slice(None)
) -> Iterator[tuple[str, str, dict[str, float]]]:
    """Mean gates of rows, `places` of those given, whose users have so many events [R]; a slice that nobody is in is left out."""
    parts = {name: (lengths >= low) & (lengths < past) for name, (low, past) in _SLICES.items()}
    parts = {"everyone": np.ones(len(lengths), dtype=np.bool_), **parts}
    for field, values in gates.items():
        each = values.cpu().double().numpy()[places]
        yield tower, field, {name: round(float(each[part].mean()), 4) for name, part in parts.items() if part.any()}
