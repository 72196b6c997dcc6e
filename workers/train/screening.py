"""A text passes through here; what leaves are the names of the rules that it breaks, or the text without what broke them.

The rules prefer certainty: a checksum where the format has one, a known prefix where there is none. They are no proof
that a text is harmless, which is why feedback waits for approval besides. Every repetition is bounded, so that no text
can make a rule slow.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

_RESERVED = re.compile(
    r"@(?:[\w-]+\.)*(?:example(?:\.(?:com|org|net))?|test|invalid|localhost)$", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Rule:
    """A pattern, and a check of what it found where the pattern alone is not enough."""

    name: str
    pattern: re.Pattern[str]
    confirm: Callable[[str], bool] = lambda _found: True


def _is_card(text: str) -> bool:
    """Luhn's check digit over 13 to 19 digits."""
    digits = [int(character) for character in text if character.isdigit()]
    if not 13 <= len(digits) <= 19 or len(set(digits)) == 1:
        return False
    doubled = [d if i % 2 == 0 else sum(divmod(d * 2, 10)) for i, d in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


def _is_iban(text: str) -> bool:
    """ISO 13616: the number with the first four characters moved to the end is 1 modulo 97."""
    compact = text.replace(" ", "").upper()
    return int("".join(str(int(c, 36)) for c in compact[4:] + compact[:4])) % 97 == 1


def _is_real_address(text: str) -> bool:
    """Not of the domains that RFC 2606 reserves for examples."""
    return _RESERVED.search(text) is None


RULES = (
    Rule("secret.private_key", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")),
    Rule("secret.aws_key", re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")),
    Rule("secret.api_key", re.compile(r"\b(?:sk|rk|pk)[-_](?:[A-Za-z0-9]{1,40}[-_]){0,4}[A-Za-z0-9]{20}")),
    Rule("secret.github_token", re.compile(r"\b(?:gh[opsur]_[A-Za-z0-9]{30}|github_pat_[A-Za-z0-9_]{30})")),
    Rule("secret.slack_token", re.compile(r"\bxox[abeoprs]-[A-Za-z0-9-]{10}")),
    Rule("secret.google_key", re.compile(r"\bAIza[0-9A-Za-z_-]{35}\b")),
    Rule("secret.webhook_secret", re.compile(r"\bwhsec_[A-Za-z0-9+/=]{24}")),
    Rule("secret.jwt", re.compile(r"\beyJ[\w-]{10,2000}\.eyJ[\w-]{10,4000}\.[\w-]{10}")),
    Rule(
        "secret.url_password", re.compile(r"\b[a-z][a-z0-9+.-]{1,30}://[^\s/:@]{1,200}:[^\s/@]{3,200}@[^\s/]")
    ),
    Rule(
        "personal.email", re.compile(r"\b[\w.+-]{1,64}@(?:[\w-]{1,63}\.)+[A-Za-z]{2,24}\b"), _is_real_address
    ),
    Rule("personal.card", re.compile(r"\b\d(?:[ -]?\d){12,18}\b"), _is_card),
    Rule(
        "personal.iban", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"), _is_iban
    ),
    Rule("personal.us_ssn", re.compile(r"\b(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}\b")),
    Rule(
        "personal.phone", re.compile(r"(?<![\w+])\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d(?:[ .-]?\d){6,11}\b")
    ),
)


def redacted(text: str) -> str:
    """The text with the name of the broken rule in place of each thing that broke it."""
    for rule in RULES:
        text = rule.pattern.sub(partial(_replacement, rule), text)
    return text


def _replacement(rule: Rule, found: re.Match[str]) -> str:
    return f"[{rule.name}]" if rule.confirm(found.group()) else found.group()


def broken_rules(text: str) -> list[str]:
    """The names of the rules that a text breaks, in the order of `RULES`; never what it was that broke them."""
    return [
        rule.name
        for rule in RULES
        if any(rule.confirm(found.group()) for found in rule.pattern.finditer(text))
    ]
