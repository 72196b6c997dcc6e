from __future__ import annotations

import pytest

from infra.local.model.prompt import Example, Message, Passage, question_of, read_prompt
from infra.local.model.sentences import split_sentences


def test_passages_and_question_are_found_whatever_the_attributes() -> None:
    """Attributes in any order and quoting; title and heading become the passage's context."""
    text = (
        "Here they are.\n"
        '<passage document=\'d1\' heading="Care &amp; use" id="7" title="Pump">\nFirst text.\nSecond.\n</passage>\n'
        "<passage id=2>\nOther text.\n</passage>\n"
        "Question: At which pressure\ndoes it run?"
    )
    prompt = read_prompt([Message("system", "Answer from the passages."), Message("user", text)])
    assert "At which pressure\ndoes it run?" == prompt.question
    assert (
        Passage("7", "First text.\nSecond.", "Pump Care & use"),
        Passage("2", "Other text.", ""),
    ) == prompt.passages


def test_passages_in_the_system_message_count_and_those_of_earlier_turns_do_not() -> None:
    """What is given once holds throughout; what an earlier question was answered from does not."""
    prompt = read_prompt(
        [
            Message("system", '<passage id="1">\nRules.\n</passage>'),
            Message("user", '<passage id="2">\nOld.\n</passage>\nQuestion: Old one?'),
            Message("assistant", "Old answer. [2]"),
            Message("user", '<passage id="3">\nNew.\n</passage>\nQuestion: New one?'),
        ]
    )
    assert ["1", "3"] == [passage.id for passage in prompt.passages]
    assert (Example("Old one?", "Old answer."),) == prompt.examples
    assert "New one?" == prompt.question


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("Just a question?", "Just a question?"),
        ("Question: One?", "One?"),
        ("Question: One?\n<passage id='1'>\ntext\n</passage>", "One?"),
        ("Context\n\nquestion: One?\nAnswer:", "One?"),
        ("<passage id='1'>\nQuestion: hidden?\n</passage>\nQuestion: One?", "One?"),
        ("<passage id='1'>\nQuestion: hidden?\n</passage>\nOne?", "One?"),
        ("", ""),
    ],
)
def test_a_question_is_never_read_inside_a_passage(text: str, question: str) -> None:
    """The last `Question:` line outside the passages counts, else all that is outside."""
    assert question == question_of(text)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One is here. Two is there! Three?", ["One is here.", "Two is there!", "Three?"]),
        (
            "It costs 3.50 EUR, e.g. in Oslo. Dr. Smith said so.",
            ["It costs 3.50 EUR, e.g. in Oslo.", "Dr. Smith said so."],
        ),
        ("A sentence that\nis wrapped here. Next one.", ["A sentence that\nis wrapped here.", "Next one."]),
        ("- first item\n- second item\n1. third item", ["first item", "second item", "third item"]),
        ("# Title\nBody text.", ["Title", "Body text."]),
        ("Title\n=====\nBody text.", ["Title", "Body text."]),
        ('He said "stop." Then he left.', ['He said "stop."', "Then he left."]),
        ("[5] A footnote says this.", ["A footnote says this."]),
        ("----\n\n42\n\n", []),
        ("no full stop at the end", ["no full stop at the end"]),
    ],
)
def test_sentences_are_cut_where_they_end(text: str, sentences: list[str]) -> None:
    """Abbreviations, numbers and line wraps do not end a sentence; list items and headings do."""
    assert sentences == [sentence.text for sentence in split_sentences(text)]


def test_every_sentence_stands_verbatim_in_its_text() -> None:
    """A quotation can be checked against the passage by looking for it."""
    text = "Title\n-----\n\n  * one point,\n    wrapped.\n  * another. And more!\n\nEnd of it all."
    assert all(sentence.text in text for sentence in split_sentences(text))


def test_sentences_know_their_heading() -> None:
    """A sentence under a heading is about what the heading says."""
    found = split_sentences("## Pump\nIt weighs 12 kg.\n\nIt is green.")
    assert [("Pump", "", True), ("It weighs 12 kg.", "Pump", False), ("It is green.", "Pump", False)] == [
        (s.text, s.under, s.heading) for s in found
    ]


@pytest.mark.parametrize("end", ["```\n\nIt is green.", ""])
def test_code_is_not_quoted(end: str) -> None:
    """A fenced block holds no sentences, even when its passage ends inside it; what stands around it does."""
    text = f"It weighs 12 kg.\n\n```sh\npump --weigh all. It is code.\n\n# A comment\n{end}"
    found = [sentence.text for sentence in split_sentences(text)]
    assert ["It weighs 12 kg.", *(["It is green."] if end else [])] == found
