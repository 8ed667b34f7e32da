"""Fields: how they changed after training, and what gates let through of them."""

from retrieval.report import figures
from retrieval.report.content import FieldsSummary, ReportContent
from retrieval.report.tables import Section, Table, table


def fields(content: ReportContent) -> Section:
    """What models read besides ids."""
    found = content.fields
    tables = (*((_drift(found),) if found.drift else ()), *((_gates(found),) if found.gates else ()))
    reading = (
        "A field helps as long as it looks as it did in training: unknown values teach nothing, and a distance near 1 means other values "
        "altogether. Unknown are shares of events, of a field of several names shares of those names; the distance of a vector is the "
        "shift of its mean in deviations, and may exceed 1. A gate of 1 lets a field through as it is, 0 shuts it."
    )
    return Section("fields", "Fields and gates", reading, "" if tables else "No field is declared.", (), tables)


def _drift(found: FieldsSummary) -> Table:
    columns = ["field", "kind", "unknown in training", "unknown later", "distance from training to test"]
    rows = [
        [
            figures.text(f"{one.side}: {one.field}"),
            figures.text(one.kind),
            figures.decimal(one.unknown_in_training),
            figures.decimal(one.unknown_later),
            figures.decimal(one.distance),
        ]
        for one in found.drift
    ]
    return table("Fields, and how they drift", columns, rows, texts=(0, 1))


def _gates(found: FieldsSummary) -> Table:
    """A column a slice of users."""
    slices = list(dict.fromkeys(name for one in found.gates for name in one.means))
    rows = [[figures.text(f"{one.tower}: {one.field}"), *(figures.decimal(one.means.get(name)) for name in slices)] for one in found.gates]
    return table("Mean gates, by users' events", ["field", *slices], rows)
