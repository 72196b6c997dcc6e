"""Python programs inside the cluster publish through here: calls become events, and events go to the bus.

    async with Producer(tenant="acme") as producer:
        await producer.document_added("handbook", "page-7", "# Holidays …")

        async with pool.acquire() as connection, producer.transaction(connection) as outbox:
            await connection.execute("UPDATE pages SET …")
            await outbox.document_added("handbook", "page-7", "# Holidays …")

When a call has returned, what it published is in the ledger and is never lost (promise P1). A call that the database
could not serve is tried again with the same ids, so that nothing is entered twice.
"""

from __future__ import annotations

from producers.calls import Calls
from producers.outlet import Outlet


class Producer(Outlet, Calls):
    """One method per event that may come in; `publish` takes many at once, `transaction` joins the caller's own."""
