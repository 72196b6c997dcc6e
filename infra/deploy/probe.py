"""A health check: one URL in, exit 0 when it answers 2xx. The image has no curl."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request

TIMEOUT = 5.0


def probe(url: str) -> bool:
    """Whether the URL answers 2xx within the time; http only, and no proxy is used."""
    if not url.startswith("http://"):
        raise ValueError("the probe speaks http only")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=TIMEOUT) as reply:
            return 200 <= int(reply.status) < 300
    except (urllib.error.URLError, OSError):
        return False


if __name__ == "__main__":
    sys.exit(0 if len(sys.argv) == 2 and probe(sys.argv[1]) else 1)
