"""What re-scoring costs: processor time of users who are served as they are at night."""

import time

import numpy as np

from retrieval.core.seeds import derive_seed
from retrieval.evaluation.rescoring import RescoringCost
from retrieval.stages.audience import Audience, held_out
from retrieval.stages.recall import Server, Serving

_TIMED, _FIRST = 500, 8


def rescoring_cost(serving: Serving) -> RescoringCost:
    """Take the time of 500 held-out users at most, drawn by seed: of recall up to the pools, and of re-scoring these."""
    audience, server = held_out(serving.dataset), Server(serving, at_the_cut=True)
    order = np.random.default_rng(derive_seed("rescoring", "users")).permutation(len(audience.users))
    # What only the first users of a process pay, such as compiled kernels, is no cost of a user.
    _spent(server, audience.of(order[:_FIRST]))
    chosen = audience.of(np.sort(order[:_TIMED]))
    recall, rescoring = (1000 * seconds / max(1, len(chosen.users)) for seconds in _spent(server, chosen))
    return RescoringCost(users=len(chosen.users), recall=recall, rescoring=rescoring)


def _spent(server: Server, audience: Audience) -> tuple[float, float]:
    """Seconds of recall and of re-scoring."""
    recall = rescoring = 0.0
    began = time.process_time()
    for encoded, pools in server.recalled(audience):
        found = time.process_time()
        if server.serving.rescorer is not None:
            server.serving.rescorer(pools, encoded)
        recall, rescoring = recall + found - began, rescoring + time.process_time() - found
        began = time.process_time()
    return recall, rescoring
