"""Gates: a measured figure, what was asked of it, and whether it held. Plain values in, plain values out."""

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import polars as pl

from retrieval.core.errors import QualityGateError, UsageError
from retrieval.core.locks import user_name
from retrieval.core.settings import Settings, did_you_mean
from retrieval.evaluation.comparison import Comparison
from retrieval.evaluation.health import InterestHealth
from retrieval.stages.nightly.day import DayProfile, drift
from retrieval.stages.nightly.past import Past
from retrieval.stages.nightly.settings import DataGates, ListGates, ModelGates

Outcome = Literal["held", "failed", "overridden", "not judged"]
GATES = (
    "published",
    "date",
    "rollback",
    "volume",
    "drift",
    "bad",
    "ids",
    "ann",
    "leaks",
    "recall",
    "primary",
    "interests",
    "coverage",
    "overlap",
    "empty",
    "short",
    "latency",
)


class Gate(Settings):
    """One gate of one night. `found` and `asked` are for a person; `value` is None where there was nothing to judge."""

    name: str
    outcome: Outcome
    value: float | None
    found: str
    asked: str
    why: str = ""
    who: str = ""
    at: str = ""
    """Of an override: for which reason, by whom and when."""


def judged(name: str, value: float | None, asked: str, *, held: bool, found: str = "") -> Gate:
    """A gate whose figure is known."""
    return Gate(name=name, outcome="held" if held else "failed", value=value, found=found or f"{value:.4g}", asked=asked)


def not_judged(name: str, reason: str) -> Gate:
    """A gate with nothing to judge, and why."""
    return Gate(name=name, outcome="not judged", value=None, found=reason, asked="")


def date_gate(night: dt.date, published: str) -> Gate:
    """The night must not be older than what is published."""
    if not published:
        return not_judged("date", "nothing is published")
    return judged("date", None, f"not before {published}, which is published", held=night.isoformat() >= published, found=night.isoformat())


def published_gate(damage: str) -> Gate:
    """What is published must be whole to be compared with; `damage`: what is wrong with it."""
    return judged("published", None, "something whole to compare with", held=False, found=damage)


def rollback_gate(version: int) -> Gate:
    """A day whose version somebody took back is not published again by a timer; `version`: its number, 0 for none."""
    found = f"version {version} was rolled back" if version else "no"
    return judged("rollback", None, "not a day that was taken back", held=not version, found=found)


def volume_gate(settings: DataGates, night: DayProfile, past: Past) -> Gate:
    """Events of the day against those of a usual one; where none is known, only that there are some."""
    if not past.volume:
        return judged("volume", night.events, "at least one event", held=night.events > 0, found=f"{night.events} events")
    (least, most), ratio = settings.volume, night.events / past.volume
    found = f"{ratio:.2f} x ({night.events} events, {past.volume:.0f} usually)"
    return judged("volume", ratio, f"{least:g} to {most:g} x", held=least <= ratio <= most, found=found)


def drift_gate(settings: DataGates, night: DayProfile, good: DayProfile | None) -> Gate:
    """How the day's events are spread, against the last good day's."""
    if good is None or good.events == 0:
        return not_judged("drift", "no earlier day is published")
    drifts = {name: drift(counts, good.counts[name]) for name, counts in night.counts.items() if name in good.counts}
    if not drifts:
        return not_judged("drift", "the days have nothing in common that could be compared")
    worst = max(drifts, key=lambda name: drifts[name])
    held, found = drifts[worst] <= settings.max_drift, f"{drifts[worst]:.3f} bits from {good.day}, by {worst}"
    return judged("drift", drifts[worst], f"at most {settings.max_drift:g} bits", held=held, found=found)


def bad_gate(settings: DataGates, night: DayProfile, past: Past, new_rows: int, contract: float) -> Gate:
    """Rows in quarantine that were not there when the last version was made, among about `new_rows` of the log.

    contract: its own threshold, which is a share of the whole log, in which one broken day is little; no fewer are allowed here.
    """
    if not past.read:
        return not_judged("bad", "no earlier day is published")
    more = {rule: count - past.quarantined.get(rule, 0) for rule, count in night.quarantined.items()}
    bad = {rule: count for rule, count in more.items() if count > 0}
    share, rules = sum(bad.values()) / max(new_rows, 1), ", ".join(f"{rule} {count}" for rule, count in bad.items())
    found = f"{share:.2%} of {new_rows} rows since {past.read}{f' ({rules})' if rules else ''}"
    most = max(settings.max_bad, contract)
    return judged("bad", share, f"at most {most:.2%} in quarantine", held=share <= most, found=found)


