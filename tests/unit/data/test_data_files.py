import shutil
from pathlib import Path

import polars as pl
import pytest

from retrieval.core.errors import DataContractError, UsageError
from retrieval.data.files import batches, find_inputs, input_fingerprint, row_count
from retrieval.data.settings import DataSettings


def write(path: Path, rows: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = pl.DataFrame({"user_id": list(range(rows)), "item_id": list(range(rows))})
    if path.suffix == ".csv":
        frame.write_csv(path)
    else:
        frame.write_parquet(path)
    return path


def names(path: Path | str) -> list[str]:
    return [file.name for file in find_inputs(str(path), "data.interactions.path")]


def test_a_file_a_folder_and_a_glob_find_their_files_in_order(tmp_path: Path) -> None:
    for name in ("b.parquet", "a.parquet", "_SUCCESS", ".hidden.parquet", "readme.txt", "deep/c.parquet"):
        write(tmp_path / "log" / name) if name.endswith("parquet") else (tmp_path / "log" / name).write_text("")
    assert names(tmp_path / "log" / "a.parquet") == ["a.parquet"]
    assert names(tmp_path / "log") == ["a.parquet", "b.parquet", "deep/c.parquet"]
    assert names(tmp_path / "log" / "*.parquet") == ["a.parquet", "b.parquet"]
    assert names(tmp_path / "log" / "**") == ["a.parquet", "b.parquet", "deep/c.parquet"]
    assert names(tmp_path / "lo?") == ["log/a.parquet", "log/b.parquet", "log/deep/c.parquet"]


@pytest.mark.parametrize("name", ["nowhere.parquet", "nowhere/*.parquet", "log.json"])
def test_a_path_that_leads_nowhere_names_the_setting(tmp_path: Path, name: str) -> None:
    (tmp_path / "log.json").write_text("{}")
    with pytest.raises(UsageError, match=r"check data.interactions.path"):
        find_inputs(str(tmp_path / name), "data.interactions.path")


def test_partition_folders_become_text_columns(tmp_path: Path) -> None:
    write(tmp_path / "day=2020-01-01" / "country=de%20at" / "part.parquet")
    write(tmp_path / "day=__HIVE_DEFAULT_PARTITION__" / "country=fr" / "part.csv")
    found = [file.scan().collect() for file in find_inputs(str(tmp_path), "x")]
    assert [frame["day"][0] for frame in found] == ["2020-01-01", None]
    assert [frame["country"][0] for frame in found] == ["de at", "fr"]


def test_batches_keep_every_row_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.data.files.BATCH_ROWS", 7)
    [file] = find_inputs(str(write(tmp_path / "log.csv", 50)), "x")
    found = list(batches(file, ["user_id"]))
    assert len(found) > 1
    assert pl.concat(found)["user_id"].to_list() == [str(row) for row in range(50)]
    assert row_count([file]) == 50


@pytest.mark.parametrize("damage", ["truncated", "no parquet", "empty", "middle"])
def test_a_damaged_parquet_is_one_line(tmp_path: Path, damage: str) -> None:
    path = write(tmp_path / "log.parquet", 100_000)
    content = path.read_bytes()
    half = len(content) // 2
    damaged = {"truncated": content[:half], "no parquet": b"user_id,item_id\n1,2\n", "empty": b""}
    path.write_bytes(damaged.get(damage, content[:60] + b"\xff" * 4000 + content[4060:]))
    [file] = find_inputs(str(path), "x")
    with pytest.raises(DataContractError) as caught:
        list(batches(file, ["user_id", "item_id"]))
    assert "\n" not in str(caught.value)
    assert "log.parquet" in str(caught.value)


@pytest.mark.parametrize("content", [b"user_id,item_id\n1,2,3,4\n", b"user_id,item_id\n\xff\xfe,2\n", b""])
def test_a_malformed_csv_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(content)
    [file] = find_inputs(str(path), "x")
    with pytest.raises(DataContractError) as caught:
        list(batches(file, ["user_id"]))
    assert "\n" not in str(caught.value)


def test_the_fingerprint_follows_content_not_place(tmp_path: Path) -> None:
    def fingerprint(folder: str) -> dict[str, str]:
        path = tmp_path / folder
        return input_fingerprint(
            DataSettings.model_validate({"name": "x", "interactions": {"path": str(path)}, "items": {"path": str(path)}})
        )

    write(tmp_path / "one" / "day=1" / "log.parquet")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert fingerprint("one") == fingerprint("two")
    assert list(fingerprint("one")) == ["interactions/day=1/log.parquet", "items/day=1/log.parquet"]
    write(tmp_path / "two" / "day=1" / "log.parquet", 4)
    assert fingerprint("one") != fingerprint("two")
