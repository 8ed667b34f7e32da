"""Known data sets: true raw formats in miniature, served from memory, and everything that can go wrong on the way."""

import io
import json
import zipfile
from pathlib import Path

import polars as pl
import pytest

from retrieval.core.artifacts import sha256_of
from retrieval.core.errors import DataContractError, IntegrityError, ResourceError, UsageError
from retrieval.data import known as module
from retrieval.data.known import TABLES, find_known, get_known, list_known

U_DATA = "196\t242\t3\t881250949\n186\t302\t3\t891717742\n196\t268\t5\t881250949\n"
FLAGS_TOY = "0|0|0|1|1|1" + "|0" * 13
U_ITEM = (
    f"242|Kolya (1996)|24-Jan-1997||http://us.imdb.com/M/title-exact?Kolya%20(1996)|{FLAGS_TOY}\n"
    f"302|Cité des enfants perdus, La (1995)|01-Jan-1995||http://x|{'0|' * 18}1\n"
    f'268|unknown "draft"||||1{"|0" * 18}\n'
)
U_USER = "196|49|M|writer|55105\n186|39|F|executive|T8H1N\n"
ML1M = {
    "ml-1m/ratings.dat": "1::1193::5::978300760\n1::661::3::978302109\n2::1193::4::978298413\n",
    "ml-1m/movies.dat": (
        "661::James and the Giant Peach (1996)::Animation|Children's|Musical\n"
        "1193::Misérables, Les (1995)::Drama\n"
        '3::No Year: A, "B" & C::Comedy\n'
    ),
    "ml-1m/users.dat": "1::F::1::10::48067\n2::M::56::16::70072\n",
}
ML20M = {
    "ml-20m/ratings.csv": "userId,movieId,rating,timestamp\n1,2,3.5,1112486027\n1,29,0.5,1112484676\n",
    "ml-20m/movies.csv": (
        'movieId,title,genres\n2,Jumanji (1995),Adventure|Children\n29,"City of Lost Children, The (Cité, La) (1995)",(no genres listed)\n'
    ),
    "ml-20m/tags.csv": "userId,movieId,tag,timestamp\n",
}
TWEETS = {
    "ratings.dat": "1::1074638::7::1365029107\n2::0068646::10::1366576639\n",
    "movies.dat": "1074638::Skyfall (2012)::Action|Adventure\n0068646::À bout (1972)::\n",
}
CLICKS = (
    "user_id,session_id,session_start,session_size,click_article_id,click_timestamp,"
    "click_environment,click_deviceGroup,click_os,click_country,click_region,click_referrer_type\n"
)
GLOBO = {
    "archive/articles_metadata.csv": (
        "article_id,category_id,created_at_ts,publisher_id,words_count\n7,281,1513144419000,0,168\n8,1,1405341936000,0,189\n"
    ),
    "archive/articles_embeddings.pickle": "never opened",
    "archive/clicks/clicks_hour_000.csv": CLICKS + "0,150,1506825423271000,2,7,1506826828020,4,3,20,1,20,2\n",
    "archive/clicks/clicks_hour_001.csv": CLICKS + "1,151,1506825423271000,2,8,1506826929999,4,3,20,1,20,2\n",
}


def zipped(path: Path, members: dict[str, str], encoding: str = "utf-8") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text.encode(encoding))
    return path


def tables(folder: Path) -> dict[str, pl.DataFrame]:
    return {name.removesuffix(".parquet"): pl.read_parquet(folder / name) for name in TABLES}


def get(tmp_path: Path, name: str, source: Path) -> dict[str, pl.DataFrame]:
    return tables(get_known(name, tmp_path / "cache", accept_licence=True, source=source))


def never(address: str):
    raise AssertionError(f"asked for {address}")


def declared(folder: Path, body: str = "", name: str = "tiny") -> Path:
    """A folder with one declaration of a set whose archive is served from memory."""
    folder.mkdir(exist_ok=True)
    head = f'name = "{name}"\ntitle = "T"\nhomepage = "https://example.org"\nformat = "movielens-dat"\nunpacked_limit = 100000\n'
    text = head + 'licence = "Be kind"\ncitation = "Us"\ncolumns = {}\n' + body
    (folder / "tiny.toml").write_text(text)
    return folder


