"""From a recipe's word to a loss."""

from collections.abc import Callable

from retrieval.core.tables import Table
from retrieval.losses.abstract import AbstractLoss
from retrieval.losses.binary import BinaryCrossEntropy, GeneralisedBinaryCrossEntropy
from retrieval.losses.bpr_max import BPRMax
from retrieval.losses.settings import LossSettings
from retrieval.losses.softmax import CorrectedLogQ, FullSoftmax, SampledSoftmax

LOSSES: Table[Callable[[LossSettings], AbstractLoss]] = Table(
    "loss",
    {
        "full-softmax": FullSoftmax,
        "sampled-softmax": SampledSoftmax,
        "corrected-logq": CorrectedLogQ,
        "bce": BinaryCrossEntropy,
        "gbce": GeneralisedBinaryCrossEntropy,
        "bpr-max": BPRMax,
    },
)