def ids_gate(settings: DataGates, now: Mapping[str, pl.Series], before: Mapping[str, pl.Series]) -> Gate:
    """Whether the ids of users and items are those that readers know; by name the night's, and those of what is published."""
    if not before:
        return not_judged("ids", "nothing is published")
    kept = {name: _kept(now[name], before[name]) for name in before}
    strange = {name: f" ({now[name].dtype} ids, were {before[name].dtype})" for name in before if now[name].dtype != before[name].dtype}
    found, least = ", ".join(f"{share:.1%} of {name}{strange.get(name, '')}" for name, share in kept.items()), min(kept.values())
    return judged("ids", least, f"at least {settings.min_kept:.1%} of the published", held=least >= settings.min_kept, found=found)


def _kept(now: pl.Series, before: pl.Series) -> float:
    same = now.dtype == before.dtype and len(before) > 0
    return float(before.is_in(now.implode()).mean() or 0.0) if same else 0.0  # type: ignore[arg-type]


def ann_gate(settings: ModelGates, index: Mapping[str, Any]) -> Gate:
    """The index against exact search, as `build-index` measured it."""
    found = float(index["gate"]["recall"])
    return judged("ann", found, f"at least {settings.min_ann_recall:g} of the exact lists", held=found >= settings.min_ann_recall)


def leaks_gate(kinds: int, verdict: str) -> Gate:
    """Whether the leak checker found nothing: figures that rest on a leak would open every other gate."""
    return judged("leaks", kinds, "no kind of leak", held=kinds == 0, found=verdict)


def recall_gate(settings: ModelGates, metric: str, before: float | None, against: Comparison | None, reason: str) -> Gate:
    """The primary metric against the published model's, paired; it fails where more than `max_loss` of it is surely lost.

    before: the published model's mean over the users of the comparison. Users too few or too different to show a loss of
    `visible_loss` judge nothing: their interval reaches beyond any bound.
    """
    difference = against.differences.get(metric) if against else None
    if against is None or difference is None or difference.mean is None or difference.high is None or before is None:
        return not_judged("recall", reason or f"nobody has a value of {metric}")
    found = f"{metric} {difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}] on {against.users} users, {before:.4f} before"
    held, visible = difference.high >= -settings.max_loss * before, against.detectable.get(metric, math.inf)
    if held and visible > max(settings.visible_loss, settings.max_loss) * before:
        return not_judged("recall", f"{found}: they show a loss only from {visible:.4f} on")
    return judged("recall", difference.mean, f"surely no more than {settings.max_loss:.2%} lost", held=held, found=found)


def primary_gate(settings: ModelGates, metric: str, mean: float | None, usual: float | None) -> Gate:
    """The primary metric's least value: the recipe's, and a share of what good nights before reached, whatever each of them lost."""
    least = max(settings.min_primary, (1.0 - settings.max_decline) * (usual or 0.0))
    if mean is None:
        return judged("primary", None, f"a value of {metric}", held=False, found="none")
    found = f"{mean:.4g}{f', {usual:.4g} usually' if usual is not None else ''}"
    return judged("primary", mean, f"{metric} of at least {least:.4g}", held=mean >= least, found=found)


def interests_gate(settings: ModelGates, health: InterestHealth) -> Gate:
    """Whether the interests of a user still differ and most of them serve somebody; one figure out of bounds fails it."""
    if health.pairwise_cosine is None:
        return not_judged("interests", "no user has two of them")
    figures = [
        ("cosine", health.pairwise_cosine, health.pairwise_cosine <= settings.max_cosine),
        ("effective rank", health.effective_rank, health.effective_rank >= settings.min_effective_rank),
        ("dead", health.dead_interests or 0.0, (health.dead_interests or 0.0) <= settings.max_dead),
    ]
    asked = f"cosine to {settings.max_cosine:g}, rank from {settings.min_effective_rank:g}, dead to {settings.max_dead:g}"
    found = ", ".join(f"{name} {value:.2f}" for name, value, _ in figures)
    return judged("interests", health.pairwise_cosine, asked, held=all(good for _, _, good in figures), found=found)