def served(data: bytes):
    return lambda _: io.BytesIO(data)


FILE = '[[files]]\naddress = "https://example.org/tiny.zip"\n'


def test_every_declaration_is_valid_and_explains_itself():
    sets = list_known()
    assert {known.name for known in sets} >= {"ml-100k", "ml-1m", "ml-20m", "movietweetings-100k", "globo-news"}
    for known in sets:
        assert known.licence.strip()
        assert known.citation.strip()
        assert known.homepage.startswith("https://")
        assert {"user_id", "item_id", "timestamp"} <= set(known.columns["interactions"])


def test_ml_100k(tmp_path):
    members = {"ml-100k/u.data": U_DATA, "ml-100k/u.item": U_ITEM, "ml-100k/u.user": U_USER, "ml-100k/u1.base": "x"}
    found = get(tmp_path, "ml-100k", zipped(tmp_path / "ml-100k.zip", members, "latin-1"))
    assert found["interactions"].rows() == [(196, 242, 3.0, 881250949), (186, 302, 3.0, 891717742), (196, 268, 5.0, 881250949)]
    assert found["items"].rows() == [
        (242, "Kolya", 1996, ["Animation", "Children's", "Comedy"]),
        (302, "Cité des enfants perdus, La", 1995, ["Western"]),
        (268, 'unknown "draft"', None, ["unknown"]),
    ]
    assert found["users"].row(0) == (196, 49, "M", "writer", "55105")
    assert found["interactions"].columns == find_known("ml-100k").columns["interactions"]
    assert found["items"].columns == find_known("ml-100k").columns["items"]
    assert found["users"].columns == find_known("ml-100k").columns["users"]


def test_ml_1m(tmp_path):
    found = get(tmp_path, "ml-1m", zipped(tmp_path / "any.zip", ML1M, "latin-1"))
    assert found["interactions"].rows()[0] == (1, 1193, 5.0, 978300760)
    assert found["items"].rows() == [
        (661, "James and the Giant Peach", 1996, ["Animation", "Children's", "Musical"]),
        (1193, "Misérables, Les", 1995, ["Drama"]),
        (3, 'No Year: A, "B" & C', None, ["Comedy"]),
    ]
    assert found["users"].rows() == [(1, "F", 1, 10, "48067"), (2, "M", 56, 16, "70072")]
    assert found["users"].columns == find_known("ml-1m").columns["users"]


def test_ml_20m(tmp_path):
    found = get(tmp_path, "ml-20m", zipped(tmp_path / "any.zip", ML20M))
    assert found["interactions"].rows() == [(1, 2, 3.5, 1112486027), (1, 29, 0.5, 1112484676)]
    assert found["items"].rows()[1] == (29, "City of Lost Children, The (Cité, La)", 1995, [])
    assert found["users"]["user_id"].to_list() == [1]


