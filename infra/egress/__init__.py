"""Every URL that a tenant supplies (webhook, callback, document uri) passes here on its way out of the house.

URLs that the operator sets, such as the model API's, are trusted and do not pass here.

ranges     which addresses no tenant may make us connect to
url        one strict reading of a URL, and the form of it that may be logged
policy     what the operator allows: ranges, ports, https only, proxy
resolver   names to addresses
dial       connects to the address that was checked, and to no other
headers    what a tenant may set, and what is kept of a reply
stream     the bytes of one connection
kept       connections between requests
proxy      the tunnel through the operator's egress proxy
door       `Egress`: sends one request, within a deadline and a size, and follows nothing
"""

from __future__ import annotations

from infra.egress.door import Document, Egress, Reply
from infra.egress.headers import check_headers
from infra.egress.policy import EgressPolicy
from infra.egress.resolver import Resolver, SystemResolver
from infra.egress.url import CheckedUrl, lies_under, public_url

__all__ = [
    "CheckedUrl",
    "Document",
    "Egress",
    "EgressPolicy",
    "Reply",
    "Resolver",
    "SystemResolver",
    "check_headers",
    "lies_under",
    "public_url",
]
