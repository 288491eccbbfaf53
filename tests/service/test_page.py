"""The page at /, in a real browser: what one sees, hears and types."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from corpuscore.service.httpfront import HttpLimits
from tests.scoring.letters import letter_scores
from tests.service.browser import Tab, browser, found
from tests.service.web import Served, served

pytestmark = pytest.mark.skipif(found() is None, reason="no Chromium is installed here")

FIND = "document.getElementById('{}')"
SCORED = "!document.getElementById('found').hidden && !document.querySelector('.busy')"
REFUSED = "document.getElementById('trouble').textContent !== '' && !document.querySelector('.busy')"


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """A tab of a browser."""
    with browser(found() or "", tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def service() -> Iterator[Served]:
    """A service without a token."""
    with served() as running:
        yield running


def described(tab: Tab, service: Served, *, width: int = 1280, dark: bool = False) -> None:
    """Open the page, and wait until it has told of its model."""
    tab.said.clear()
    tab.open(service.url, width=width, dark=dark)
    tab.wait("document.getElementById('facts').childElementCount > 0")


def text_of(tab: Tab, name: str) -> str:
    """What an element says."""
    return str(tab.value(f"{FIND.format(name)}.innerText"))


def rows(tab: Tab) -> list[list[str]]:
    """Labels and probabilities as they are shown."""
    shown = tab.value("[...document.querySelectorAll('#bars tr')].map((row) => [...row.cells].map((c) => c.innerText))")
    return [[row[0], row[2]] for row in shown]


def test_a_text_is_typed_and_its_bars_are_seen(tab: Tab, service: Served) -> None:
    """By the keyboard alone: the labels come sorted, the bars as long as the probabilities, with the tokens used."""
    described(tab, service)
    for _ in range(2):
        tab.press("Tab")
        if tab.value("document.activeElement.id") == "text":
            break
    tab.type("aeix")
    tab.press("Enter", ctrl=True)
    tab.wait(SCORED)
    vowels, length = letter_scores("aeix")
    assert rows(tab) == [["vowels", f"{100 * vowels:.1f} %"], ["length", f"{100 * length:.1f} %"]]
    width = "(fill) => fill.getBoundingClientRect().width / fill.parentElement.clientWidth"
    widths = tab.value(f"[...document.querySelectorAll('.fill')].map({width})")
    assert widths == pytest.approx([vowels, length], abs=0.01)
    assert text_of(tab, "used") == "6 tokens"
    assert tab.said == []


def test_a_cut_text_is_said_to_be_cut(tab: Tab, service: Served) -> None:
    """The example beyond the window is scored by its beginning, and the page says so."""
    described(tab, service)
    tab.value("document.querySelector('.examples button').click()")
    tab.wait(SCORED)
    assert text_of(tab, "used").startswith("32 tokens, cut")


def test_the_model_tells_of_itself(tab: Tab, service: Served) -> None:
    """Its name, precision, fingerprint, window and labels are on the page."""
    described(tab, service)
    facts = text_of(tab, "facts")
    for words in ("letters", "fp32", "0" * 16, "32 tokens", "2 labels", "vowels, length"):
        assert words in facts
    assert tab.value("document.title") == "letters \u00b7 corpuscore"


def test_a_screen_reader_is_told_what_is_what(tab: Tab, service: Served) -> None:
    """Fields and buttons have names, rows their headers, and the result is spoken."""
    described(tab, service)
    assert ("textbox", "Text") in tab.tree()
    assert ("button", "Score") in tab.tree()
    tab.value("document.getElementById('text').value = 'aeix'; document.getElementById('go').click()")
    tab.wait(SCORED)
    tree = tab.tree()
    assert {("rowheader", "vowels"), ("cell", "75.0 %"), ("columnheader", "Probability")} <= set(tree)
    assert any(role == "StaticText" and name.startswith("Scored. vowels 75.0 %") for role, name in tree)
    assert tab.value("document.documentElement.lang") == "en"


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_fits_a_phone_and_a_desktop(tab: Tab, service: Served, width: int, dark: bool) -> None:
    """Nothing reaches beyond the window, and its colours are those that the reader's system asks for."""
    described(tab, service, width=width, dark=dark)
    tab.value("document.getElementById('text').value = 'a'; document.getElementById('go').click()")
    tab.wait(SCORED)
    assert tab.value("document.documentElement.scrollWidth") <= width
    red, green, blue = tab.value("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (red + green + blue < 150) == dark
    beside = tab.value("document.getElementById('result').getBoundingClientRect().left > innerWidth / 2 - 40")
    assert beside == (width == 1280)


def test_no_text_is_no_request(tab: Tab, service: Served) -> None:
    """An empty field is named, and gets the focus."""
    described(tab, service)
    tab.value("document.getElementById('go').click()")
    assert text_of(tab, "trouble") == "There is no text yet."
    assert tab.value("document.activeElement.id") == "text"


def test_what_is_too_long_is_said_in_words(tab: Tab) -> None:
    """A body beyond the limit; then a shorter text is scored all the same."""
    with served(limits=HttpLimits(body_bytes=1_000)) as small:
        described(tab, small)
        tab.value("document.getElementById('text').value = 'x'.repeat(5000); document.getElementById('go').click()")
        tab.wait(REFUSED)
        assert text_of(tab, "trouble") == "This text is too long for one request."
        tab.value("document.getElementById('text').value = 'x'; document.getElementById('go').click()")
        tab.wait(SCORED)
        assert text_of(tab, "trouble") == ""


def test_a_full_queue_is_said_in_words(tab: Tab) -> None:
    """With the seconds after which to try again."""
    with served(most_requests=1) as running, running.busy(waiting=1):
        described(tab, running)
        tab.value("document.getElementById('text').value = 'aeix'; document.getElementById('go').click()")
        tab.wait(REFUSED)
        assert text_of(tab, "trouble") == "The service has more to do than it can: try again in 1 s."


def test_a_token_is_asked_for_where_the_service_wants_one(tab: Tab) -> None:
    """The field comes by itself; a wrong token is said to be wrong, the right one scores."""
    with served(token="open sesame") as shut:
        tab.open(shut.url)
        tab.wait(REFUSED)
        assert text_of(tab, "trouble") == "The service asks for a token."
        assert tab.value("document.activeElement.id") == "token"
        tab.type("other")
        tab.value("document.getElementById('text').value = 'aeix'; document.getElementById('go').click()")
        tab.wait(REFUSED)
        assert text_of(tab, "trouble") == "The service does not know this token."
        tab.value("document.getElementById('token').value = ''")
        tab.type("open sesame")
        tab.press("Enter")
        tab.wait(SCORED)
        assert rows(tab)[0] == ["vowels", "75.0 %"]
        assert "letters" in text_of(tab, "facts")


def test_a_service_that_is_gone_is_said_to_be_gone(tab: Tab) -> None:
    """In words, and the old bars go."""
    with served() as running:
        described(tab, running)
        tab.value("document.getElementById('text').value = 'aeix'; document.getElementById('go').click()")
        tab.wait(SCORED)
    tab.value("document.getElementById('go').click()")
    tab.wait(REFUSED)
    assert "cannot be reached" in text_of(tab, "trouble")
    assert tab.value("document.getElementById('found').hidden")
