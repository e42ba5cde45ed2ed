"""A plugin whose import starts a thread."""

from __future__ import annotations

import threading
import time

from cni_odd import Conf, add

from cni.plugin import Plugin

threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
PLUGIN = Plugin("threaded", "has a thread", Conf, add, lambda _conf, _request: None)
