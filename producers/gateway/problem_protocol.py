"""Bytes that are not HTTP end here, answered with a problem document like every other error."""

from __future__ import annotations

import h11
import orjson
from uvicorn.protocols.http.h11_impl import H11Protocol

from producers.gateway.problems import MEDIA_TYPE


class ProblemProtocol(H11Protocol):
    """uvicorn's protocol, whose own refusal is plain text."""

    def send_400_response(self, msg: str) -> None:
        """Answer a request that cannot be parsed."""
        body = orjson.dumps(
            {
                "type": "urn:penstock:problem:bad_request",
                "title": "Bad Request",
                "status": 400,
                "detail": msg,
                "code": "bad_request",
            }
        )
        headers = [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
