from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import CallFailed
from schemas.states import AnswerState
from tests.workers.answer.passages import passage
from workers.answer.citations import NOT_SUPPORTED, QUOTE_NOT_FOUND, UNKNOWN_PASSAGE, verify
from workers.answer.finishing import finish_structured, finish_text
from workers.answer.quotes import find_quote, find_support, split_sentences
from workers.answer.sanitize import Sanitizer, addresses_in, sanitize

PASSAGES = [
    passage(
        "The warranty lasts five years.  It starts on the day of delivery.\n\nReset: hold the key for 10 seconds."
    ),
    passage("Prices include value added tax."),
]
ALLOWED = "https://ok.example/a?b=c"


@pytest.mark.parametrize(
    ("said", "kept", "quotes", "reasons"),
    [
        ("The warranty lasts five years [1].", "The warranty lasts five years [1].", ["The warranty lasts five years."], []),
        ("The warranty lasts five years. [1]", "The warranty lasts five years. [1]", ["The warranty lasts five years."], []),
        ("Prices include value added tax [1][2].", "Prices include value added tax [2].", ["Prices include value added tax."], [NOT_SUPPORTED]),
        ("Prices include value added tax [2, 1].", "Prices include value added tax [2].", ["Prices include value added tax."], [NOT_SUPPORTED]),
        ("It started on the delivery day [1].", "It started on the delivery day [1].", ["It starts on the day of delivery."], []),
        ("Monks painted it [1].", "Monks painted it.", [], [NOT_SUPPORTED]),
        ("So it is [7].", "So it is.", [], [UNKNOWN_PASSAGE]),
        ("So it is [0].", "So it is.", [], [UNKNOWN_PASSAGE]),
        ('It says "the warranty lasts five years" [1].', 'It says "the warranty lasts five years" [1].', ["The warranty lasts five years."], []),
        ('It says "the warranty lasts sixty years on Mars" [1].', 'It says "the warranty lasts sixty years on Mars".', [], [QUOTE_NOT_FOUND]),
        ("No markers at all.", "No markers at all.", [], []),
        ("- hold the key for 10 seconds [1]\n- prices include value added tax [2]", "- hold the key for 10 seconds [1]\n- prices include value added tax [2]", ["hold the key for 10 seconds.", "Prices include value added tax."], []),
    ],
)  # fmt: skip
def test_every_marker_is_checked(said: str, kept: str, quotes: list[str], reasons: list[str]) -> None:
    """What is supported stays with its span, what is not is cut out with its reason."""
    verified = verify(said, PASSAGES)
    assert kept == verified.text
    assert quotes == [one.quote for one in verified.citations]
    assert reasons == [one["reason"] for one in verified.rejected]


@given(st.text(st.sampled_from('ab1 [],.\n"”-'), max_size=60))
def test_no_text_confuses_the_check(said: str) -> None:
    """Whatever a model writes: every marker that is left names a supplied passage, every quote stands in one."""
    verified = verify(said, PASSAGES)
    for one in verified.citations:
        assert one.quote in one.passage.text
    assert {one.marker for one in verified.citations} <= {1, 2}


@pytest.mark.parametrize(
    ("quote", "found"),
    [
        ("warranty lasts FIVE years", "warranty lasts five years."),
        ("the warranty\nlasts “five” years", "The warranty lasts five years."),
        ("It starts on the very day of delivery", "It starts on the day of delivery."),
        ("It starts in spring of some other year", None),
        ("", None),
    ],
)
def test_a_quote_is_found_but_for_its_typography(quote: str, found: str | None) -> None:
    """Case, spaces and marks do not matter, one word more or less neither; another statement is not found."""
    support = find_quote(quote, PASSAGES[0].text)
    assert found == (support and support.quote)


def test_support_may_span_two_sentences() -> None:
    """A claim that joins two sentences is supported by both."""
    support = find_support("Five years of warranty start with the delivery day", PASSAGES[0].text)
    assert support is not None
    assert "The warranty lasts five years.  It starts on the day of delivery." == support.quote


@given(st.text(max_size=200))
def test_sentences_add_up_to_their_text(text: str) -> None:
    """Nothing is lost or invented between sentences."""
    assert text == "".join(split_sentences(text))


