"""What nights on several machines have in common through a store: what is published, the model to go on from, and the records of nights."""

import datetime as dt
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from retrieval.core.artifacts import Artifact
from retrieval.core.errors import IntegrityError, RetrievalError, UsageError
from retrieval.core.logging import get_logger
from retrieval.core.objects import ObjectStore
from retrieval.core.publication import Move, Publication, Version
from retrieval.core.shared import SharedPublication
from retrieval.stages.nightly.records import NightRecord, Nights, text_of
from retrieval.stages.nightly.training import last_before
from retrieval.stages.recipe import Recipe

_RECORDS = 50
"""The latest runs, which a workspace takes over: costs to expect, and what to retry."""
log = get_logger("nightly")


class SharedNights:
    """A workspace and the store of its recipe; without `nightly.store` the workspace has nobody to follow.

    Raises:
        UsageError: the recipe's store is none. ResourceError: the library for it is not installed.
    """

    def __init__(self, root: Path, recipe: Recipe) -> None:
        self.publication, self._nights, self._records = Publication(root, recipe.name), Nights(root, recipe.name), f"nights/{recipe.name}"
        url = recipe.nightly.store
        self._there = SharedPublication(ObjectStore(url), root, recipe.name) if url else None
        self._claimed = False

    def follow(self, date: dt.date) -> Exception | None:
        """Bring the workspace to where the store is before a night, or the store to where the workspace is; gives what went wrong."""
        try:
            self.sync()
            self._fetch_start(date)
        except (OSError, RetrievalError) as error:
            return error
        return None

    def sync(self, *, artifacts: bool = True) -> None:
        """The same of what is published, and of records. Raises as `SharedPublication.sync`."""
        if self._there is not None:
            self._there.sync(artifacts=artifacts)
            self._pull_records(self._there.store)

    def ahead(self) -> int:
        """The number of the version that a night would take from the store first, 0 for none. Raises as `SharedPublication.sync`."""
        return self._there.ahead() if self._there else 0

    def pull(self) -> Version:
        """Only from there to here. Raises as `SharedPublication.pull`, and UsageError without a store."""
        there = self._required()
        version = there.pull()
        self._pull_records(there.store)
        return version

    def push(self) -> Version:
        """Only from here to there. Raises as `SharedPublication.push`, and UsageError without a store."""
        there = self._required()
        version = there.push()
        for record in self._nights.all():
            there.store.put(self._name(record), text_of(record).encode(), None)
        return version

    def fetch(self, version: Version) -> None:
        """Bring the artifacts of a version here, where there is a store. Raises as `SharedPublication.fetch`."""
        if self._there is not None:
            self._there.fetch(version)

    def send(self, artifacts: Collection[Artifact]) -> None:
        """Put artifacts into the store, before a version names them."""
        if self._there is not None:
            self._there.send(artifacts)

    def announce(self, version: Version, moves: Sequence[Move | None]) -> None:
        """Move the pointer of the store before that of the workspace. Raises as `SharedPublication.announce`."""
        if self._there is not None:
            self._there.announce(version, moves)

    def claim(self, record: NightRecord) -> bool:
        """Whether no other machine has a run of this name; now it is taken. A store that does not answer is told of elsewhere."""
        if self._there is None:
            return True
        try:
            self._claimed = self._there.store.put(self._name(record), text_of(record).encode(), None)
        except RetrievalError:
            return True
        return self._claimed

    def keep(self, record: NightRecord) -> None:
        """Put the record of a run that ended in place of the one that it began with."""
        if self._there is not None and self._claimed:
            try:
                self._there.store.upload(self._name(record), self._nights.folder / f"{record.run}.json")
            except (OSError, RetrievalError) as error:
                log.warning("the store has no record of the night", error=str(error))

    def _required(self) -> SharedPublication:
        if self._there is None:
            raise UsageError("no store", where="nightly.store", expected="s3://BUCKET/PREFIX, there or as --store")
        return self._there

    def _fetch_start(self, date: dt.date) -> None:
        """The model that a night of this date goes on from, where it is not what is published now: the night is run again."""
        earlier = last_before(self.publication, date)
        if self._there is None or earlier is None or earlier.number == self.publication.pointed():
            return
        try:
            self._there.fetch(earlier, ("model",))
        except IntegrityError as error:
            log.warning("the model of an earlier night cannot be had", error=str(error))

    def _pull_records(self, store: ObjectStore) -> None:
        """Those of runs that are not known here, or had not ended when they were pulled."""
        ended = {record.run for record in self._nights.all() if record.status != "running"}
        late = [found.name for found in store.list(self._records) if found.name.endswith(".json")][-_RECORDS:]
        self._nights.folder.mkdir(parents=True, exist_ok=True)
        for record in self._read(store, [name for name in late if Path(name).stem not in ended]):
            self._nights.write(record)

    def _read(self, store: ObjectStore, names: Sequence[str]) -> Iterator[NightRecord]:
        for name in names:
            try:
                record = NightRecord.model_validate_json((store.read(name) or (b"", ""))[0])
            except ValidationError:
                log.warning("is no record of a run", name=f"{store.url}/{name}")
                continue
            if record.run == Path(name).stem:
                yield record

    def _name(self, record: NightRecord) -> str:
        return f"{self._records}/{record.run}.json"
