"""From a recipe's word to a model."""

import torch

from retrieval.core.errors import UsageError
from retrieval.core.seeds import derive_seed
from retrieval.core.tables import Table
from retrieval.models.comirec_dr import ComiRecDR
from retrieval.models.comirec_sa import ComiRecSA
from retrieval.models.fields.events import EventFields
from retrieval.models.fields.inputs import FieldInputs
from retrieval.models.fields.items import ItemFields
from retrieval.models.fields.users import UserFields
from retrieval.models.gru4rec import Gru4Rec
from retrieval.models.interest_transformer import InterestTransformer
from retrieval.models.item_tower import ItemTower
from retrieval.models.mind import Mind
from retrieval.models.retrieval_model import AbstractRetrievalModel, PopularModel, RetrievalModel
from retrieval.models.sasrec import SASRec
from retrieval.models.settings import CountedSettings, ImportedSettings, MindSettings, ModelSettings, MultiInterestSettings
from retrieval.models.youtube_dnn import YouTubeDNN

ENCODERS = Table(
    "encoder",
    {
        "mind": Mind,
        "comirec-dr": ComiRecDR,
        "comirec-sa": ComiRecSA,
        "youtube-dnn": YouTubeDNN,
        "gru4rec": Gru4Rec,
        "sasrec": SASRec,
        "interest-transformer": InterestTransformer,
    },
)


def build_model(
    settings: ModelSettings, n_items: int, seed: int, held: slice | None = None, fields: FieldInputs | None = None
) -> AbstractRetrievalModel:
    """A model with weights drawn from `seed`; the global generator is left as it was.

    `held` are the rows of the item table that it is to hold, None is all: their weights, and all others, are the same.
    `fields` are those that the settings name, None where they name none; weights of ids and encoder do not depend on them.

    Raises:
        UsageError: the vectors are imported, so there is nothing to train.
    """
    if isinstance(settings, CountedSettings):
        return PopularModel(n_items, settings)
    if isinstance(settings, ImportedSettings):
        raise UsageError("imported vectors are trained elsewhere", where="model.name = 'imported'", remedy="choose a model to train")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        model = RetrievalModel(ItemTower(n_items, settings.dimension, held), ENCODERS[settings.name](settings), settings)
        return model if fields is None else _with_fields(model, fields)


def _with_fields(model: RetrievalModel, fields: FieldInputs) -> RetrievalModel:
    settings = model.settings
    if fields.items:
        model.items.with_fields(ItemFields(fields, settings.dimension, settings.fields))
    if fields.events:
        model.event_fields = EventFields(fields, settings.dimension, settings.fields)
    if settings.fields.reads_users:
        interests = settings.interests if isinstance(settings, MultiInterestSettings) else 1
        alone = 1 if isinstance(settings, MindSettings) and settings.adaptive else interests
        model.user_fields = UserFields(fields, settings.dimension, interests, settings.fields, alone)
    return model
