"""Plain sentences that follow from the figures: how good, better than what, at which price in variety, and whether re-scoring pays."""

from collections.abc import Sequence

from retrieval.evaluation.bootstrap import Interval
from retrieval.evaluation.comparison import Comparison
from retrieval.report import figures, words
from retrieval.report.content import FrontierPoint, HealthFigure, ReportContent, Results

_KEPT = 0.95  # share of the best recall that a weight may cost before it counts as dear


def verdict(content: ReportContent) -> tuple[str, ...]:
    """Quality, comparison, variety with the state of the interests, and re-scoring where there is any, a sentence each."""
    price, state = cost_of_variety(content.frontier, words.cutoff(content.results.primary)), interest_state(content.interests.health)
    warning = f"The data leak, so do not believe this: {content.knowledge.verdict} " if content.knowledge.leaks else ""
    second_look = () if content.rescoring.gain is None else (content.rescoring.gain.verdict(),)
    return warning + quality(content.results), comparison(content.results), f"{price}; {state}.", *second_look


def quality(results: Results) -> str:
    """How good the main system is at the primary metric, with its interval."""
    main, metric = results.main, results.primary
    found = None if main is None else main.metrics.get(metric)
    if main is None or found is None or found.mean is None:
        return f"The run has no value for its primary metric {metric}."
    between = figures.span(found)
    sure = f", {100 * results.confidence:g} % interval {between}" if between else ""
    users = f" over {figures.count(results.users)} users" if results.users else ""
    return f"{main.name} {_in_words(metric, found.mean)} ({metric} {figures.decimal(found.mean)}{sure}{users})."


def _in_words(metric: str, mean: float) -> str:
    name, n = metric.partition("@")[0], words.cutoff(metric)
    if name == "recall":
        return f"finds {figures.percent(mean)} of the items that users went on to choose within its first {n} candidates"
    if name == "hr":
        return f"has a right item among its first {n} candidates for {figures.percent(mean)} of the users"
    return f"reaches {figures.decimal(mean)} at {metric}"


def comparison(results: Results) -> str:
    """Better than which baselines, worse than which, and which cannot be told apart."""
    metric = results.primary
    found = {name: against for name, against in results.comparisons.items() if metric in against.differences}
    if not found:
        return f"It was compared with no baseline on {metric}."
    groups = {True: "is better than", False: "is worse than", None: "cannot be told apart from"}
    parts = [
        _group(words_, metric, {name: c for name, c in found.items() if c.higher(metric) is better}) for better, words_ in groups.items()
    ]
    sure = f"; {results.detectable[0].lower()}{results.detectable[1:].rstrip('.')}" if results.detectable else ""
    return f"On the same users' {metric} it {'; it '.join(part for part in parts if part)}{sure}."


def _group(relation: str, metric: str, members: dict[str, Comparison]) -> str:
    if not members:
        return ""
    by = "difference" if relation.startswith("cannot") else "by"
    return f"{relation} {_and([f'{name} ({by} {_amount(against.differences[metric], by)})' for name, against in members.items()])}"


def _amount(difference: Interval, by: str) -> str:
    """The size of a sure difference; sign and all of one that is not."""
    if by == "by" and difference.mean is not None and difference.low is not None and difference.high is not None:
        ends = sorted((abs(difference.low), abs(difference.high)))
        return f"{figures.decimal(abs(difference.mean))}, interval {figures.decimal(ends[0])} to {figures.decimal(ends[1])}"
    between = figures.span(difference, sign=True)
    return figures.signed(difference.mean) + (f", interval {between}" if between else "")


def cost_of_variety(frontier: Sequence[FrontierPoint], n: str) -> str:
    """The most varied point that keeps 95 % of the recall at the lowest weight; where none does, the most varied of all."""
    points = sorted(
        (
            (point.weight, recall, variety, point.builder)
            for point in frontier
            for recall, variety in [_trade(point, n)]
            if recall is not None and variety is not None
        )
    )
    if len(points) < 2:
        return "What variety costs was not measured"
    _, recall, variety, _ = points[0]
    cheap = [point for point in points[1:] if point[1] >= _KEPT * recall]
    weight, recall_there, variety_there, builder = max(cheap or points[1:], key=lambda point: point[2])
    means = "Weighting categories" if builder == "category_greedy" else f"Building lists by {builder}"
    if variety_there <= variety:
        return f"{means} does not make the lists more varied (diversity@{n} stays at {figures.decimal(variety)})"
    gained = f"moves diversity@{n} from {figures.decimal(variety)} to {figures.decimal(variety_there)}"
    paid = f"recall@{n} from {figures.decimal(recall)} to {figures.decimal(recall_there)}"
    return f"{means} with lambda {weight:g} {gained} and {paid}"


def _trade(point: FrontierPoint, n: str) -> tuple[float | None, float | None]:
    recall, variety = point.metrics.get(f"recall@{n}"), point.metrics.get(f"diversity@{n}")
    return (recall.mean if recall else None), (variety.mean if variety else None)


def interest_state(health: Sequence[HealthFigure]) -> str:
    """Alive when every judged figure keeps its bounds, collapsed when most do not."""
    judged = [figure for figure in health if figure.healthy is not None]
    bad = [figure for figure in judged if not figure.healthy]
    if not judged:
        return "whether the interests are alive was not measured"
    if not bad:
        return f"the interests are alive ({len(judged)} of {len(judged)} judged figures in their good range)"
    state = "collapsed" if 2 * len(bad) > len(judged) else "only partly alive"
    return f"the interests are {state} (out of range: {_and([f'{figure.label} {figures.decimal(figure.value)}' for figure in bad])})"


def _and(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
