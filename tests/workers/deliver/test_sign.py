from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from infra.signing_secrets import new_secret, parse_secret
from workers.deliver.sign import signature, signed_headers

# The specification's own example.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE = "msg_p5jXN8AQM9LWM0D4loKWxJek"
BODY = b'{"test": 2432232314}'


def test_golden_vector() -> None:
    """The example of the specification gives the specification's signature."""
    expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert expected == signature(parse_secret(SECRET), MESSAGE, 1614265330, BODY)


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=20) | st.integers() | st.none(), max_size=4))
def test_the_reference_library_verifies(data: dict[str, object]) -> None:
    """What we sign is verified by the reference library, whatever the body holds."""
    secret = new_secret()
    body = json.dumps(data, ensure_ascii=False).encode()
    headers = signed_headers([parse_secret(secret)], MESSAGE, int(time.time()), body)
    assert data == Webhook(secret).verify(body, headers)


def test_both_secrets_sign_during_a_rotation() -> None:
    """While a secret rotates, a receiver with either of the two accepts the message, and one with another does not."""
    old, new = new_secret(), new_secret()
    headers = signed_headers([parse_secret(new), parse_secret(old)], MESSAGE, int(time.time()), BODY)
    for secret in (old, new):
        assert {"test": 2432232314} == Webhook(secret).verify(BODY, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(BODY, headers)


@pytest.mark.parametrize("change", ["webhook-id", "webhook-timestamp", "body"])
def test_everything_is_signed(change: str) -> None:
    """A changed id, timestamp or body is refused."""
    secret = new_secret()
    now = int(time.time())
    headers = signed_headers([parse_secret(secret)], MESSAGE, now, BODY)
    body = BODY.replace(b"2", b"3", 1) if change == "body" else BODY
    if change == "webhook-id":
        headers["webhook-id"] += "x"
    if change == "webhook-timestamp":
        headers["webhook-timestamp"] = str(now + 1)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body, headers)


def test_nothing_leaves_unsigned() -> None:
    """Without a key there are no headers, and so no message."""
    with pytest.raises(ValueError, match="no key"):
        signed_headers([], MESSAGE, 0, BODY)
