from __future__ import annotations

import pytest
from standardwebhooks import Webhook

from infra.outbox import body_of
from penstock_client import SignatureInvalid, verify_webhook
from schemas.ids import uuid7, uuid7_time

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NOW = 1614265330


def headers(body: bytes, *, at: int = NOW, secret: str = SECRET) -> dict[str, str]:
    """What a sender that is not ours puts on a message."""
    from datetime import UTC, datetime  # noqa: PLC0415 - the oracle wants a datetime

    signature = Webhook(secret).sign("msg_1", datetime.fromtimestamp(at, UTC), body.decode())
    return {"Webhook-Id": "msg_1", "Webhook-Timestamp": str(at), "webhook-signature": f"v1a,x {signature}"}


def message() -> bytes:
    """A message as Penstock writes it."""
    event_id = uuid7()
    return body_of("document.indexed", event_id, 7, {"document_id": "d"}, uuid7_time(event_id))


def test_a_genuine_message_is_read() -> None:
    """Signed by somebody else's library; one of several secrets is enough while one is being replaced."""
    body = message()
    read = verify_webhook(body, headers(body), SECRET, now=NOW)
    assert ("document.indexed", {"document_id": "d"}, 7) == (read.type, read.data, read.sequence)
    assert read == verify_webhook(body, headers(body), ["whsec_" + "A" * 32, SECRET], now=NOW + 299)


@pytest.mark.parametrize(
    ("change", "now"),
    [
        ({}, NOW + 301),
        ({}, NOW - 301),
        ({"Webhook-Id": "msg_2"}, NOW),
        ({"Webhook-Timestamp": "soon"}, NOW),
        ({"webhook-signature": "v1,AAAA"}, NOW),
        ({"webhook-signature": ""}, NOW),
    ],
)
def test_anything_else_is_not(change: dict[str, str], now: float) -> None:
    """Old, early, renamed, changed or unsigned messages are refused alike."""
    body = message()
    with pytest.raises(SignatureInvalid):
        verify_webhook(body, {**headers(body), **change}, SECRET, now=now)


def test_a_changed_body_a_missing_header_and_a_wrong_secret_are_refused() -> None:
    """Nothing of it is believed."""
    body = message()
    for given, more, secret in (
        (body + b" ", headers(body), SECRET),
        (body, {}, SECRET),
        (body, headers(body), "whsec_" + "A" * 32),
        (body, headers(body), "whsec_no base64"),
        (b"[]", headers(b"[]"), SECRET),
    ):
        with pytest.raises(SignatureInvalid):
            verify_webhook(given, more, secret, now=NOW)


def test_the_specification_s_own_vector_fits() -> None:
    """Standard Webhooks 1.0; its body is no message of ours, which is said after the signature has been checked."""
    given = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": str(NOW),
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    with pytest.raises(SignatureInvalid, match="genuine"):
        verify_webhook(b'{"test": 2432232314}', given, SECRET, now=NOW)
