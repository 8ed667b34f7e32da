"""AdamW over the encoder, and over the tables of items and fields either the same or row by row."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from retrieval.models.lookups import Lookups, RowGradients
from retrieval.models.rescoring.model import RescoringModel
from retrieval.models.retrieval_model import RetrievalModel
from retrieval.training.distributed import ALONE, World
from retrieval.training.settings import OptimizerSettings, TrainSettings
from retrieval.training.sharded_rows import Stored, stored

ROW_WISE_FROM = 50_000
_ITEMS = "items"
_BETA = 0.999
_EPSILON = 1e-8


def has_row_wise_table(settings: TrainSettings, n_items: int) -> bool:
    """What `train.optimizer.item_table` comes to for a catalog."""
    if settings.optimizer.item_table != "auto":
        return settings.optimizer.item_table == "row-wise"
    return n_items >= ROW_WISE_FROM and not settings.loss.whole_catalog


class Optimizer:
    """One step for the whole model.

    With a row-wise table the cost of a step and its memory follow the rows that were read, not the catalog: there is no
    gradient, no norm and no sweep of the table's shape. Tables of fields with `ROW_WISE_FROM` rows are read so unless
    `item_table` is dense.
    """

    def __init__(
        self, model: RetrievalModel | RescoringModel, settings: OptimizerSettings, *, row_wise: bool, world: World = ALONE
    ) -> None:
        self._world, self._items = world, model.items
        self._tables = dict(_row_wise_tables(model, settings, items=row_wise))
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        # A single number is a scale, and decay would pull it to a value that means something.
        numbers, arrays = ([each for each in trained if (each.ndim == 0) is number] for number in (True, False))
        self._parameters = arrays + numbers
        groups: list[dict[str, Any]] = [{"params": arrays}, *([{"params": numbers, "weight_decay": 0.0}] if numbers else [])]
        self._adam = torch.optim.AdamW(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)

    def clear(self) -> None:
        """Forget the gradients."""
        self._adam.zero_grad(set_to_none=True)
        for table in self._tables.values():
            table.lookups.clear()

    def collect(self, most: float) -> Tensor:
        """Take the gradients of the step, of all processes, scale them down to the norm `most`, and return the norm they had."""
        self._world.add_gradients(self._parameters)
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        gradients += [table.collect(self._world) for table in self._tables.values()]
        norm = torch.nn.utils.get_total_norm(gradients)
        scale = (most / (norm + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(scale)
        return norm

    def step(self, rate: float) -> None:
        """Move the weights along the collected gradients at a learning rate."""
        for group in self._adam.param_groups:
            group["lr"] = rate
        self._adam.step()
        for table in self._tables.values():
            table.step(rate)

    def state(self) -> dict[str, Stored]:
        """Everything that a restart needs, under stable names; the tensors themselves, not copies."""
        states = self._adam.state_dict()["state"]
        found = {f"{number}.{name}": torch.as_tensor(value) for number, values in states.items() for name, value in values.items()}
        return found | self._table_states()

    def fits(self, shapes: Mapping[str, tuple[int, ...]]) -> bool:
        """Are those the shapes of the state of an optimizer like this one?"""
        expected: dict[str, tuple[int, ...]] = {
            f"{number}.{name}": () if name == "step" else value.shape
            for number, value in enumerate(self._parameters)
            for name in ("step", "exp_avg", "exp_avg_sq")
        }
        expected |= {name: value.shape for name, value in self._table_states().items()}
        return expected == shapes

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a state that fits: what `state` of a fresh optimizer lacks; what it has is filled in place."""
        state: dict[int, dict[str, Tensor]] = {}
        for key in tensors:
            number, _, name = key.partition(".")
            state.setdefault(int(number), {})[name] = tensors[key].clone()
        self._adam.load_state_dict({"state": state, "param_groups": self._adam.state_dict()["param_groups"]})

    def _table_states(self) -> dict[str, Stored]:
        states = {f"{name}.{key}": value for name, table in self._tables.items() for key, value in table.state().items()}
        return stored(states, frozenset(f"{_ITEMS}.{key}" for key in RowWiseAdam.per_row), self._items, self._world)


