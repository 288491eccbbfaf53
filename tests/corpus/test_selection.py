"""What a corpus's URI may mean, on a folder and on a bucket, and what is left out of it."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from corpuscore.corpus import check_apart, find_departed, list_objects, list_versions, split
from corpuscore.corpus.patterns import alternatives
from corpuscore.errors import CorpusError, JobError
from corpuscore.job import Job
from corpuscore.options import ReadOptions, SelectOptions
from corpuscore.storage import Store, filesystem
from tests.corpus.reading import texts


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A folder, or a real S3 server's bucket."""
    return Store(str(tmp_path) if request.param == "folder" else request.getfixturevalue("s3"))


def _put(place: Store, *names: str) -> None:
    for name in names:
        place.write(name, b'{"text": "x"}\n')


def _listed(place: Store, *patterns: str, **selection: object) -> list[str]:
    found = list_objects([place.uri_of(pattern) for pattern in patterns], selection=SelectOptions(**selection))  # type: ignore[arg-type]
    return [item.uri.removeprefix(place.uri_of("")) for item in found]


DAYS = ["l/2024-01-30/a.jsonl", "l/2024-01-31/h=1/b.jsonl", "l/2024-02-01/c.jsonl", "l/2024-02-01/_tmp/d.jsonl"]


@pytest.mark.parametrize("pattern", ["l/2024-01-*", "l/2024-01-*/", "l/2024-01-??", "l/2024-01-3[01]", "l/*-01-*/**"])
def test_a_pattern_of_folders_means_all_that_is_in_them(place: Store, pattern: str) -> None:
    """Where days are folders, a pattern of days names their objects, at any depth."""
    _put(place, *DAYS)
    assert _listed(place, pattern) == DAYS[:2]


