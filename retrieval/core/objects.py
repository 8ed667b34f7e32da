"""Objects in an s3-compatible store: read, found, listed, fetched in pieces, put whole or not at all, and put under a condition."""

import contextlib
import errno
import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module, util
from pathlib import Path
from typing import Any

from retrieval.core.errors import ResourceError, UsageError

SCHEME = "s3://"
_LANES, _PIECE = 4, 16 << 20
"""Pieces of an object that are under way at once, and their bytes: one that is lost is asked for again, not the whole."""
_CODE = re.compile(r"<Code>(\w+)</Code>")


@dataclass(frozen=True)
class Found:
    """An object of a store: its name, its bytes, and the tag that it keeps as long as nobody puts another one in its place."""

    name: str
    size: int
    tag: str


class ObjectStore:
    """Objects under a URL such as s3://bucket/prefix; credentials and the endpoint come from the environment (AWS_*)."""

    def __init__(self, url: str) -> None:
        if not url.startswith(SCHEME) or not url.removeprefix(SCHEME).strip("/"):
            raise UsageError("is no store", where=url, expected=f"{SCHEME}BUCKET/PREFIX")
        if "@" in url.removeprefix(SCHEME).partition("/")[0]:
            raise UsageError(
                "holds a user name", where=url, expected="credentials in AWS_* of the environment", remedy="take it out of the URL"
            )
        if util.find_spec("obstore") is None:
            raise ResourceError("obstore is not installed", where=url, remedy="pip install 'multi-interest-retrieval[s3]'")
        self.url, self._library = url.rstrip("/"), import_module("obstore")
        self._errors = import_module("obstore.exceptions")
        with self._reported(""):
            self._store = import_module("obstore.store").from_url(self.url, retry_config={"max_retries": 3})

    def read(self, name: str) -> tuple[bytes, str] | None:
        """An object's bytes and its tag; None where there is none."""
        with self._reported(name), contextlib.suppress(FileNotFoundError):
            found = self._library.get(self._store, name)
            return bytes(found.bytes()), str(found.meta["e_tag"])
        return None

    def find(self, name: str) -> Found | None:
        """What there is under a name; None where there is nothing."""
        with self._reported(name), contextlib.suppress(FileNotFoundError):
            return _found(self._library.head(self._store, name))
        return None

    def list(self, folder: str) -> list[Found]:
        """All objects whose names begin with `folder` and a slash, in order of name."""
        with self._reported(folder):
            pages = self._library.list(self._store, prefix=folder or None)
            return sorted((_found(each) for page in pages for each in page), key=lambda found: found.name)

    def download(self, found: Found, target: Path) -> None:
        """Write an object to a file, several pieces at once; held in memory: a piece for each that is under way.

        Raises:
            ResourceError: it is no longer the one that was found, or the store does not answer.
        """

        def piece(start: int) -> None:
            stop = min(start + _PIECE, found.size)
            asked = self._library.get(self._store, found.name, options={"range": (start, stop), "if_match": found.tag})
            content = asked.bytes()
            if len(content) != stop - start or os.pwrite(stream.fileno(), content, start) != stop - start:
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(target))

        with self._reported(found.name), target.open("wb") as stream, ThreadPoolExecutor(_LANES) as lanes:
            for _ in lanes.map(piece, range(0, found.size, _PIECE)):
                pass

    def upload(self, name: str, source: Path) -> None:
        """Put a file; a large one in parts, which become an object once all are there."""
        with self._reported(name):
            self._library.put(self._store, name, source)

    def put(self, name: str, content: bytes, tag: str | None) -> bool:
        """Put an object if it is still the one with this tag, or none for None; False where it is not."""
        with self._reported(name):
            try:
                self._library.put(self._store, name, content, mode={"e_tag": tag} if tag else "create")
            except (self._errors.AlreadyExistsError, self._errors.PreconditionError):
                return False
        return True

    @contextlib.contextmanager
    def _reported(self, name: str) -> Iterator[None]:
        where = f"{self.url}/{name}" if name else self.url
        try:
            yield
        except self._errors.PreconditionError:
            raise ResourceError("was replaced while it was read", where=where, remedy="run again") from None
        except (self._errors.BaseError, FileNotFoundError, ValueError) as error:
            raise ResourceError(_said(error), where=where, remedy="check AWS_* in the environment, and the bucket") from None


def _found(meta: Mapping[str, Any]) -> Found:
    return Found(str(meta["path"]), int(meta["size"]), str(meta["e_tag"]))


def _said(error: Exception) -> str:
    """What a store answered, or that it did not: the library tells it in XML and a page of its own."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    first, code = lines[0].partition(": <?xml")[0], _CODE.search(str(error))
    return f"{first} ({code[1]})" if code else first
