"""What the metrics mean, in one plain clause each."""

from retrieval.evaluation.settings import LOWER_IS_BETTER, NEITHER_IS_BETTER

_MEANINGS = {
    "recall": "share of the items a user went on to choose that are in the first {n}",
    "hr": "share of users with at least one such item in the first {n} (hit rate)",
    "precision": "share of the first {n} that the user went on to choose",
    "ndcg": "like recall, but hits near the top count more; 1 is a perfect order",
    "ndcg_comirec": "NDCG as the ComiRec code computes it, for comparison with its figures only",
    "mrr": "one over the rank of the first hit, averaged",
    "map": "precision at every hit, averaged",
    "diversity": "share of the pairs of items in the first {n} whose categories differ",
    "alpha_ndcg": "NDCG in which a further hit of the same category counts less (by 1 - alpha)",
    "entropy": "how many different categories the first {n} mix, in bits",
    "head_share": "share of the first {n} that are head: the few items with most of the training events",
    "torso_share": "share of the first {n} that are neither head nor tail",
    "tail_share": "share of the first {n} that are tail: the many items with the fewest training events",
    "distance": "how far apart the items of the first {n} lie (mean of 1 minus cosine over their pairs)",
    "calibration_kl": "how far the categories of the first {n} are from the user's history (divergence in nats); lower is closer",
    "calibration_js": "the same between 0 (alike) and 1 (nothing in common)",
    "union_recall": "recall over the union of the first {n} of every interest: more items than {n}, not to be compared with recall",
    "union_size": "how many items that union holds",
    "novelty": "how rarely the listed items occur in training, in bits; higher is rarer",
    "coverage": "share of the catalog that is in at least one user's first {n}",
    "gini": "how unevenly items share the lists: 0 is even, 1 is all on one item",
}

_HEALTH = {
    "interest_cosine": "cosine between interests",
    "largest_share": "share of the busiest interest",
    "effective_rank": "effective rank",
    "contributing_interests": "interests in a list",
    "dead_interests": "dead interests",
}


def meaning(metric: str) -> str:
    """What a metric such as "recall@50" says; empty for one that is not known."""
    name, _, n = metric.partition("@")
    return _MEANINGS.get(name, "").format(n=n or "n")


def digits(metric: str) -> int:
    """How many decimals a value deserves: bits are counted in the tens, shares lie between 0 and 1."""
    return 2 if metric.startswith("novelty") else 4


def cutoff(metric: str) -> str:
    """The list length in a metric's name, as text: "50" of "recall@50"."""
    return metric.partition("@")[2]


def tone(metric: str, higher: bool | None) -> str:
    """How a sure difference of a metric is marked: an arrow for its direction, and whether that is good, where it is either.

    higher: whether the value is surely higher (True), lower (False), or neither.
    """
    if higher is None:
        return "quiet"
    arrow = "up" if higher else "down"
    if family(metric) in NEITHER_IS_BETTER:
        return arrow
    return f"{arrow} {'good' if higher is not (family(metric) in LOWER_IS_BETTER) else 'bad'}"


def family(metric: str) -> str:
    """The metric without its list length: "recall" of "recall@50"."""
    return metric.partition("@")[0]


def health(name: str) -> str:
    """A figure of the interests that training watches, such as "effective_rank", in words."""
    return _HEALTH.get(name, name.replace("_", " "))