def test_a_pattern_means_objects_first(place: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Where it matches objects it means these alone; what lies in folders that it matches too is told of."""
    _put(place, *DAYS, "l/2024-01-29.jsonl")
    with caplog.at_level(logging.WARNING, "corpuscore"):
        assert _listed(place, "l/2024-01-*") == ["l/2024-01-29.jsonl"]
    assert "2 objects in folders" in caplog.text


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("l/2024-{01-30,02-01}/*", [DAYS[0], DAYS[2]]),
        ("l/{2024-01-30,2024-02-01}", [DAYS[0], DAYS[2]]),
        ("l/*/{a,c}.{jsonl,csv}", [DAYS[0], DAYS[2]]),
        ("{l,m}/**/[ab].jsonl", DAYS[:2]),
    ],
)
def test_braces_are_either(place: Store, pattern: str, found: list[str]) -> None:
    """As in a shell: each choice in turn, for objects and for folders."""
    _put(place, *DAYS)
    assert _listed(place, pattern) == found


def test_braces_open_as_in_a_shell() -> None:
    """Nested ones too; without a comma they are letters; too many are refused."""
    assert sorted(alternatives("a{b,{c,d}e}{f}")) == ["ab{f}", "ace{f}", "ade{f}"]
    assert alternatives("x{}y{,z}") == ["x{}y", "x{}yz"]
    with pytest.raises(CorpusError, match="more than 1000"):
        alternatives("{a,b}" * 30)


@pytest.mark.parametrize("name", ["dir[2024]", "a{b,c}d", "what?", "star*s", "2024-*"])
def test_a_folder_of_exactly_this_name_is_meant_before_a_pattern(place: Store, name: str) -> None:
    """Brackets and stars are letters where a folder has them."""
    _put(place, f"{name}/x.jsonl", "dir2/y.jsonl", "abd/y.jsonl", "whatx/y.jsonl", "starts/y.jsonl", "2024-1/y.jsonl")
    assert _listed(place, name) == _listed(place, f"{name}/") == [f"{name}/x.jsonl"]
    known = [place.uri_of(path) for path in (f"{name}/x.jsonl", f"{name}/gone.jsonl", "dir2/y.jsonl", "abd/y.jsonl")]
    assert find_departed(known, [place.uri_of(name)], {known[0]}) == [known[1]]


def test_the_beginning_of_keys_means_all_of_them(s3: str) -> None:
    """In a bucket; a folder of exactly the name comes first, and in file systems there is no such thing."""
    place = Store(s3)
    _put(place, "l/2024-01.jsonl", "l/2024-02/x.jsonl", "l/2025-01.jsonl", "l/2024-03/_x.jsonl")
    assert _listed(place, "l/2024-") == ["l/2024-01.jsonl", "l/2024-02/x.jsonl"]
    assert _listed(place, "l/2024-0") == _listed(place, "l/2024-")
    assert _listed(place, "l/2024-02") == ["l/2024-02/x.jsonl"]
    known = [place.uri_of(path) for path in ("l/2024-01.jsonl", "l/2024-09.jsonl", "l/2025-01.jsonl")]
    assert find_departed(known, [place.uri_of("l/2024-")], {known[0]}) == [known[1]]


def test_what_left_a_folder_of_a_pattern_has_departed(place: Store) -> None:
    """A pattern that meant folders still means what was in them; not what it would mean as a pattern of objects."""
    _put(place, *DAYS)
    corpus, uris = [place.uri_of("l/2024-01-*")], [place.uri_of(name) for name in DAYS]
    listed = {item.uri for item in list_objects(corpus)}
    assert find_departed(uris, corpus, listed) == []
    assert find_departed(uris, corpus, listed - {uris[1]}) == [uris[1]]


def test_marks_of_folders_are_none_of_the_objects(place: Store) -> None:
    """Hadoop and EMR leave objects whose names end in $folder$."""
    _put(place, "x/a.jsonl", "x_$folder$", "x/y_$folder$", "x/$folder$")
    assert _listed(place, "") == _listed(place, "x*") == _listed(place, "**") == ["x/a.jsonl"]


NAMES = ["a/1.jsonl", "a/1.jsonl.crc", "a/drafts/2.jsonl", "b/drafts.jsonl", "b/deep/3.jsonl"]


@pytest.mark.parametrize(
    ("exclude", "found"),
    [
        (["*.crc"], [NAMES[0], NAMES[2], NAMES[3], NAMES[4]]),
        (["*.crc", "drafts"], [NAMES[0], NAMES[3], NAMES[4]]),
        (["*.crc", "drafts/"], [NAMES[0], NAMES[3], NAMES[4]]),
        (["a/*"], NAMES[3:]),
        (["a"], NAMES[3:]),
        (["a/drafts/*", "**/*.crc"], [NAMES[0], NAMES[3], NAMES[4]]),
        (["**/[12].jsonl*"], NAMES[3:]),
        (["{a,b/d*}"], []),
        (["deep/3.jsonl", "*.crc"], [NAMES[0], *NAMES[2:]]),
        (["URI/a", "URI/b/*/**"], [NAMES[3]]),
    ],
)
def test_exclude_leaves_out(place: Store, exclude: list[str], found: list[str]) -> None:
    """Names at any depth, paths from the corpus's folder, full URIs; of objects and of folders."""
    _put(place, *NAMES)
    patterns = tuple(pattern.replace("URI", place.uri) for pattern in exclude)
    listed = {item.uri for item in list_objects([place.uri], "jsonl")} if found else set()
    if not found:
        with pytest.raises(CorpusError, match=r"all 5 objects are left out by"):
            list_objects([place.uri], "jsonl", SelectOptions(exclude=patterns))
        return
    chosen = list_objects([place.uri], "jsonl", SelectOptions(exclude=patterns))
    assert [item.uri.removeprefix(place.uri_of("")) for item in chosen] == sorted(found)
    assert set(list_versions([place.uri], SelectOptions(exclude=patterns))) == {item.uri for item in chosen}
    kept = {item.uri for item in chosen}
    assert find_departed(sorted(listed), [place.uri], kept, SelectOptions(exclude=patterns)) == []


def test_exclude_begins_at_the_folder_that_is_named(place: Store) -> None:
    """A path with a slash is one from the folder of the corpus's URI, also of a pattern and of one object."""
    _put(place, *NAMES)
    assert _listed(place, "b", exclude=("deep/*",)) == ["b/drafts.jsonl"]
    assert _listed(place, "b/**", exclude=("deep/*",)) == ["b/drafts.jsonl"]
    assert _listed(place, "b/drafts.jsonl", "b/deep/3.jsonl", exclude=("x/*",)) == ["b/deep/3.jsonl", "b/drafts.jsonl"]


def test_since_takes_what_was_written_then_or_later(tmp_path: Path) -> None:
    """By the modification time that the store tells, to the second that is named."""
    moment = datetime(2026, 1, 31, 6, tzinfo=UTC)
    for name, offset in (("old.jsonl", -1), ("same.jsonl", 0), ("new.jsonl", 1)):
        (tmp_path / name).write_bytes(b'{"text": "x"}\n')
        at = (moment + timedelta(seconds=offset)).timestamp()
        os.utime(tmp_path / name, (at, at))
    found = list_objects([str(tmp_path)], selection=SelectOptions(since=moment))
    assert [Path(item.uri).name for item in found] == ["new.jsonl", "same.jsonl"]
    assert list_objects([str(tmp_path)], selection=SelectOptions(since=moment + timedelta(days=1))) == []


def test_since_on_a_bucket(s3: str) -> None:
    """A bucket tells when an object was written."""
    _put(Store(s3), "a.jsonl")
    day = timedelta(days=1)
    assert len(list_objects([s3], selection=SelectOptions(since=datetime.now(UTC) - day))) == 1
    assert list_objects([s3], selection=SelectOptions(since=datetime.now(UTC) + day)) == []


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T06:00:00", datetime(2026, 1, 31, 6, tzinfo=UTC)),
        ("2026-01-31 06:00", datetime(2026, 1, 31, 6, tzinfo=UTC)),
        ("2026-01-31T06:00:00+02:00", datetime(2026, 1, 31, 4, tzinfo=UTC)),
        ("2026-01-31T06:00:00Z", datetime(2026, 1, 31, 6, tzinfo=UTC)),
    ],
)
def test_a_moment_is_utc_where_no_zone_is_given(text: str, moment: datetime) -> None:
    """A date is its first moment."""
    job = {"corpus": ["/c"], "work": "/w", "warehouse": "duckdb:////f", "since": text}
    assert Job.build(job).selection.since == moment