def test_movietweetings_from_an_unpacked_folder(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for name, text in TWEETS.items():
        (raw / name).write_text(text, encoding="utf-8")
    found = get(tmp_path, "movietweetings-100k", raw)
    assert found["interactions"]["item_id"].to_list() == [1074638, 68646]
    assert found["items"].rows() == [(1074638, "Skyfall", 2012, ["Action", "Adventure"]), (68646, "À bout", 1972, [])]


def test_globo_reads_every_hour_in_seconds_and_never_the_pickle(tmp_path):
    found = get(tmp_path, "globo-news", zipped(tmp_path / "archive.zip", GLOBO))
    assert found["interactions"].rows() == [(0, 7, 1506826828, 150, 4, 3, 2), (1, 8, 1506826929, 151, 4, 3, 2)]
    assert found["items"].rows() == [(7, ["281"], 1513144419, 168), (8, ["1"], 1405341936, 189)]
    for table in ("interactions", "items", "users"):
        assert found[table].columns == find_known("globo-news").columns[table]


def test_a_folder_of_standard_parquet_is_taken_as_it_is(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    log = pl.DataFrame({"user_id": ["b", "a"], "item_id": [3, 2], "order": [0, 1], "extra": [1.5, 2.5]})
    log.write_parquet(raw / "interactions.parquet")
    found = get(tmp_path, "ml-1m", raw)
    assert found["interactions"].equals(log)
    assert found["items"].rows() == [(2,), (3,)]
    assert found["users"].rows() == [("a",), ("b",)]


def test_parquet_without_the_standard_columns_says_which(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    pl.DataFrame({"user": [1], "item_id": [3]}).write_parquet(raw / "interactions.parquet")
    with pytest.raises(DataContractError, match=r"has the columns user, item_id; expected user_id, item_id, timestamp or order"):
        get(tmp_path, "ml-1m", raw)


def test_damaged_parquet_is_one_line(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "interactions.parquet").write_bytes(b"PAR1 not really PAR1")
    with pytest.raises(DataContractError, match="cannot be read") as caught:
        get(tmp_path, "ml-1m", raw)
    assert "\n" not in str(caught.value)


def test_without_acceptance_the_licence_is_shown_and_nothing_is_fetched(tmp_path):
    with pytest.raises(UsageError, match=r"MIT License.*--accept-licence"):
        get_known("movietweetings-100k", tmp_path / "cache", accept_licence=False, open_url=never)
    assert not (tmp_path / "cache").exists()


def test_an_unknown_name_suggests_the_nearest(tmp_path):
    with pytest.raises(UsageError, match="did you mean 'ml-1m'"):
        get_known("ml1m", tmp_path, accept_licence=True)


def test_a_download_is_checked_converted_and_cached(tmp_path):
    data = zipped(tmp_path / "x.zip", ML1M).read_bytes()
    sha = f'sha256 = "{sha256_of(tmp_path / "x.zip")}"\nsize = {len(data)}\n'
    arguments = {"accept_licence": True, "folder": declared(tmp_path / "d", FILE + sha)}
    folder = get_known("tiny", tmp_path / "cache", open_url=served(data), **arguments)
    assert tables(folder)["interactions"].height == 3
    assert get_known("tiny", tmp_path / "cache", open_url=never, accept_licence=False, folder=tmp_path / "d") == folder
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["tiny"]
    assert json.loads((folder / "known.json").read_text())["source"] == {"https://example.org/tiny.zip": sha256_of(tmp_path / "x.zip")}


def test_other_bytes_than_declared_are_refused(tmp_path):
    data = zipped(tmp_path / "x.zip", ML1M).read_bytes()
    folder = declared(tmp_path / "d", FILE + f'sha256 = "{"0" * 64}"\n')
    with pytest.raises(IntegrityError, match=r"expected 0{64} \(declared\)"):
        get_known("tiny", tmp_path / "cache", accept_licence=True, open_url=served(data), folder=folder)
    assert list((tmp_path / "cache").iterdir()) == []


def test_without_a_declared_sum_the_first_download_is_pinned(tmp_path):
    folder, cache = declared(tmp_path / "d", FILE), tmp_path / "cache"
    first, other = (zipped(tmp_path / name, ML1M | {"pad": name}).read_bytes() for name in ("a.zip", "b.zip"))
    get_known("tiny", cache, accept_licence=True, open_url=served(first), folder=folder)
    (cache / "tiny/items.parquet").unlink()
    with pytest.raises(IntegrityError, match=r"pinned in .*pins\.json"):
        get_known("tiny", cache, accept_licence=True, open_url=served(other), folder=folder)
    assert tables(get_known("tiny", cache, accept_licence=True, open_url=served(first), folder=folder))["items"].height == 3


def test_what_is_not_the_set_is_not_pinned(tmp_path):
    folder, cache = declared(tmp_path / "d", FILE), tmp_path / "cache"
    with pytest.raises(DataContractError, match="cannot be unpacked"):
        get_known("tiny", cache, accept_licence=True, open_url=served(b"<html>Please log in</html>"), folder=folder)
    data = zipped(tmp_path / "x.zip", ML1M).read_bytes()
    assert get_known("tiny", cache, accept_licence=True, open_url=served(data), folder=folder).is_dir()


def test_a_damaged_cache_is_made_again(tmp_path):
    folder, cache = declared(tmp_path / "d", FILE), tmp_path / "cache"
    data = zipped(tmp_path / "x.zip", ML1M).read_bytes()
    path = get_known("tiny", cache, accept_licence=True, open_url=served(data), folder=folder) / "items.parquet"
    before = path.read_bytes()
    path.write_bytes(before[:-9] + b"x" + before[-8:])
    get_known("tiny", cache, accept_licence=True, open_url=served(data), folder=folder)
    assert path.read_bytes() == before


def test_a_set_without_an_address_names_its_page_and_from(tmp_path):
    with pytest.raises(UsageError, match=r"kaggle\.com.*--from"):
        get_known("globo-news", tmp_path / "cache", accept_licence=True, open_url=never)


def test_no_network_advises_from(tmp_path):
    def unreachable(_):
        raise OSError("Name or service not known")

    with pytest.raises(ResourceError, match="pass it with --from"):
        get_known("ml-1m", tmp_path / "cache", accept_licence=True, open_url=unreachable)
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_archive_of_another_set_says_what_is_missing(tmp_path):
    with pytest.raises(DataContractError, match=r"holds no u\.data"):
        get(tmp_path, "ml-100k", zipped(tmp_path / "x.zip", ML1M))


@pytest.mark.parametrize("ratings", ["1::2::five::3\n", "1::2::3::4::5\n", "1,2,3,4\n", "\xff::1::1::1\n"])
def test_malformed_rows_are_a_data_error_of_one_line(tmp_path, ratings):
    with pytest.raises(DataContractError, match=r"ratings\.dat") as caught:
        get(tmp_path, "ml-1m", zipped(tmp_path / "x.zip", ML1M | {"ml-1m/ratings.dat": ratings}, "latin-1"))
    assert "\n" not in str(caught.value)


def test_a_missing_or_unknown_source_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        get(tmp_path, "ml-1m", tmp_path / "nothing.zip")
    (tmp_path / "a.rar").write_text("x")
    with pytest.raises(UsageError, match=r"neither a zip archive nor a folder"):
        get(tmp_path, "ml-1m", tmp_path / "a.rar")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('[[files]]\naddress = "http://example.org/a.zip"\n', "address"),
        ('[[files]]\naddress = "https://e.org/a"\nsha256 = "abc"\n', "sha256"),
        ("[[files]]\naddress = 'https://e.org/a'\nsha265 = ''\n", "did you mean 'sha256'"),
    ],
)
def test_a_wrong_declaration_is_a_usage_error(tmp_path, body, message):
    with pytest.raises(UsageError, match=message):
        list_known(declared(tmp_path / "d", body))


def test_a_declaration_has_the_name_of_its_file(tmp_path):
    with pytest.raises(UsageError, match="expected 'tiny', the file's name"):
        list_known(declared(tmp_path / "d", name="other"))


def test_a_wheel_carries_its_declarations(tmp_path, monkeypatch):
    package = tmp_path / "retrieval"
    (package / "declared/data").mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.setattr(module.retrieval, "__file__", str(package / "__init__.py"))
    assert module.declarations() == package / "declared/data"
    (package / "declared/data").rmdir()
    assert module.declarations() == tmp_path / "data"


def test_from_replaces_what_the_cache_holds(tmp_path):
    first = get(tmp_path, "ml-1m", zipped(tmp_path / "x.zip", ML1M))
    second = get(tmp_path, "ml-1m", zipped(tmp_path / "y.zip", ML1M | {"ml-1m/ratings.dat": "9::3::1::5\n"}))
    assert first["interactions"].height == 3
    assert second["interactions"].rows() == [(9, 3, 1.0, 5)]


def test_the_parquet_of_the_real_sets_is_accepted(tmp_path, real_data):
    found = get(tmp_path, "ml-100k", real_data / "ml-100k")
    assert (found["interactions"].height, found["items"].height, found["users"].height) == (100_000, 1682, 943)