def _row_wise_tables(
    model: RetrievalModel | RescoringModel, settings: OptimizerSettings, *, items: bool
) -> Iterator[tuple[str, "RowWiseAdam"]]:
    """By the names that their states have."""
    if items:
        yield _ITEMS, RowWiseAdam(model.items.embedding.weight, model.items.read_row_wise(), settings, model.items.held)
    if settings.item_table == "dense" or not isinstance(model, RetrievalModel):
        return
    for name, vectors in model.field_tables.items():
        if len(vectors.table) >= ROW_WISE_FROM:
            yield name, RowWiseAdam(vectors.table, vectors.read_row_wise(), settings)


class RowWiseAdam:
    """Adam without a first moment and with one second moment a row, for a table of which a step reads few rows.

    v_r <- b^d v_r + (1 - b) mean(g_r^2), d steps after the row's last gradient, which is what v would be after d - 1
    zero gradients: nothing is approximated by leaving rows alone. w_r <- w_r - rate * g_r / (sqrt(v_r / (1 - b^t)) + eps).

    Differs from dense AdamW: no momentum, which would move every row in every step; the rate of a row is shared by
    its D numbers (as in FBGEMM's row-wise Adagrad and Adam); weight decay acts on a row only in the steps that read
    it, so rare rows shrink less. Memory: 8 bytes a row beside the table.

    `table` may be the rows `held` of a larger one; other rows are moved elsewhere.
    """

    per_row: ClassVar = frozenset({"moment", "last"})
    """The names in the state that have one row for each of the table."""

    def __init__(self, table: Tensor, lookups: Lookups, settings: OptimizerSettings, held: slice | None = None) -> None:
        self.table, self.lookups, self._decay = table, lookups, settings.weight_decay
        self._held = slice(0, len(table)) if held is None else held
        self._moment = torch.zeros(len(table), dtype=torch.float32, device=table.device)
        self._last = torch.zeros(len(table), dtype=torch.int32, device=table.device)
        self._steps = torch.zeros((), dtype=torch.int64)
        self._gradients = RowGradients(torch.empty(0, dtype=torch.int64), torch.empty(0))

    def collect(self, world: World = ALONE) -> Tensor:
        """The gradients of the rows that were read [R,D]; what is done to this tensor is done to the step."""
        self._gradients = world.add_rows(self.lookups.gradients(self.table))
        return self._gradients.values

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move the rows whose gradients were collected, of those that lie here."""
        rows, values = self._gradients
        self._steps += 1
        steps = int(self._steps)
        first, past = torch.searchsorted(rows, rows.new_tensor([self._held.start, self._held.stop])).tolist()
        here = slice(first, past)
        places, gradient = rows[here] - self._held.start, values[here]
        # Powers and means of all rows, so that each has the bits that it has with a whole table: torch computes the last
        # numbers of an array by another function than the rest.
        idle = torch.zeros(len(rows), dtype=torch.float32, device=rows.device)
        idle[here] = (steps - self._last[places]).to(torch.float32)
        faded, square = (_BETA**idle)[here], values.square().mean(dim=1)[here]
        moment = self._moment[places] * faded + (1.0 - _BETA) * square
        self._moment[places], self._last[places] = moment, steps
        scale = rate / ((moment / (1.0 - _BETA**steps)).sqrt() + _EPSILON)
        kept = self.table[places] * (1.0 - rate * self._decay)
        self.table[places] = kept - gradient * scale[:, None]

    def state(self) -> dict[str, Tensor]:
        """The tensors that a restart needs."""
        return {"moment": self._moment, "last": self._last, "steps": self._steps}