def test_what_is_no_moment_is_refused() -> None:
    """With the form that it has to have."""
    with pytest.raises(JobError, match=r"--since 'yesterday': a moment is 2026-01-31"):
        Job.build({"corpus": ["/c"], "work": "/w", "warehouse": "duckdb:////f", "since": "yesterday"})


def test_selecting_names_no_other_work() -> None:
    """What is left out, and with what rights it is read, changes no score."""
    values = {"corpus": ["s3://b/c"], "work": "/w", "warehouse": "duckdb:////f"}
    chosen = Job.build({**values, "exclude": ["x"], "since": "2026-01-31", "anonymous": True})
    assert chosen.options_digest == Job.build(values).options_digest
    assert chosen.reading.anonymous


def test_a_name_that_is_no_utf8_is_one_message(tmp_path: Path) -> None:
    """Said with its bytes, before anything is spent; it can be excluded."""
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "x"}\n')
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jsonl")).write_bytes(b'{"text": "y"}\n')
    for corpus in (str(tmp_path), f"{tmp_path}/*.jsonl"):
        with pytest.raises(CorpusError, match=r"caf\\xe9.jsonl'.*Next: rename it, or leave it out") as caught:
            list_objects([corpus])
        str(caught.value).encode()
        assert len(list_objects([corpus], selection=SelectOptions(exclude=("caf?.jsonl",)))) == 1


def test_a_key_may_hold_a_question_mark(s3: str) -> None:
    """A key that looks like one with a version is read as it is; a version of an object cannot be named."""
    client, path = filesystem(s3)
    for key, text in (("a.jsonl", b"one"), ("a.jsonl?versionId=7", b"two"), ("b.jsonl", b"three")):
        client.call_s3("put_object", Bucket=path.strip("/"), Key=key, Body=b'{"text": "%s"}\n' % text)
    listed = list_objects([f"{s3}/"], "jsonl")
    assert [texts([partition]) for partition in split(listed, 10, ReadOptions())] == [["one"], ["two"], ["three"]]
    (exact,) = list_objects([f"{s3}/a.jsonl?versionId=7"], "jsonl")
    assert texts(split([exact], 10, ReadOptions())) == ["two"]
    with pytest.raises(CorpusError, match=r"no object of this name.*a version of an object cannot be named"):
        list_objects([f"{s3}/b.jsonl?versionId=7"])


@pytest.mark.parametrize(
    ("corpus", "work"),
    [
        ("/data", "/data/work"),
        ("/data/", "/data"),
        ("/data/work/corpus", "/data/work"),
        ("/data/**", "/data/work"),
        ("/data/**/*.parquet", "/data/deep/work"),
        ("/data/{a,work}/", "/data/work"),
        ("/data/*", "/data/work"),
        ("s3://bucket/", "s3a://bucket/corpuscore/"),
    ],
)
def test_a_work_location_in_the_corpus_is_refused(corpus: str, work: str) -> None:
    """And a corpus in the work location: a run would score what it wrote."""
    with pytest.raises(JobError, match=r"lie in one another.*Next: choose a work location beside"):
        check_apart([corpus], work)


@pytest.mark.parametrize(
    ("corpus", "work"),
    [
        ("/data/corpus", "/data/work"),
        ("/data/corpus", "/data/corpus-work"),
        ("/data/*.jsonl", "/data/work"),
        ("/data/", "/data/_work"),
        ("/data", "s3://data/work"),
        ("s3://bucket/corpus", "s3://bucket/corpus-work"),
        ("https://host/x.jsonl", "/data"),
    ],
)
def test_a_work_location_beside_the_corpus_is_right(corpus: str, work: str) -> None:
    """Also where one name begins as the other; a hidden folder is no part of a corpus."""
    check_apart([corpus], work)


def test_a_work_location_that_was_listed_is_refused() -> None:
    """Where a corpus's URI is the beginning of the work location's."""
    with pytest.raises(JobError, match="lie in one another"):
        check_apart(["s3://bucket/cor"], "s3://bucket/corpuscore", ["s3://bucket/corpuscore/manifests/1.parquet"])