def coverage_gate(settings: ListGates, night: float | None, published: float | None) -> Gate:
    """How much of the catalog is in anybody's list, against the published model's lists for the same users."""
    if night is None or not published:
        return not_judged("coverage", "nothing to compare with")
    ratio = night / published
    found = f"{ratio:.2f} x ({night:.3f}, {published:.3f} before)"
    return judged("coverage", ratio, f"at least {settings.min_coverage:g} x", held=ratio >= settings.min_coverage, found=found)


def overlap_gate(settings: ListGates, shares: Sequence[float] | None) -> Gate:
    """How much of a list stood in the same user's list before, of users who have both; `shares` is None where nothing is published."""
    if shares is None:
        return not_judged("overlap", "nothing is published")
    (least, most), mean = settings.overlap, float(np.mean(shares)) if len(shares) else 0.0
    held, found = len(shares) > 0 and least <= mean <= most, f"{mean:.4g} of a list, of {len(shares)} users with a list before"
    return judged("overlap", mean, f"{least:g} to {most:g} of a list", held=held, found=found)


def length_gates(settings: ListGates, lists: Mapping[str, Any]) -> list[Gate]:
    """Users without a list, and with one that is too short, from the summary of candidates."""
    users = max(1, int(lists["users"]))
    empty, short = (users - int(lists["users_with_a_list"])) / users, int(lists["lists_shorter_than_n"]) / users
    return [
        judged("empty", empty, f"at most {settings.max_empty:.1%} of users", held=empty <= settings.max_empty, found=f"{empty:.2%}"),
        judged("short", short, f"at most {settings.max_short:.1%} of users", held=short <= settings.max_short, found=f"{short:.2%}"),
    ]


def latency_gate(settings: ListGates, night: float | None, published: float | None) -> Gate:
    """Seconds that 95 of 100 single users wait for their search, of itself and against the published index; None: nobody can search."""
    if night is None:
        return judged("latency", None, "users with an interest to search for", held=False, found="none")
    bounds = [settings.max_wait] if settings.max_wait else []
    bounds += [settings.max_slowdown * published] if published else []
    if not bounds:
        return not_judged("latency", f"{1e3 * night:.2f} ms, nothing to compare with")
    before = f", {1e3 * published:.2f} ms before" if published else ""
    asked = f"at most {1e3 * min(bounds):.2f} ms"
    return judged("latency", night, asked, held=night <= min(bounds), found=f"{1e3 * night:.2f} ms{before}")


def parse_overrides(texts: Sequence[str]) -> dict[str, str]:
    """Gate -> reason of `GATE=WHY` texts.

    Raises:
        UsageError: there is no such gate, or no reason is given.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, _, why = (part.strip() for part in text.partition("="))
        if name not in GATES:
            raise UsageError(f"there is no gate '{name}'{did_you_mean(name, GATES)}", where="--override")
        if not why:
            raise UsageError(f"nobody will know why '{name}' was overridden", where="--override", expected=f"{name}=REASON")
        found[name] = why
    return found


def overridden(gates: Sequence[Gate], overrides: Mapping[str, str]) -> list[Gate]:
    """The gates, failed ones marked as overridden where somebody said so, with who, why and when."""
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")

    def said(gate: Gate) -> Gate:
        if gate.outcome != "failed" or gate.name not in overrides:
            return gate
        return gate.model_copy(update={"outcome": "overridden", "why": overrides[gate.name], "who": user_name(), "at": now})

    return [said(gate) for gate in gates]


def require_held(gates: Sequence[Gate], where: object) -> None:
    """Raise QualityGateError when a gate failed and nobody overrode it."""
    failed = [gate for gate in gates if gate.outcome == "failed"]
    if failed:
        first, more = failed[0], f"; {', '.join(gate.name for gate in failed[1:])} failed, too" if failed[1:] else ""
        raise QualityGateError(
            f"gate {first.name}: {first.found}{more}",
            where=where,
            expected=first.asked,
            remedy=f"what was published stays; look into it, or: retrieval retry RECIPE --override '{first.name}=WHY'",
        )
