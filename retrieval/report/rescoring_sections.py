"""Re-scoring: what the second order of the candidates brings, and what it costs."""

from collections.abc import Iterator

from retrieval.evaluation.rescoring import AT, RescoringGain
from retrieval.report import figures
from retrieval.report.content import ReportContent, RescoringSummary
from retrieval.report.tables import Cell, Rows, Section, Table, difference, measured, table


def rescoring(content: ReportContent) -> Section:
    """The re-scored order of the candidates beside that of recall."""
    found = content.rescoring
    tables = () if found.gain is None else (_orders(found.gain),)
    reading = (
        "The same recalled candidates of the same users in two orders, before lists are built of them: by the largest score over a user's "
        "interests, and by the re-scorer. A re-scorer should stay only where its gain is sure and worth its time."
    )
    note = "Nothing is re-scored: candidates keep the order of recall." if not found.name else "" if tables else "It was not measured."
    return Section("rescoring", "Re-scoring", reading, note, (), tables, tuple(_findings(found)))


def _orders(gain: RescoringGain) -> Table:
    """What decides first, then the cut-off that all re-scorers are compared at."""
    names = [name for name in dict.fromkeys([gain.primary, f"recall@{AT}", f"ndcg@{AT}"]) if name in gain.rescored]
    changes = gain.comparison
    rows: Rows = [
        [
            name,
            measured(gain.recalled.get(name), name),
            measured(gain.rescored.get(name), name),
            difference(changes.differences.get(name), name, changes.higher(name)),
        ]
        for name in names
    ]
    if gain.cost is not None:
        times = (gain.cost.recall, gain.cost.recall + gain.cost.rescoring, gain.cost.rescoring)
        label = Cell("ms a user", f"of processor time, {figures.count(gain.cost.users)} users")
        rows.append([label, *(figures.decimal(each, 2) for each in times)])
    caption = f"Two orders of the same candidates, of {figures.count(changes.users)} users"
    return table(caption, ["metric", "order of recall", "re-scored", "difference"], rows)


def _findings(found: RescoringSummary) -> Iterator[str]:
    if found.gain is not None:
        yield found.gain.verdict()
    if found.watched_rescored is None or found.watched_recalled is None:
        return
    users = f"the {figures.count(found.watched)} validation users on whom training was watched"
    reached = f"{found.metric} {figures.decimal(found.watched_rescored)}, the order of recall has {figures.decimal(found.watched_recalled)}"
    better = found.watched_rescored > found.watched_recalled
    yield f"On {users} {figures.text(found.name)} reached {reached}" + (
        "." if better else ": training found nothing better than to leave it as it was."
    )