CASES = [
    "plain text here. ",
    f"See [docs]({ALLOWED}) now",
    "![x](https://evil/x.png?d=1)",
    "visit http://evil.com/x, or www.bad.org.",
    "<img src=x onerror=1> <b>bold</b> a < b and c > d",
    "cite [1] and [2][3]. Then (parens)",
    "[click [1] here](javascript:alert(1))",
    "ref ![a][b] end",
    f"{ALLOWED}.",
    "unclosed [link and more\nnext",
]


@pytest.mark.parametrize(
    ("said", "clean"),
    [
        ("cite [1] and [2][3]. Then (parens)", "cite [1] and [2][3]. Then (parens)"),
        (f"See [docs]({ALLOWED}), {ALLOWED}.", f"See [docs]({ALLOWED}), {ALLOWED}."),
        ("See [docs](https://evil.example) now", "See docs now"),
        ("Look: ![pixel](https://evil.example/p.png) there", "Look:   there"),
        ("Visit HTTPS://evil.example/?q=1, please", "Visit , please"),
        ("if a < b and c > d", "if a < b and c > d"),
        ("<script>x</script>", " x "),
        ("mailto:thief@evil.example", ""),
        (f"[see https://evil.example/x and [docs]({ALLOWED})", f"[see  and [docs]({ALLOWED})"),
        (f'[docs]({ALLOWED} "https://evil.example")', f"[docs]({ALLOWED})"),
    ],
)
def test_what_may_not_leave_is_removed(said: str, clean: str) -> None:
    """Images, tags and addresses that stand in no passage go; text and comparisons stay."""
    assert clean == sanitize(said, frozenset({ALLOWED}))[0]


@given(
    st.lists(
        st.one_of(st.sampled_from(CASES), st.text(st.sampled_from("[]()<>!htps:/w. \n"), max_size=6)),
        max_size=8,
    ),
    st.randoms(use_true_random=False),
)
def test_a_stream_never_shows_a_foreign_address(parts: list[str], chance: random.Random) -> None:
    """However a reply is cut into pieces, no address but the allowed one leaves, and no image with an address."""
    said, allowed = "".join(parts), frozenset({ALLOWED})
    sanitizer, shown = Sanitizer(allowed), ""
    while said:
        size = chance.randint(1, 9)
        shown, said = shown + sanitizer.feed(said[:size]), said[size:]
    shown += sanitizer.finish()
    assert "evil" not in shown
    assert "www.bad" not in shown
    assert "javascript:" not in shown


def test_words_are_shown_as_soon_as_they_are_safe() -> None:
    """A plain word is not held back; the beginning of a link is."""
    sanitizer = Sanitizer(frozenset())
    assert ("The", " gate ", "", "") == (
        sanitizer.feed("The"), sanitizer.feed(" gate "), sanitizer.feed("[here]"), sanitizer.feed("(https://e"),
    )  # fmt: skip
    assert " here " == sanitizer.feed("vil.example)") + sanitizer.finish()


def test_the_addresses_of_a_text() -> None:
    """Without the full stop that ends their sentence."""
    assert {"https://a.example/x", "www.b.example"} == addresses_in(
        ["See https://a.example/x. Or (www.b.example)!"]
    )


@pytest.mark.parametrize(
    "said", ["I don't know.", "I don\u2019t know [1].", "I DON'T KNOW", '"I don\'t know."']
)
def test_not_knowing_is_an_abstention(said: str) -> None:
    """However it is written."""
    assert AnswerState.ABSTAINED == finish_text(said, PASSAGES).status


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"answer": {"n": 1}}', '{"answer": {"n": "x"}, "citations": []}']
)
def test_json_that_is_not_what_was_asked_for_is_no_answer(text: str) -> None:
    """Unreadable, incomplete or of another shape."""
    with pytest.raises(CallFailed):
        finish_structured(text, SCHEMA, PASSAGES)


def test_a_structured_answer_is_proved_and_cleaned_too() -> None:
    """Quotes are checked, foreign addresses removed from every text inside."""
    text = (
        '{"known": true, "answer": {"n": 5, "note": ["see https://evil.example now"]}, "citations":'
        ' [{"passage": "1", "quote": "lasts five years"}, {"passage": "[2]", "quote": "free of charge"}, 7]}'
    )
    finished = finish_structured(text, {"type": "object"}, PASSAGES)
    assert {"n": 5, "note": ["see  now"]} == finished.structured
    assert ["lasts five years."] == [one.quote for one in finished.verified.citations]
    assert 2 == len(finished.report["rejected_citations"])
