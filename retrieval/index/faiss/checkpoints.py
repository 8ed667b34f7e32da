"""What a build has done already, kept in a folder: a build that was killed goes on from there to the same bytes.

The steps that take long are kept: what was trained, the list of every row, block by block, and a graph as far as it is linked.
Codes are not: writing them takes little more than reading them back. Blocks are merged by row number, never by FAISS, whose
`merge_from` can mix up ids without a word (faiss#3651), so several processes may work on the blocks of one folder.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Int32

from retrieval.core.artifacts import sha256_of

_TRAINED = "trained.faiss"
_DIGEST = 32


class Checkpoints:
    """Files of a folder, each there whole or not at all; without a folder nothing is kept.

    The folder belongs to one build: the same vectors and settings.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    def trained(self, faiss: Any, train: Callable[[], Any]) -> Any:
        """The trained and empty index: read, or trained now and kept."""
        found = self._read(faiss, _TRAINED)
        if found is not None:
            return found
        index = train()
        self._write(_TRAINED, _index_writer(faiss, index))
        return index

    def lists(self, first: int, assign: Callable[[], Int32[np.ndarray, "m"]]) -> Int32[np.ndarray, "m"]:
        """The lists of the rows of the block that begins at `first`: read, or assigned now and kept."""
        path = self._intact(f"lists-{first:012d}.int32")
        if path is not None:
            return np.fromfile(path, np.int32, count=(path.stat().st_size - _DIGEST) // 4)
        lists = assign()
        self._write(f"lists-{first:012d}.int32", lambda stream: stream.write(lists.tobytes()))
        return lists

    def graph(self, faiss: Any) -> Any:
        """The graph as far as it is linked, None where nothing is."""
        kept = self._graphs()
        return self._read(faiss, kept[-1].name) if kept else None

    def keep_graph(self, faiss: Any, index: Any) -> None:
        """Keep a graph in place of a smaller one."""
        before = self._graphs()
        self._write(f"graph-{index.ntotal:012d}.faiss", _index_writer(faiss, index))
        for path in before:
            path.unlink(missing_ok=True)

    def _graphs(self) -> list[Path]:
        return sorted(self._folder.glob("graph-*.faiss")) if self._folder else []

    def _path(self, name: str) -> Path | None:
        return self._folder / name if self._folder else None

    def _read(self, faiss: Any, name: str) -> Any:
        path = self._intact(name)
        return faiss.read_index(str(path)) if path else None

    def _intact(self, name: str) -> Path | None:
        """A file that is what was written; one that is not is made again."""
        path = self._path(name)
        if path is None or not path.is_file():
            return None
        with path.open("rb") as stream:
            return path if _sealed(stream) else None

    def _write(self, name: str, write: Callable[[BinaryIO], object]) -> None:
        path = self._path(name)
        if path is None:
            return
        # Several processes may write the same block.
        staged = path.with_name(f".{name}.{os.getpid()}")
        try:
            with staged.open("wb") as stream:
                write(stream)
                stream.flush()
                stream.write(bytes.fromhex(sha256_of(staged)))
                stream.flush()
                os.fsync(stream.fileno())
            staged.replace(path)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise


def _sealed(stream: BinaryIO) -> bool:
    """Whether a file ends with the sha256 of what stands before; FAISS reads no further than its index."""
    size = stream.seek(0, os.SEEK_END) - _DIGEST
    stream.seek(0)
    digest = hashlib.sha256()
    while size > 0 and (chunk := stream.read(min(size, 1 << 20))):
        digest.update(chunk)
        size -= len(chunk)
    return stream.read() == digest.digest()


def _index_writer(faiss: Any, index: Any) -> Callable[[BinaryIO], object]:
    # FAISS's own files are closed without asking whether the last bytes fitted on the disk.
    return lambda stream: faiss.write_index(index, faiss.PyCallbackIOWriter(stream.write))
