"""Write a generated log: streamed, deterministic, whole or not at all."""

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from retrieval.core.artifacts import sha256_of, write_json
from retrieval.core.errors import ConflictError
from retrieval.core.progress import progress
from retrieval.core.resources import as_resource_error, available_threads, require_free_space
from retrieval.core.staging import staging_folder
from retrieval.data.generator.events import ItemDraw, block_events
from retrieval.data.generator.items import PlantedItems, items_frame, plant_items, planted_items_frame, topic_names
from retrieval.data.generator.reuse import RECORD, VERSION, GeneratorRecord, previous
from retrieval.data.generator.settings import GeneratorSettings
from retrieval.data.generator.users import interests_table, plant_users, users_table
from retrieval.data.generator.writer import PartWriter

InT = TypeVar("InT")
OutT = TypeVar("OutT")
_BLOCK_EVENTS = 2**18
_BLOCK_TOPICS = 2**21
_PART_ROWS = 4_000_000
_BYTES_AN_EVENT = 16


@dataclass(frozen=True)
class GeneratorReport:
    """What was generated; `files` are names inside `folder`; `reused` when the same log was there already."""

    folder: Path
    users: int
    items: int
    topics: int
    events: int
    files: list[str]
    reused: bool


@dataclass(frozen=True)
class _Block:
    users: pa.Table
    interests: pa.Table
    events: pa.Table


def generate(settings: GeneratorSettings, folder: Path, *, threads: int | None = None) -> GeneratorReport:
    """Write a log into `folder`, or find the log of the same settings there.

    interactions/part-*.parquet  user_id, item_id int64; timestamp int64 (epoch seconds); kind (view, like, purchase);
                                 a user's events stand together, the file is not sorted by time
    items.parquet                item_id, title, categories list[str] (category, subcategory), price, created_at
    users.parquet                user_id, country, joined_at
    planted_interests.parquet    user_id, interest, topic, category, weight, from_time, until_time
    planted_items.parquet        item_id, topic, category
    generator.json               the settings, the number of events and the sha256 of every file

    Users are made in blocks of a size that the settings decide, each from its own random stream, so that the bytes do
    not depend on `threads` (default: every core) and the memory does not depend on the number of events.

    Raises:
        UsageError: `folder` holds something else. IntegrityError: it holds this log, damaged.
        ResourceError: it cannot be written, or the disk is too small.
        ConflictError: another process filled it meanwhile.
    """
    record = previous(folder, settings)
    if record is not None:
        return _report(settings, folder, record, reused=True)
    with _sibling(folder) as staging:
        record = _write(settings, staging, threads or available_threads())
        write_json(staging / RECORD, record.model_dump(mode="json"))
        _commit(staging, folder)
    return _report(settings, folder, record, reused=False)


def _report(settings: GeneratorSettings, folder: Path, record: GeneratorRecord, *, reused: bool) -> GeneratorReport:
    return GeneratorReport(
        folder=folder,
        users=settings.users,
        items=settings.items,
        topics=settings.catalog.topics,
        events=record.events,
        files=sorted(record.files),
        reused=reused,
    )


@contextlib.contextmanager
def _sibling(folder: Path) -> Iterator[Path]:
    """A new directory beside `folder`, gone when the block ends, however it ends."""
    folder = folder.absolute()
    try:
        with staging_folder(folder.parent, f".{folder.name}", leftovers=f".{folder.name}.") as staging:
            yield staging
    except BaseException as error:
        resource_error = as_resource_error(error, folder)
        if resource_error is not None:
            raise resource_error from error
        raise


def _commit(staging: Path, folder: Path) -> None:
    try:
        staging.rename(folder)
    except OSError as error:
        if not folder.exists():
            raise
        raise ConflictError("was filled by another process", where=folder, remedy="run again to use what it wrote") from error


def _write(settings: GeneratorSettings, staging: Path, threads: int) -> GeneratorRecord:
    require_free_space(staging, round(settings.users * settings.behaviour.events_per_user * _BYTES_AN_EVENT))
    items = plant_items(settings)
    items_frame(settings, items).write_parquet(staging / "items.parquet")
    planted_items_frame(settings, items).write_parquet(staging / "planted_items.parquet")
    files, events = _write_blocks(settings, items, staging, threads)
    names = ["items.parquet", "planted_items.parquet", *files]
    hashes = {name: sha256_of(staging / name) for name in sorted(names)}
    return GeneratorRecord(version=VERSION, settings=settings.model_dump(mode="json"), events=events, files=hashes)


def _write_blocks(settings: GeneratorSettings, items: PlantedItems, staging: Path, threads: int) -> tuple[list[str], int]:
    """Make and write every block of users; returns the files' names and the number of events."""
    users, interests = PartWriter(staging, "users"), PartWriter(staging, "planted_interests")
    events = PartWriter(staging, "interactions/part", _PART_ROWS)
    make = _block_maker(settings, items)
    with ThreadPoolExecutor(threads) as pool, users, interests, events, progress("generate", settings.users) as shown:
        for block in _in_order(pool, make, range(-(-settings.users // _block_size(settings))), ahead=threads):
            users.write(block.users)
            interests.write(block.interests)
            events.write(block.events)
            shown.advance(block.users.num_rows, f"{events.rows} events")
    return [*users.files, *interests.files, *events.files], events.rows


def _block_size(settings: GeneratorSettings) -> int:
    """Users a block: from the settings alone, since the random streams are counted by block."""
    by_events = _BLOCK_EVENTS / settings.behaviour.events_per_user
    return max(1, int(min(by_events, _BLOCK_TOPICS / settings.catalog.topics)))


def _block_maker(settings: GeneratorSettings, items: PlantedItems) -> Callable[[int], _Block]:
    draw, size, names = ItemDraw(items), _block_size(settings), topic_names(settings.catalog)[1]

    def make(block: int) -> _Block:
        first = block * size
        users = plant_users(settings, items.topic_weight, block, first, min(size, settings.users - first))
        return _Block(
            users_table(settings, users, block), interests_table(settings, users, names), block_events(settings, users, draw, block)
        )

    return make


def _in_order(pool: ThreadPoolExecutor, work: Callable[[InT], OutT], inputs: Iterable[InT], *, ahead: int) -> Iterator[OutT]:
    """Results in the order of the inputs, with at most `ahead` + 1 of them in memory (Executor.map would hold them all)."""
    waiting: deque[Future[OutT]] = deque()
    for value in inputs:
        waiting.append(pool.submit(work, value))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
