"""Running servers become one record, kept in `.penstock/servers.json` for as long as they run, read by other processes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from infra.local.folder import Folder, write_private


@dataclass(frozen=True, slots=True)
class Servers:
    """Where the embedded servers are. Its repr shows no password."""

    database_url: str = field(repr=False)
    """Login of the processes: member of the serving roles, owner of nothing."""
    database_owner_url: str = field(repr=False)
    """Login of migrate and maintain."""
    redis_url: str = field(repr=False)
    superuser_url: str = field(repr=False)
    """For tests only: through the unix socket, which only our own user can reach."""
    postgres_pid: int
    postgres_port: int
    postgres_version: str
    valkey_pid: int
    valkey_port: int
    valkey_version: str
    owner_pid: int

    def write(self, folder: Folder) -> None:
        """Let other processes of our user find the servers."""
        write_private(folder.servers, json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, folder: Folder) -> Servers | None:
        """What the owner has written, true or not any more; None when there is nothing.

        Raises:
            Misconfigured: the folder belongs to another user.
        """
        if not folder.exists():
            return None
        try:
            text: dict[str, Any] = json.loads(folder.servers.read_bytes())
            return cls(**text)
        except (FileNotFoundError, ValueError, TypeError):  # TypeError: written by another version
            return None
