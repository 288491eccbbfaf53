from __future__ import annotations

from pathlib import Path

from corpuscore.oddities import KINDS, Oddities, Oddity, message_of, summed
from corpuscore.records import Receipt
from tests.parts import PartMaker
from tests.test_validation import check, levels


def test_oddities_are_counted_with_their_first_example() -> None:
    """What several readers noted adds up, and the first example stays."""
    first, second = Oddities(), Oddities()
    first.note("csv_columns", "a.csv, byte 7")
    first.note("csv_columns", "a.csv, byte 9", 2)
    second.note("csv_columns", "b.csv, byte 1")
    second.note("csv_unclosed", "b.csv")
    assert summed([first.found, second.found]) == {
        "csv_columns": Oddity(4, "a.csv, byte 7"),
        "csv_unclosed": Oddity(1, "b.csv"),
    }


def test_every_kind_says_what_to_do() -> None:
    """A warning has the count, the example and the next step; a kind of a newer version is shown by its name."""
    for kind in KINDS:
        message = message_of(kind, Oddity(1234, "a.csv, byte 7"))
        assert message.startswith("1,234 ")
        assert "such as a.csv, byte 7. " in message
        assert "Next: " in message
    assert "kind later" in message_of("later", Oddity(1, "a"))


def test_a_receipt_carries_oddities_into_the_findings(tmp_path: Path) -> None:
    """Oddities of all partitions become one warning a kind, and stop nothing."""
    maker = PartMaker(tmp_path)
    odd = {"oddities": {"csv_unclosed": Oddity(2, "b.csv")}}
    works = [maker.work(maker.rows("a", 5), "a", changes=odd), maker.work(maker.rows("b", 5), "b", changes=odd)]
    for _, _, receipt in works:
        assert Receipt.from_json(receipt.to_json()) == receipt
    validation = check(works)
    (finding,) = validation.findings
    assert (finding.check, finding.level, finding.values["count"]) == ("csv_unclosed", "warning", 4)
    assert not validation.errors


def test_lines_that_nobody_accounts_for_are_an_error(tmp_path: Path) -> None:
    """Lines are counted by themselves: documents, rejects and what is neither make up all of them."""
    maker = PartMaker(tmp_path)
    sound = maker.work(maker.rows("a", 5), "a", changes={"lines": 8, "other_lines": {"header": 1, "blank": 2}})
    assert check([sound]).findings == ()
    short = maker.work(maker.rows("b", 5), "b", changes={"lines": 8, "other_lines": {"header": 1}})
    found = check([short])
    assert levels(found)["counts"] == "error"
    assert "has 8 lines" in found.errors[0].message
    assert found.damaged == (short[1],)
