"""The objects behind a path of the recipe that begins with s3://: one, a folder of them, or a glob, named as files of a folder would be."""

import glob
from dataclasses import dataclass
from pathlib import PurePosixPath

from retrieval.core.errors import UsageError
from retrieval.core.objects import SCHEME, Found, ObjectStore
from retrieval.data.files import is_input, matches


@dataclass(frozen=True)
class RemoteSource:
    """A source in an object store. `objects`: by their names relative to `root`; `single`: the path names one of them, and no folder."""

    store: ObjectStore
    root: str
    objects: dict[str, Found]
    single: bool

    @property
    def url(self) -> str:
        """Where names begin."""
        return f"{self.store.url}/{self.root}".rstrip("/")


def find_objects(url: str, setting: str) -> RemoteSource:
    """What a store holds now under a URL; hidden and underscore names are left out.

    Args:
        url: s3://BUCKET/KEY of an object, a folder or a glob.
        setting: the recipe's name for it, for the message.

    Raises:
        UsageError: nothing is there, or it is neither parquet nor CSV. ResourceError: the store does not answer, or not to us.
    """
    bucket, _, key = url.removeprefix(SCHEME).partition("/")
    store, parts = ObjectStore(SCHEME + bucket), PurePosixPath(key.strip("/")).parts
    fixed = next((place for place, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    root, pattern = PurePosixPath(*parts[:fixed]), parts[fixed:]
    one = store.find(str(root)) if parts and not pattern else None
    if one is not None:
        source = RemoteSource(store, str(root.parent).removeprefix("."), {root.name: one}, single=True)
    else:
        folder = str(root).removeprefix(".")
        names = {found.name.removeprefix(f"{folder}/"): found for found in store.list(folder)}
        source = RemoteSource(store, folder, names, single=False)
    wanted = {name: found for name, found in source.objects.items() if is_input(name) and matches(PurePosixPath(name).parts, pattern)}
    if not wanted:
        what = "holds no parquet or CSV object" if source.objects else "no such object or folder"
        raise UsageError(what, where=url, expected="a .parquet or .csv object, a folder of them, or a glob", remedy=f"check {setting}")
    return RemoteSource(source.store, source.root, wanted, source.single)
