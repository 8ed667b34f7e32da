"""Writing that survives a power cut: when a call returns, what it wrote is there, under its name."""

import os
from pathlib import Path

from retrieval.core.secrets import redacted


def write_text_durably(path: Path, text: str) -> None:
    """Write text, without secrets, so that it survives a power cut once this returns."""
    write_durably(path, redacted(text))


def write_durably(path: Path, text: str) -> None:
    """The same for a text in which no secret can be, such as JSON of values that were freed of them."""
    with path.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def replace_text(path: Path, text: str) -> None:
    """Put a file in place of another whole: whoever reads it, whenever the writer is killed, finds the old one or the new.

    No secret can be in the text: it is of values that were freed of them, or went through `redacted`.
    """
    staged = path.with_name(f".{path.name}.part")
    write_durably(staged, text)
    staged.replace(path)
    sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, as far as they are not there."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """The same of all folders in a folder, and of itself; its files are on the disk already."""
    for path in folder.rglob("*"):
        if path.is_dir():
            sync_folder(path)
    sync_folder(folder)
