"""A plugin whose import makes every fork of this process end at once while a file says so."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from cni.conf import NetConf
from cni.plugin import Plugin
from cni.result import Result

ENDING = Path("/run/ending")


def _end() -> None:
    if ENDING.exists():
        os.kill(os.getpid(), signal.SIGKILL)


os.register_at_fork(after_in_child=_end)
PLUGIN = Plugin("ending", "ends workers", NetConf, lambda *_: Result(), lambda *_: None)
