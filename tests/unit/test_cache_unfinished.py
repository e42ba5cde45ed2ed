"""Files in the result cache of processes that were killed while they wrote."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from cni import faults
from cni.request import Attachment
from cni.runtime.cache import Cache, Entry

if TYPE_CHECKING:
    from pathlib import Path


def test_an_unfinished_file_is_no_attachment_and_is_removed_later(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.write(Entry("web", "c1", "eth0", result={"cniVersion": "1.0.0"}))
    finished = cache.path("web", Attachment("c1", "eth0"))
    unfinished = finished.with_name(".unfinished-0123456789ab")
    finished.rename(unfinished)
    assert cache.list_entries() == []
    # Another process may write it at this moment.
    cache.remove_unfinished()
    assert unfinished.exists()
    an_hour_ago = time.time() - 3600
    os.utime(unfinished, (an_hour_ago, an_hour_ago))
    cache.remove_unfinished()
    assert list(cache.folder.iterdir()) == []


def test_what_a_killed_process_has_left_is_removed_at_once(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    entry = Entry("web", "c1", "eth0", result={"cniVersion": "1.0.0"})
    child = os.fork()
    if child == 0:
        faults.arm(lambda _: os._exit(0))
        cache.folder.mkdir(mode=0o700)
        cache.write(entry)
    os.waitpid(child, 0)
    [left] = cache.folder.iterdir()
    # Another process may write its file at this moment.
    of_other = left.with_name(left.name.replace(f"-{child}-", f"-{os.getpid()}-"))
    of_other.touch()
    cache.remove("web", Attachment("c1", "eth0"))
    assert list(cache.folder.iterdir()) == [of_other]
