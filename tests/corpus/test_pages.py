from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpuscore.corpus.pages import PAGE_BYTES, WINDOW_BYTES, Chunk, Leaf, Page, chunks, pages, rows_at_once
from corpuscore.corpus.thrift import Malformed, Size, find_list, read_struct

MIB = 2**20


def nothing(start: int, size: int) -> bytes:
    """There is no file."""
    raise AssertionError((start, size))


def leaf(*sizes: tuple[int, int], encoding: int = 0, nested: bool = False, width: int = 0) -> Leaf:
    """A column of data pages, each of so many values and bytes."""
    made = Leaf(nested, width)
    made.note([Page(0, 0, 0, size, values, encoding) for values, size in sizes], nothing, 0)
    return made


def test_rows_of_a_mean_size_are_decoded_together() -> None:
    """Where no rows in a row can be large, as many are decoded at once as were asked for."""
    assert rows_at_once([leaf(*[(1000, MIB)] * 100)], 100_000, 1024) == 1024
    assert rows_at_once([leaf((10_000, 100 * MIB))], 10_000, 1024) == 1024  # a page is held whole in any case
    assert rows_at_once([leaf((10_000, 100), width=8)], 10_000, 1024) == 1024


def test_large_rows_among_small_ones_are_decoded_alone() -> None:
    """What counts is the largest run of rows that there may be, not the mean."""
    large = leaf((10**6, 100), *[(1, 30 * MIB)] * 50)
    assert rows_at_once([large], 10**6 + 50, 1024) == 2
    assert rows_at_once([large, large], 10**6 + 50, 1024) == 1


@pytest.mark.parametrize("encoding", [2, 7, 8])
def test_few_bytes_that_stand_for_many_rows(encoding: int) -> None:
    """A dictionary's longest value, and a prefix that may be all of a page, count for each row."""
    made = Leaf(nested=False, width=0)
    dictionary = Page(2, 0, 8 * MIB, 8 * MIB, 1, 0)
    value = (8 * MIB - 4).to_bytes(4, "little") + b"a" * (8 * MIB - 4)
    made.note([dictionary, Page(0, 0, 0, 8 * MIB, 10**6, encoding)], lambda *_: value, 0)
    assert rows_at_once([made], 10**6, 1024) == 4


def test_a_nested_column_counts_as_a_whole() -> None:
    """One row may hold all of it, so there is a limit for all."""
    assert rows_at_once([leaf((10**6, MIB), nested=True, width=8)], 1000, 1024) == 1024
    with pytest.raises(Malformed, match="nested column"):
        leaf(*[(8 * MIB, 0)] * 5, nested=True, width=8)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 30 * MIB)), min_size=1, max_size=20), st.integers(1, 64))
def test_no_run_of_rows_is_larger_than_its_window(sizes: list[tuple[int, int]], rows: int) -> None:
    """Whichever rows are decoded together, the pages that they touch are within what was allowed for."""
    made, total = leaf(*sizes), sum(values for values, _ in sizes)
    starts = [sum(values for values, _ in sizes[:at]) for at in range(len(sizes))]
    for first in range(0, max(1, total), max(1, total // 20)):
        touched = sum(
            size for (values, size), start in zip(sizes, starts, strict=True)
            if start < first + rows and start + values > first
        )  # fmt: skip
        assert touched <= made.window(rows, total)
    chosen = rows_at_once([made], total, rows)
    assert chosen == 1 or made.window(chosen, total) - made.window(1, total) <= WINDOW_BYTES


@pytest.mark.parametrize("options", [{}, {"use_dictionary": False}, {"data_page_version": "2.0"}])
def test_the_footer_and_the_headers_are_those_of_pyarrow(options: dict[str, object]) -> None:
    """Column chunks are found where pyarrow finds them, and their pages hold all values."""
    sink = io.BytesIO()
    table = pa.table({"text": [f"text {number}" for number in range(5000)], "kept": [[1, None], []] * 2500})
    pq.write_table(table, sink, row_group_size=2000, data_page_size=1000, **options)
    body = sink.getvalue()
    footer = body[-8 - int.from_bytes(body[-8:-4], "little") : -8]
    metadata = pq.read_metadata(io.BytesIO(body))
    assert Size.of(footer).large >= 3 + 3 * 2
    for group in range(3):
        for column, chunk in enumerate(chunks(footer, group, range(2))):
            known = metadata.row_group(group).column(column)
            assert chunk.stop - chunk.start == known.total_compressed_size
            assert chunk.values == known.num_values
            found = list(pages(lambda start, size: body[start : start + size], chunk))
            assert sum(page.values for page in found if page.kind != 2) == known.num_values
            assert found[-1].at + found[-1].stored == chunk.stop


def test_headers_that_are_none() -> None:
    """Ends early, fields that come twice, lists that are none, deeper than Parquet goes, numbers without an end."""
    with pytest.raises(IndexError):
        read_struct(b"\x15\x02", 0)
    with pytest.raises(Malformed, match="twice"):
        read_struct(b"\x15\x02\x05\x02\x02\x00", 0)
    with pytest.raises(Malformed, match="no list"):
        find_list(b"\x15\x02\x00", 0, 1)
    with pytest.raises(Malformed, match="twice"):
        find_list(b"\x19\x1c\x00\x09\x02\x1c\x00\x00", 0, 1)
    with pytest.raises(Malformed, match="none of structures"):
        find_list(b"\x19\x15\x02\x00", 0, 1)
    with pytest.raises(Malformed, match="deep"):
        Size.of(b"\x1c" * 50 + b"\x00" * 51)
    with pytest.raises(Malformed, match="64 bits"):
        read_struct(b"\x15" + b"\xff" * 20, 0)
    with pytest.raises(IndexError):
        Size.of(b"\x19\xfc" + b"\xff" * 8 + b"\x01")


def test_a_page_beyond_the_limit_is_named() -> None:
    """The limit and what keeps it stand in the message."""
    header = bytes([0x15, 0, 0x15]) + b"\x82\x80\x80\x80\x01" + bytes([0x15, 0, 0])
    with pytest.raises(
        Malformed, match=rf"a page of {PAGE_BYTES + 1} bytes; the limit is {PAGE_BYTES}.*write_batch_size"
    ):
        list(pages(lambda start, size: header[start : start + size], chunks_of(len(header))))


def chunks_of(stop: int) -> Chunk:
    """A column chunk that lies in the first bytes."""
    return Chunk(0, stop, 1, 0)
