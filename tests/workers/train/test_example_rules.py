from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import BadInput, TooLarge
from schemas.values import Message
from workers.train.examples import MAX_TOKENS, check_example, estimate_tokens, split_of
from workers.train.screening import RULES, broken_rules

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def checked(*messages: dict[str, Any]) -> Any:
    """Check messages as they come in an event."""
    return check_example([Message.model_validate(message) for message in messages])


def user(text: Any = "q") -> dict[str, Any]:
    """A message of the user."""
    return {"role": "user", "content": text}


def assistant(text: Any = "a", **more: Any) -> dict[str, Any]:
    """A message of the assistant."""
    return {"role": "assistant", "content": text, **more}


@pytest.mark.parametrize(
    "messages",
    [
        [user(), assistant()],
        [{"role": "system", "content": "s"}, user(), assistant()],
        [
            {"role": "developer", "content": "s"},
            user(),
            assistant("no", weight=0),
            user(),
            assistant(weight=1),
        ],
        [user([{"type": "text", "text": "q"}]), assistant()],
        [user(), assistant(None, tool_calls=[CALL])],
        [
            user(),
            assistant(None, tool_calls=[CALL]),
            {"role": "tool", "content": "r", "tool_call_id": "c1"},
            assistant(),
        ],
    ],
)
def test_what_openai_trains_on_is_accepted(messages: list[dict[str, Any]]) -> None:
    """System first, tools answered, weights on the assistant, text in parts."""
    assert checked(*messages).tokens > 0


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([user(), user()], "data.messages.1.role"),
        ([{"role": "system", "content": "s"}, assistant()], "data.messages"),
        ([user(), {"role": "system", "content": "s"}, assistant()], "data.messages.1.role"),
        ([user(), assistant(weight=0)], "data.messages.1.weight"),
        ([{**user(), "weight": 1}, assistant()], "data.messages.0.weight"),
        ([user(""), assistant()], "data.messages.0.content"),
        ([user("  "), assistant()], "data.messages.0.content"),
        ([user(), assistant(None)], "data.messages.1.content"),
        ([user(), assistant(3)], "data.messages.1.content"),
        ([user([{"type": "image_url", "image_url": {}}]), assistant()], "data.messages.0.content.0"),
        ([user(), assistant(None, tool_calls=[])], "data.messages.1.tool_calls"),
        ([user(), assistant(None, tool_calls=[{"id": "c"}])], "data.messages.1.tool_calls.0"),
        (
            [user(), {"role": "tool", "content": "r", "tool_call_id": "c1"}, assistant()],
            "data.messages.1.tool_call_id",
        ),
        ([{**user(), "tool_call_id": "c1"}, assistant()], "data.messages.0.tool_call_id"),
        ([{**user(), "tool_calls": [CALL]}, assistant()], "data.messages.0.tool_calls"),
    ],
)
def test_what_a_trainer_would_refuse_is_refused_here(messages: list[dict[str, Any]], field: str) -> None:
    """The error names the message at fault and holds nothing of its text."""
    with pytest.raises(BadInput) as caught:
        checked(*messages)
    assert field == caught.value.field


def test_an_example_beyond_the_token_limit_is_refused() -> None:
    """A trainer would cut it or fail the whole file."""
    with pytest.raises(TooLarge):
        checked(user("word " * (MAX_TOKENS + 1)), assistant())


def test_near_copies_are_one_example_in_one_split() -> None:
    """Case, spacing, width and outer punctuation of the prompt make no other example."""
    one = checked(user("What is a penstock?"), assistant("A pipe."))
    two = checked(user("  what is a  PENSTOCK ?!"), assistant("A pipe."))
    assert one.prompt_sha256 == checked(user("what is a penstock"), assistant("x")).prompt_sha256
    assert one.content_sha256 == checked(user("WHAT is a penstock"), assistant("A pipe.")).content_sha256
    assert two.split == split_of(two.prompt_sha256)


def test_another_answer_is_another_example_in_the_same_split() -> None:
    """The split follows from the prompt alone, so a holdout question is never trained on with another answer."""
    one = checked(user("q"), assistant("a"))
    two = checked(user("q"), assistant("A"))
    assert one.content_sha256 != two.content_sha256
    assert (one.prompt_sha256, one.split) == (two.prompt_sha256, two.split)


def test_splits_are_65_10_25() -> None:
    """Over many prompts the shares are as promised."""
    splits = Counter(checked(user(f"question {i}"), assistant()).split for i in range(4000))
    assert 0.62 < splits["train"] / 4000 < 0.68
    assert 0.08 < splits["validation"] / 4000 < 0.12
    assert 0.22 < splits["holdout"] / 4000 < 0.28


@given(st.text(max_size=2000))
def test_an_estimate_is_never_below_the_words(text: str) -> None:
    """A token never spans words."""
    assert estimate_tokens(text) >= len(text.split())


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("-----BEGIN RSA PRIVATE KEY-----", "secret.private_key"),
        ("key AKIAIOSFODNN7EXAMPLE", "secret.aws_key"),
        ("use sk-proj-abcdefghijklmnopqrstuvwx", "secret.api_key"),
        ("ghp_" + "a1" * 18, "secret.github_token"),
        ("xoxb-123456789012-abcdef", "secret.slack_token"),
        ("AIza" + "a" * 35, "secret.google_key"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "secret.webhook_secret"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTYifQ.abcdefghijk", "secret.jwt"),
        ("postgres://user:hunter22@db.internal/x", "secret.url_password"),
        ("write to ada.l@harrow-weir.se please", "personal.email"),
        ("card 4111 1111 1111 1111", "personal.card"),
        ("IBAN DE89 3704 0044 0532 0130 00", "personal.iban"),
        ("ssn 123-45-6789", "personal.us_ssn"),
        ("call +46 8 123 456 78", "personal.phone"),
    ],
)
def test_secrets_and_personal_data_are_found(text: str, rule: str) -> None:
    """Each rule finds what it is for."""
    assert rule in broken_rules(text)


@pytest.mark.parametrize(
    "text",
    [
        "write to someone@example.com or me@host.test",
        "card number 4111 1111 1111 1112",
        "DE88 3704 0044 0532 0130 00",
        "the year 2026, 1234567890123 things, 3.14159265358979",
        "http://localhost:8420/v1/events and postgres://db/x",
        "sk-short and task-oriented-programming-language",
        "0000000000000000",
    ],
)
def test_harmless_texts_pass(text: str) -> None:
    """Addresses of RFC 2606, wrong check digits and plain numbers are no secrets."""
    assert [] == broken_rules(text)


def test_every_rule_has_a_name_of_its_own() -> None:
    """The name is all that is kept of what was found."""
    assert len({rule.name for rule in RULES}) == len(RULES)
