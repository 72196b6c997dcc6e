from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest

from infra import signing_secrets
from infra.secretbox import SecretBox
from schemas.errors import BadInput, Misconfigured, Permanent

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def whsec(size: int) -> str:
    """A secret of so many bytes."""
    return "whsec_" + base64.b64encode(b"k" * size).decode()


@pytest.fixture
def box() -> SecretBox:
    """A box with one key."""
    return SecretBox.from_keys(SecretBox.new_key())


def test_a_new_secret_has_32_random_bytes() -> None:
    """A new secret is whsec_ and base64 of 32 bytes, another one each time."""
    one, two = signing_secrets.new_secret(), signing_secrets.new_secret()
    assert one != two
    assert 32 == len(signing_secrets.parse_secret(one))


@pytest.mark.parametrize("size", [24, 32, 64])
def test_given_secrets(size: int) -> None:
    """A secret of 24 to 64 bytes is taken as it is given."""
    assert b"k" * size == signing_secrets.parse_secret(whsec(size))


@pytest.mark.parametrize(
    "text", ["", "whsec_", whsec(23), whsec(65), whsec(32)[6:], "whsec_!!!!", whsec(32) + "\n", "whsec_ü"]
)
def test_bad_secrets(text: str) -> None:
    """Anything else is refused by a message that does not show it."""
    with pytest.raises(BadInput) as caught:
        signing_secrets.parse_secret(text)
    assert "secret" == caught.value.field
    assert not text.removeprefix("whsec_") or text.removeprefix("whsec_") not in str(caught.value.as_dict())


def test_rotation_overlaps(box: SecretBox) -> None:
    """After a rotation both secrets sign until the overlap ends, the new one first; then only the new one."""
    first = signing_secrets.seal_secret(box, whsec(24), tenant="t", endpoint="e")
    second = signing_secrets.seal_secret(box, whsec(32), tenant="t", endpoint="e")
    entries = signing_secrets.rotate([first], second, NOW + timedelta(hours=1))

    def keys(at: datetime) -> list[int]:
        opened = signing_secrets.open_secrets(box, entries, tenant="t", endpoint="e", now=at)
        return [len(key) for key in opened]

    assert [[32, 24], [32]] == [keys(NOW), keys(NOW + timedelta(hours=2))]
    third = signing_secrets.rotate(entries, first, NOW + timedelta(hours=9))
    assert (NOW + timedelta(hours=1)).isoformat() == third[2]["until"]
    leaked = signing_secrets.rotate(third, second, NOW)
    assert [None, *[NOW.isoformat()] * 3] == [entry["until"] for entry in leaked]


def test_secrets_belong_to_their_endpoint(box: SecretBox) -> None:
    """A sealed secret does not open for another endpoint or tenant."""
    entry = signing_secrets.seal_secret(box, whsec(32), tenant="t", endpoint="e")
    for tenant, endpoint in (("u", "e"), ("t", "f")):
        with pytest.raises(Permanent):
            signing_secrets.open_secrets(box, [entry], tenant=tenant, endpoint=endpoint, now=NOW)


def test_an_endpoint_without_a_secret_signs_nothing(box: SecretBox) -> None:
    """No message leaves unsigned: an endpoint whose secrets have all ended is an error."""
    with pytest.raises(Misconfigured):
        signing_secrets.open_secrets(box, [], tenant="t", endpoint="e", now=NOW)
