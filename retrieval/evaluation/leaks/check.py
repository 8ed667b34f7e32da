"""The leak checker: whether anything that had to stay hidden reached training, histories, popularity, fields or lists."""

from collections.abc import Sequence

from retrieval.evaluation.leaks.abstract import AbstractCheck, Chunk
from retrieval.evaluation.leaks.events import Moments, Retimed, Targets, Units
from retrieval.evaluation.leaks.evidence import Evidence
from retrieval.evaluation.leaks.fields import Fields
from retrieval.evaluation.leaks.findings import KINDS, LeakReport, Status
from retrieval.evaluation.leaks.items import Candidates, KnownItems, PopularityCounts

CHECKS: tuple[type[AbstractCheck], ...] = (Targets, Moments, Retimed, Units, PopularityCounts, KnownItems, Candidates, Fields)
OF_A_MODEL: tuple[type[AbstractCheck], ...] = (PopularityCounts, Candidates)
"""What may differ between two models of one dataset."""


def check_leaks(evidence: Evidence, kinds: Sequence[type[AbstractCheck]] = CHECKS) -> LeakReport:
    """Look for every kind of leak that the evidence allows to look for.

    The events are passed over in chunks of some millions, so that memory does not grow with the log; a few numbers an item
    are held whole. Time is linear in events, besides sorting the targets of a chunk.
    """
    checks = [check(evidence) for check in kinds]
    passes = any(check.look is not AbstractCheck.look for check in kinds)
    for users in evidence.chunks() if passes else ():
        chunk = Chunk(evidence, users)
        for check in checks:
            check.look(chunk)
    findings = [finding for check in checks for finding in check.findings()]
    found = {finding.kind for finding in findings}
    by_kind = {kind: check for check in checks for kind in check.kinds}
    checked = {kind: "leak" if kind in found else _status(by_kind.get(kind), kind) for kind in KINDS}
    order = list(KINDS)
    return LeakReport(
        findings=tuple(sorted(findings, key=lambda finding: order.index(finding.kind))),
        checked=checked,
        remarks=tuple(remark for check in checks for remark in check.remarks()),
    )


def _status(check: AbstractCheck | None, kind: str) -> Status:
    if check is None or not check.applies(kind):
        return "not applicable"
    return "cannot be told" if check.untold(kind) else "clean"
