"""A plugin whose import starts a thread."""

from __future__ import annotations

import threading
import time

from cni.conf import NetConf
from cni.plugin import Plugin
from cni.result import Result

threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
PLUGIN = Plugin("threaded", "has a thread", NetConf, lambda *_: Result(), lambda *_: None)
