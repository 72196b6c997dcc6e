from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.secretbox import SecretBox
from schemas.errors import Misconfigured, Permanent

ONE, TWO = (base64.b64encode(byte * 32).decode() for byte in (b"1", b"2"))


@given(st.binary(max_size=200), st.text(max_size=20), st.text(max_size=20))
def test_what_is_sealed_opens(plaintext: bytes, tenant: str, row: str) -> None:
    """Whatever is sealed opens for the same tenant and row, and no two blobs are equal."""
    box = SecretBox.from_keys(ONE)
    blob = box.seal(plaintext, tenant, row)
    assert plaintext == box.open(blob, tenant, row)
    assert blob != box.seal(plaintext, tenant, row)


@pytest.mark.parametrize(("tenant", "row"), [("b", "1"), ("a", "2"), ("a1", ""), ("", "a1"), ("A", "1")])
def test_a_blob_belongs_to_its_row(tenant: str, row: str) -> None:
    """A blob that is copied to another tenant or row does not open there."""
    box = SecretBox.from_keys(ONE)
    with pytest.raises(Permanent, match="another row"):
        box.open(box.seal(b"secret", "a", "1"), tenant, row)


def test_the_first_key_seals_and_all_open() -> None:
    """Keys are rotated by putting a new one in front; only when the old one is removed its blobs stay shut."""
    before, during, after = (
        SecretBox.from_keys(ONE),
        SecretBox.from_keys(f"{TWO}, {ONE}"),
        SecretBox.from_keys(TWO),
    )
    old = before.seal(b"x", "t", "r")
    new = during.seal(b"x", "t", "r")
    assert [b"x", b"x", b"x"] == [
        during.open(old, "t", "r"),
        during.open(new, "t", "r"),
        after.open(new, "t", "r"),
    ]
    assert [False, True] == [during.is_current(old), during.is_current(new)]
    with pytest.raises(Misconfigured) as caught:
        after.open(old, "t", "r")
    assert "PENSTOCK_SECRET_KEYS" == caught.value.field


@given(st.data())
def test_a_damaged_blob_does_not_open(data: st.DataObject) -> None:
    """Any changed, missing or added byte keeps a blob shut, with an error of ours."""
    box = SecretBox.from_keys(ONE)
    blob = bytearray(box.seal(b"secret", "t", "r"))
    match data.draw(st.sampled_from(["flip", "cut", "add"])):
        case "flip":
            blob[data.draw(st.integers(0, len(blob) - 1))] ^= data.draw(st.integers(1, 255))
        case "cut":
            del blob[data.draw(st.integers(0, len(blob) - 1)) :]
        case _:
            blob += data.draw(st.binary(min_size=1, max_size=5))
    with pytest.raises((Permanent, Misconfigured)):
        box.open(bytes(blob), "t", "r")


@pytest.mark.parametrize(
    "keys", ["", " , ", "short", "not base64!", base64.b64encode(b"x" * 31).decode(), f"{ONE},bad"]
)
def test_bad_keys_name_the_setting(keys: str) -> None:
    """Unusable keys stop the process, name the setting and how to make one, and are not shown."""
    with pytest.raises(Misconfigured) as caught:
        SecretBox.from_keys(keys)
    assert "PENSTOCK_SECRET_KEYS" == caught.value.field
    assert "openssl" in str(caught.value.fix)
    assert ONE not in str(caught.value.as_dict())


def test_a_box_does_not_show_its_keys() -> None:
    """No representation of the box holds a key."""
    box = SecretBox.from_keys(ONE)
    assert "SecretBox(1 keys)" == repr(box)
    assert ONE not in repr(vars(box))
