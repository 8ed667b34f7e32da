"""An index as one file: what FAISS writes, then a footer with the tombstones. FAISS itself reads the file, too, and sees no footer."""

import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from retrieval.core.errors import IntegrityError, ResourceError
from retrieval.core.resources import as_resource_error
from retrieval.index.faiss.parts import core, fault, reason
from retrieval.index.faiss.tombstones import Tombstones

# Bytes of tombstones, rows, rows when it was built, and a mark that stands last: a file that was cut short has none.
_FOOTER = struct.Struct("<qqq8s")
_MARK = b"ITEMROWS"
_REMEDY = "build the index again"
_HEADS = frozenset(
    b"IxFI IxSQ IxPq IxPT IxRF IxRq IxLS IxPR IxPL IPfs IRfs ILfs IPRf IPLf Ixrq Irfn "
    b"IwFl IwSq IwPQ IwPf IwRQ IwLS IwPR IwPL IVRf IVLf NPRf NPLf Iwrq Iwrn IwP2 IHNf IHNs IHNp IHc2 INSf INSs INSp".split()
)
"""First four bytes of the kinds that can be built here; a parser for anything else is not even entered."""


def write(faiss: Any, index: Any, tombstones: Tombstones, built: int, path: Path) -> None:
    """Write an index on the CPU.

    Raises:
        ResourceError: the disk is full or may not be written.
    """
    buried = tombstones.to_bytes().tobytes()
    try:
        # FAISS's own files are closed without asking whether the last bytes fitted on the disk.
        with path.open("wb") as stream:
            faiss.write_index(index, faiss.PyCallbackIOWriter(stream.write))
            stream.write(buried + _FOOTER.pack(len(buried), int(index.ntotal), built, _MARK))
    except (OSError, RuntimeError) as error:
        raise as_resource_error(error, path) or ResourceError(f"FAISS cannot write: {reason(error)}", where=path) from None


def read(faiss: Any, path: Path, *, mapped: bool) -> tuple[Any, Tombstones, int]:
    """The index, its tombstones and the rows it was built with; the file's bytes were verified before.

    mapped: leave vectors, codes and links in the file, for the system to page in and to share between processes.

    Raises:
        IntegrityError: the file is cut short or no index, or a part of it is of an unknown kind or another metric.
    """
    tombstones, built = _read_footer(path)
    _require_known_head(path)
    # A damaged length must not make FAISS allocate more than the file can hold; compressed codes never expand here.
    faiss.set_deserialization_vector_byte_limit(path.stat().st_size * 8)
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
    except RuntimeError as error:
        raise IntegrityError(f"is no readable FAISS index: {reason(error)}", where=path, remedy=_REMEDY) from None
    wrong = fault(faiss, index) or ("its footer counts other rows" if index.ntotal != len(tombstones.dead) else "")
    if wrong:
        raise IntegrityError(wrong, where=path, expected="an inner-product index of this package", remedy=_REMEDY)
    _read_no_further(faiss, index)
    return index, tombstones, built


def _require_known_head(path: Path) -> None:
    with path.open("rb") as stream:
        head = stream.read(4)
    if head not in _HEADS:
        raise IntegrityError(
            f"is no readable FAISS index: it begins with {head!r}", where=path, expected="a kind built here", remedy=_REMEDY
        )


def _read_footer(path: Path) -> tuple[Tombstones, int]:
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        footer = _bytes_at(stream, size - _FOOTER.size, _FOOTER.size)
        buried, count, built, mark = _FOOTER.unpack(footer) if footer else (0, 0, 0, b"")
        if mark != _MARK or count < 0 or buried not in (0, -(-count // 8)):
            raise IntegrityError("is no readable FAISS index: it does not end as one", where=path, remedy=_REMEDY)
        packed = _bytes_at(stream, size - _FOOTER.size - buried, buried)
    return Tombstones.of_bytes(np.frombuffer(packed, np.uint8), count), built


def _bytes_at(stream: BinaryIO, position: int, size: int) -> bytes:
    if position < 0:
        return b""
    stream.seek(position)
    return stream.read(size)


def _read_no_further(faiss: Any, index: Any) -> None:
    """Lists in a file are read ahead by 32 threads a search, on a pool of their own; the system's own reading ahead is enough."""
    lists = getattr(core(faiss, index), "invlists", None)
    found: Any = None if lists is None else faiss.downcast_InvertedLists(lists)
    if hasattr(found, "prefetch_nthread"):
        found.prefetch_nthread = 0
