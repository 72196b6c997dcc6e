"""A secret goes in sealed to its tenant and row, and comes out again only for the same tenant and row.

AES-256-GCM by `cryptography`. A blob is ``version (1 byte) | key id (4) | nonce (12) | ciphertext and tag``; tenant
and row are associated data, so that a blob copied to another row or tenant does not open there.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Mapping
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from schemas.errors import Misconfigured, Permanent

SETTING = "PENSTOCK_SECRET_KEYS"
KEY_BYTES = 32
_VERSION = b"\x01"
_ID_BYTES = 4
_NONCE_BYTES = 12
_HEAD = len(_VERSION) + _ID_BYTES + _NONCE_BYTES
_FIX = (
    f"set {SETTING} to base64 of {KEY_BYTES} random bytes, such as `openssl rand -base64 {KEY_BYTES}` prints"
)


class SecretBox:
    """Seals with the first key and opens with any."""

    def __init__(self, ciphers: Mapping[bytes, AESGCM]) -> None:
        """Key id → cipher, the sealing one first; use `from_keys`."""
        self._ciphers = dict(ciphers)
        self._current = next(iter(self._ciphers))

    @classmethod
    def from_keys(cls, keys: str) -> Self:
        """Read the setting `PENSTOCK_SECRET_KEYS`.

        Args:
            keys: comma-separated base64 of 32 bytes each; the first seals, all open.

        Raises:
            Misconfigured: names the setting, never shows a key.
        """
        ciphers: dict[bytes, AESGCM] = {}
        for number, text in enumerate((part.strip() for part in keys.split(",") if part.strip()), start=1):
            key = _key(text, number)
            ciphers.setdefault(_key_id(key), AESGCM(key))
        if not ciphers:
            raise Misconfigured(f"{SETTING} holds no key", field=SETTING, fix=_FIX)
        return cls(ciphers)

    @staticmethod
    def new_key() -> str:
        """A new random key, as the setting wants it."""
        return base64.b64encode(os.urandom(KEY_BYTES)).decode("ascii")

    def seal(self, plaintext: bytes, tenant: str, row: str) -> bytes:
        """Encrypt for one row of one tenant."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[self._current].encrypt(nonce, plaintext, _bound_to(tenant, row))
        return _VERSION + self._current + nonce + sealed

    def open(self, blob: bytes, tenant: str, row: str) -> bytes:
        """Decrypt what was sealed for the same row of the same tenant.

        Raises:
            Misconfigured: the key that sealed it is not among the keys any more.
            Permanent: it was damaged, or sealed for another row or tenant.
        """
        if blob[:1] != _VERSION or len(blob) < _HEAD:
            raise Permanent("a stored secret is damaged")
        cipher = self._ciphers.get(self._id_of(blob))
        if cipher is None:
            raise Misconfigured(
                "a stored secret was sealed with a key that is not set any more",
                field=SETTING,
                fix=f"add the earlier key to the end of {SETTING}",
            )
        try:
            return cipher.decrypt(blob[_HEAD - _NONCE_BYTES : _HEAD], blob[_HEAD:], _bound_to(tenant, row))
        except InvalidTag:
            raise Permanent("a stored secret is damaged, or belongs to another row") from None

    def is_current(self, blob: bytes) -> bool:
        """Whether the first key sealed it; what it did not seal should be sealed again before a key is removed."""
        return self._id_of(blob) == self._current

    @staticmethod
    def _id_of(blob: bytes) -> bytes:
        return blob[1 : 1 + _ID_BYTES]

    def __repr__(self) -> str:
        """Without keys."""
        return f"SecretBox({len(self._ciphers)} keys)"


def _key(text: str, number: int) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise Misconfigured(f"{SETTING}: key {number} is not base64", field=SETTING, fix=_FIX) from None
    if len(key) != KEY_BYTES:
        raise Misconfigured(
            f"{SETTING}: key {number} has {len(key)} bytes instead of {KEY_BYTES}", field=SETTING, fix=_FIX
        )
    return key


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"penstock key id" + key).digest()[:_ID_BYTES]


def _bound_to(tenant: str, row: str) -> bytes:
    """Tenant and row, each with its length, so that no two pairs give the same bytes."""
    parts = (tenant.encode(), row.encode())
    return b"penstock.secret" + b"".join(len(part).to_bytes(4, "big") + part for part in parts)
