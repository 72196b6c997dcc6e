from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from infra.local.folder import Folder
from infra.local.lock import Holder, OwnerLock, current_holder
from schemas.errors import Conflict


def test_the_lock_names_its_holder_until_it_is_released(tmp_path: Path) -> None:
    """Who holds it can be read while it is held, and only then."""
    folder = Folder.at(tmp_path)
    lock = OwnerLock.take(folder, "a test")
    holder = current_holder(folder)

    assert holder is not None
    assert (os.getpid(), "a test", False, True) == (holder.pid, holder.what, holder.stopping, holder.lives())
    with pytest.raises(Conflict, match=rf"a test \(pid {os.getpid()}\)"):
        OwnerLock.take(folder, "another test")

    lock.release()
    assert current_holder(folder) is None
    OwnerLock.take(folder, "another test").release()


def test_one_folder_has_one_name_however_it_is_reached(tmp_path: Path) -> None:
    """By its directory, by itself or through a link: the token is the same, so its servers are found."""
    (tmp_path / "data").mkdir()
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / ".penstock").symlink_to(tmp_path / "data")
    ways = [tmp_path / "project", tmp_path / "project" / ".penstock"]

    assert [Folder(tmp_path / "data").token] * 2 == [Folder.at(way).token for way in ways]


def test_what_a_dead_holder_wrote_is_not_believed(tmp_path: Path) -> None:
    """Its pid may be another process's by now, which nobody may signal."""
    folder = Folder.at(tmp_path)
    folder.create()
    folder.lock.write_text(
        json.dumps({"pid": os.getppid(), "started": 1.0, "what": "old", "stopping": False}), encoding="utf-8"
    )

    assert current_holder(folder) is None
    assert not Holder(os.getppid(), 1.0, "old").lives()
    OwnerLock.take(folder, "a test").release()


def test_a_dying_holder_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The threads of a killed owner hold its lock for a moment after its death; that is no reason to be refused."""
    folder = Folder.at(tmp_path)
    dying = OwnerLock.take(folder, "the first")
    folder.lock.write_text(
        json.dumps({"pid": os.getppid(), "started": 1.0, "what": "dead", "stopping": False}), encoding="utf-8"
    )
    monkeypatch.setattr("infra.local.lock.time.sleep", lambda _: dying.release())

    OwnerLock.take(folder, "the second").release()


def test_clearing_up_makes_no_folder(tmp_path: Path) -> None:
    """Whoever only stops things does not begin a new stack by it."""
    with pytest.raises(FileNotFoundError):
        OwnerLock.take(Folder.at(tmp_path), "penstock down", stopping=True)

    assert [] == list(tmp_path.iterdir())


def test_a_wiped_lock_is_nobodys(tmp_path: Path) -> None:
    """Two owners can never hold the lock of one path, although the file was removed under the first."""
    folder = Folder.at(tmp_path)
    first = OwnerLock.take(folder, "the first")
    folder.lock.unlink()
    second = OwnerLock.take(folder, "the second")
    holder = current_holder(folder)

    assert holder is not None
    assert "the second" == holder.what
    first.release()
    second.release()
