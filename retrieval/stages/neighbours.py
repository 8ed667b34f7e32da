"""The tables of neighbours of models that are counted: how a recipe makes one, and how recall finds it again."""

from retrieval.core.artifacts import Artifact
from retrieval.data.dataset import Dataset
from retrieval.index.neighbours.count import CountedLog, co_occurrences, transitions
from retrieval.index.neighbours.table import Neighbours
from retrieval.models.settings import ItemKNNSettings, MarkovSettings
from retrieval.stages.recipe import Recipe


def count_neighbours(recipe: Recipe, dataset: Dataset) -> Neighbours:
    """Count the recipe's neighbours in the training events, and in nothing else."""
    model, sequences = recipe.model, dataset.sequences
    if not isinstance(model, (MarkovSettings, ItemKNNSettings)):
        raise TypeError(f"no way to count a {model.name}")
    log = CountedLog(
        sequences.offsets[:-1], sequences.items, dataset.split.train_end, dataset.catalog.n_items, model.neighbours, recipe.machine.threads
    )
    return transitions(log) if isinstance(model, MarkovSettings) else co_occurrences(log, model.shrinkage)


def open_neighbours(model: Artifact, dataset: Dataset) -> Neighbours:
    """The table of a model. Raises IntegrityError when it is damaged or of another catalog."""
    return Neighbours.read(model.file, dataset.catalog.n_items)
