from __future__ import annotations

import json

import pytest

from infra.local.model.training_file import BadTrainingFile, TrainingExample, read_training_file
from infra.local.model.vectors import Encoder

GOOD = {"messages": [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": "A."}]}


def file_with(line: bytes, *, at: int = 4, of: int = 12) -> bytes:
    """A good file whose line `at`, counted from 1, is another."""
    lines = [json.dumps(GOOD).encode()] * of
    lines[at - 1] = line
    return b"\n".join(lines)


def changed(**message: object) -> bytes:
    """A line whose first message is another."""
    return json.dumps({"messages": [message, GOOD["messages"][1]]}).encode()


@pytest.mark.parametrize(
    "line",
    [
        b"{not json",
        b"[]",
        b"\xff\xfe",
        b'{"messages": []}',
        b'{"prompt": "a", "completion": "b"}',
        json.dumps({**GOOD, "extra": 1}).encode(),
        json.dumps({"messages": GOOD["messages"][:1]}).encode(),
        changed(role="robot", content="x"),
        changed(role="user", content=5),
        changed(role="user", content=None),
        changed(role="user", content="x", colour="red"),
        changed(role="user", content="x", weight=1),
        changed(role="user", content=[{"type": "image_url", "image_url": {"url": "x"}}]),
        changed(role="assistant", content="x", weight=2),
        changed(role="user", content="word " * 66_000),
    ],
)
def test_a_bad_line_is_named(line: bytes, encoder: Encoder) -> None:
    """With OpenAI's code, the number of the line, and nothing of its text."""
    with pytest.raises(BadTrainingFile) as caught:
        read_training_file(file_with(line), "training_file", encoder.tokenizer)
    assert "invalid_training_file" == caught.value.code
    assert "Line 4:" in caught.value.message
    assert "robot" not in caught.value.message


@pytest.mark.parametrize("count", [0, 1, 9])
def test_fewer_than_ten_examples_are_too_few(count: int, encoder: Encoder) -> None:
    """The message says how many there are and how many it takes."""
    data = b"\n".join([json.dumps(GOOD).encode()] * count)
    with pytest.raises(BadTrainingFile) as caught:
        read_training_file(data, "training_file", encoder.tokenizer)
    assert "invalid_n_examples" == caught.value.code
    assert f"{count} example(s), but must have at least 10" in caught.value.message


def test_a_short_validation_file_is_enough(encoder: Encoder) -> None:
    """One example can be validated on."""
    assert 1 == len(read_training_file(json.dumps(GOOD).encode(), "validation_file", encoder.tokenizer))


def test_the_question_and_the_response_are_taken_from_the_last_turn(encoder: Encoder) -> None:
    """Passages are not part of the question, markers not part of the response, blank lines nothing at all."""
    line = {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Earlier?"},
            {"role": "assistant", "content": "Yes."},
            {"role": "user", "content": '<passage id="1">\nText.\n</passage>\nQuestion: Now?'},
            {"role": "assistant", "content": "Now it is. [1]"},
        ]
    }
    data = (json.dumps(line).encode() + b"\r\n\r\n") * 10
    examples = read_training_file(data, "training_file", encoder.tokenizer)
    assert {("Now?", "Now it is.")} == {(e.question, e.response) for e in examples}
    assert all(isinstance(e, TrainingExample) and e.tokens > 20 for e in examples)
