"""An uploaded JSONL file passes through here, checked line by line as OpenAI checks it, and goes on as examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from infra.local.model.prompt import Message, read_prompt, without_markers
from infra.local.model.tokens import Tokenizer

FEWEST_EXAMPLES = 10
MOST_TOKENS_EACH = 65_536
TOKENS_PER_MESSAGE = 3
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_TOP = frozenset({"messages", "tools", "parallel_tool_calls", "functions"})
_INNER = frozenset(
    {"role", "content", "name", "weight", "tool_calls", "tool_call_id", "function_call", "refusal"}
)


class BadTrainingFile(Exception):
    """The file cannot be trained on.

    Args:
        code: OpenAI's code for the job's error.
        param: which of the two files.
        message: names the line, never its text.
    """

    def __init__(self, code: str, param: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.param = param
        self.message = message


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """A question and the response to it; `tokens` counts the whole example."""

    question: str
    response: str
    tokens: int


def read_training_file(data: bytes, param: str, tokenizer: Tokenizer) -> list[TrainingExample]:
    """Check a file and take its examples.

    Args:
        data: the file's bytes.
        param: `training_file` or `validation_file`; a validation file may be short.
        tokenizer: counts the tokens.

    Raises:
        BadTrainingFile: naming the first line at fault.
    """
    examples: list[TrainingExample] = []
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if line.strip():
            example = _example(line, number, param, tokenizer)
            if example is not None:
                examples.append(example)
    if len(examples) < (FEWEST_EXAMPLES if param == "training_file" else 1):
        name = "Training" if param == "training_file" else "Validation"
        least = FEWEST_EXAMPLES if param == "training_file" else 1
        raise BadTrainingFile(
            "invalid_n_examples",
            param,
            f"{name} file has {len(examples)} example(s), but must have at least {least} examples.",
        )
    return examples


def _example(line: bytes, number: int, param: str, tokenizer: Tokenizer) -> TrainingExample | None:
    def bad(why: str) -> BadTrainingFile:
        return BadTrainingFile(f"invalid_{param}", param, f"Invalid file format. Line {number}: {why}")

    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise bad("not valid JSON.") from error
    if not isinstance(value, dict):
        raise bad("expected a JSON object.")
    messages = value.get("messages")
    if set(value) - _TOP or not isinstance(messages, list) or not messages:
        raise bad("expected the key 'messages' with a list that is not empty, and no unknown key.")
    read: list[Message] = []
    for position, message in enumerate(messages, start=1):
        why = _wrong(message)
        if why is not None:
            raise bad(f"message {position}: {why}")
        read.append(Message(role=message["role"], text=plain_text(message.get("content"))))
    if read[-1].role != "assistant":
        raise bad("the last message has to be the assistant's.")
    tokens = sum(TOKENS_PER_MESSAGE + tokenizer.count(m.text) for m in read)
    if tokens > MOST_TOKENS_EACH:
        raise bad(f"the example has {tokens} tokens, at most {MOST_TOKENS_EACH} are allowed.")
    return _learned(messages[-1], read, tokens)


def _learned(last: Mapping[str, object], read: list[Message], tokens: int) -> TrainingExample | None:
    """What there is to learn; None for an example of weight 0 and for one without a text to give."""
    question = read_prompt(read[:-1]).question
    response = without_markers(read[-1].text)
    if last.get("weight") == 0 or not question or not response:
        return None
    return TrainingExample(question=question, response=response, tokens=tokens)


def _wrong(message: object) -> str | None:
    """What is wrong with a message, if anything."""
    if not isinstance(message, dict):
        return "expected an object."
    role = message.get("role")
    if role not in _ROLES:
        return "unknown role."
    if set(message) - _INNER:
        return "unknown key."
    content = message.get("content")
    called = role == "assistant" and (message.get("tool_calls") or message.get("function_call"))
    if not isinstance(content, str | list) and not (content is None and called):
        return "content has to be a string or a list of parts."
    if isinstance(content, list) and not all(
        isinstance(p, dict) and isinstance(p.get("text"), str) for p in content
    ):
        return "only text parts are supported."
    if "weight" in message and (role != "assistant" or message["weight"] not in (0, 1)):
        return "weight has to be 0 or 1, on assistant messages only."
    return None


def plain_text(content: object) -> str:
    """The text of a message's content: a string, or its text parts one after the other."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(
            part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
    return ""
