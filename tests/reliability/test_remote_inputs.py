"""A log in an s3-compatible store: read as if it lay on this disk, fetched once, and refused in one line where it cannot be had."""

import os
from pathlib import Path

import polars as pl
import pytest

from retrieval.core.artifacts import Workspace
from retrieval.core.errors import IntegrityError, ResourceError, UsageError
from retrieval.core.objects import Found, ObjectStore
from retrieval.data.files import find_inputs, input_fingerprint
from retrieval.data.settings import DataSettings
from retrieval.stages.ensure import Stages
from retrieval.stages.fetch import fetch

NAMES = (
    "log/day=1/a.parquet",
    "log/day=2/b.parquet",
    "log/day=2/deep/c.csv",
    "log/_tmp/d.parquet",
    "log/read.me",
    "logs/e.parquet",
    "one.csv",
)


def frame(name: str) -> pl.DataFrame:
    return pl.DataFrame({"user_id": [name, "u"], "item_id": ["a", "b"], "timestamp": [1, 2]})


def write(folder: Path, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    frame(name).write_parquet(path) if path.suffix == ".parquet" else frame(name).write_csv(path)
    return path


def put(bucket: str, path: Path, name: str) -> None:
    store = ObjectStore(bucket)
    store.upload(name, path)


@pytest.fixture
def both(bucket: str, tmp_path: Path) -> tuple[str, Path]:
    """The same files in a bucket and in a folder."""
    for name in NAMES:
        put(bucket, write(tmp_path / "here", name), name)
    return bucket, tmp_path / "here"


def data(path: str, items: str = "") -> DataSettings:
    return DataSettings.model_validate({"name": "x", "interactions": {"path": path}, "items": {"path": items}})


def stages(tmp_path: Path) -> Stages:
    return Stages(Workspace(tmp_path / "workspace"))


PATHS = (
    "log",
    "log/",
    "log/day=1/a.parquet",
    "one.csv",
    "log/day=*",
    "log/*/*.parquet",
    "log/**/*.csv",
    "log/**",
    "lo*",
    "log/day=[2-9]/?.parquet",
)


@pytest.mark.parametrize("path", PATHS)
def test_a_url_names_what_the_path_names_on_a_disk(both: tuple[str, Path], tmp_path: Path, path: str) -> None:
    bucket, folder = both
    fetched = fetch(data(f"{bucket}/{path}"), stages(tmp_path))
    here, there = (find_inputs(place, "x") for place in (str(folder / path), fetched.interactions.path))
    assert [(file.name, file.format, file.partitions) for file in there] == [(file.name, file.format, file.partitions) for file in here]
    assert input_fingerprint(fetched) == input_fingerprint(data(str(folder / path)))


def test_what_has_not_changed_is_not_fetched_twice(both: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket, _ = both
    asked, download = [], ObjectStore.download
    monkeypatch.setattr(ObjectStore, "download", lambda self, found, target: (asked.append(found.name), download(self, found, target))[1])
    settings = data(f"{bucket}/log", f"{bucket}/one.csv")
    first = input_fingerprint(fetch(settings, stages(tmp_path)))
    assert sorted(asked) == ["log/day=1/a.parquet", "log/day=2/b.parquet", "log/day=2/deep/c.csv", "one.csv"]
    asked.clear()
    assert input_fingerprint(fetch(settings, stages(tmp_path))) == first
    assert asked == []
    # One object is another, one is new: the others are links to what is here.
    put(bucket, write(tmp_path, "changed.parquet"), "log/day=1/a.parquet")
    put(bucket, write(tmp_path, "new.parquet"), "log/day=3/new.parquet")
    second = input_fingerprint(fetch(settings, stages(tmp_path)))
    assert sorted(asked) == ["log/day=1/a.parquet", "log/day=3/new.parquet"]
    assert first != second
    assert first["interactions/day=2/b.parquet"] == second["interactions/day=2/b.parquet"]
    # What was kept is checked before it is taken: a damaged file is fetched again.
    kept = max(Workspace(tmp_path / "workspace").list("inputs"), key=lambda path: len(list(path.rglob("*.parquet"))))
    (kept / "objects/day=2/b.parquet").write_bytes(b"x")
    put(bucket, write(tmp_path, "again.parquet"), "log/day=3/new.parquet")
    asked.clear()
    assert input_fingerprint(fetch(settings, stages(tmp_path)))["interactions/day=2/b.parquet"] == first["interactions/day=2/b.parquet"]
    assert sorted(asked) == ["log/day=2/b.parquet", "log/day=3/new.parquet"]


def test_a_fetch_that_died_goes_on_with_the_object_it_died_in(
    both: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket, folder = both
    asked, download = [], ObjectStore.download

    def dying(self: ObjectStore, found: Found, target: Path) -> None:
        asked.append(found.name)
        download(self, found, target)
        if len(asked) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ObjectStore, "download", dying)
        fetch(data(f"{bucket}/log"), stages(tmp_path))
    assert Workspace(tmp_path / "workspace").list("inputs") == []
    first = asked[0]
    monkeypatch.setattr(ObjectStore, "download", lambda self, found, target: (asked.append(found.name), download(self, found, target))[1])
    fetched = fetch(data(f"{bucket}/log"), stages(tmp_path))
    assert asked.count(first) == 1
    assert input_fingerprint(fetched) == input_fingerprint(data(str(folder / "log")))
    assert [path for path in (tmp_path / "workspace/.staging").iterdir() if path.suffix != ".lock"] == []


def test_an_object_of_many_pieces(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.core.objects._PIECE", 1_000)
    path = tmp_path / "log.csv"
    path.write_bytes(os.urandom(10_001))
    put(bucket, path, "log.csv")
    store = ObjectStore(bucket)
    store.download(store.find("log.csv"), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == path.read_bytes()
    # Replaced after it was found: no mixture of two.
    found = store.find("log.csv")
    path.write_bytes(os.urandom(10_001))
    put(bucket, path, "log.csv")
    with pytest.raises(ResourceError, match=r"log\.csv: was replaced while it was read"):
        store.download(found, tmp_path / "back")


@pytest.mark.parametrize("steady", [False, True])
def test_bytes_that_are_not_those_of_the_tag(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steady: bool) -> None:
    put(bucket, write(tmp_path, "one.csv"), "one.csv")
    arrivals, download = iter(range(9)), ObjectStore.download

    def damaging(self: ObjectStore, found: Found, target: Path) -> None:
        download(self, found, target)
        target.write_bytes(target.read_bytes() + bytes([0 if steady else next(arrivals)]))

    monkeypatch.setattr(ObjectStore, "download", damaging)
    if steady:
        # An encrypted object's tag is the MD5 of something else.
        assert fetch(data(f"{bucket}/one.csv"), stages(tmp_path))
    else:
        with pytest.raises(IntegrityError, match="arrives with other bytes every time"):
            fetch(data(f"{bucket}/one.csv"), stages(tmp_path))
        assert Workspace(tmp_path / "workspace").list("inputs") == []


def test_what_cannot_be_had_is_one_line(both: tuple[str, Path], object_server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket, _ = both

    def asked(path: str) -> str:
        with pytest.raises((UsageError, ResourceError)) as raised:
            fetch(data(path), stages(tmp_path))
        assert object_server.secret not in str(raised.value)
        assert len(str(raised.value)) < 400
        return f"{raised.value.exit_code} {raised.value}"

    assert asked(f"{bucket}/log/none.parquet").startswith(f"2 {bucket}/log/none.parquet: no such object or folder; expected a .parquet")
    assert asked(f"{bucket}/log/read.me").startswith(f"2 {bucket}/log/read.me: holds no parquet or CSV object")
    assert asked(f"{bucket}/log/*.parquet").startswith(f"2 {bucket}/log/*.parquet: holds no parquet or CSV object")
    assert "NoSuchBucket" in asked("s3://nobody-has-this/log/*.parquet")
    assert asked("s3://name:word@bucket/log").startswith("2 s3://name:word@bucket: holds a user name")
    assert asked("s3://").startswith("2 s3://: is no store")
    with object_server.refusing():
        assert "403 Forbidden" in (said := asked(f"{bucket}/log"))
        assert said.startswith("6 ")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert asked(f"{bucket}/one.csv").startswith("6 ")
    assert not (tmp_path / "workspace/inputs").exists()


def test_a_run_of_a_log_in_a_store_has_the_bytes_of_one_on_a_disk(command, contents, recipe: Path, object_server, tmp_path: Path) -> None:
    local = tmp_path / "local"
    assert command("prepare", local).returncode == 0
    (folder,) = (local / "generated").iterdir()
    bucket = object_server.bucket()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in object_server.environment.items():
            patch.setenv(name, value)
        for path in (each for each in folder.rglob("*") if each.is_file()):
            put(bucket, path, f"shop/{path.relative_to(folder)}")
    stored = tmp_path / "stored.toml"
    stored.write_text(
        recipe.read_text().replace('"generated/', f'"{bucket}/shop/').replace("[generate]\nusers = 150\nitems = 150\ndays = 30\n", "")
    )
    done = command("prepare", tmp_path / "remote", of=stored, **object_server.environment)
    assert done.returncode == 0, done.stderr
    datasets = [
        {name: digest for name, digest in contents(each).items() if name.startswith("dataset/")} for each in (local, tmp_path / "remote")
    ]
    assert datasets[0] == datasets[1]
    told = done.stdout + done.stderr + "".join(path.read_text() for path in (tmp_path / "remote").rglob("manifest.json"))
    assert object_server.key not in told
    assert object_server.secret not in told
    refused = command("prepare", tmp_path / "none", of=stored, **{**object_server.environment, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"})
    assert refused.returncode == 6
    assert f"error: {bucket}/shop/interactions: " in refused.stderr
    assert "Traceback" not in refused.stderr
