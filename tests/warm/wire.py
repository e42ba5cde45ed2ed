"""The frames on the socket of a warm server, as its header file defines them."""

from __future__ import annotations

import re

from plugin_table import ROOT

DEFINED = dict(
    re.findall(r"^#define (\w+) +(.+)$", (ROOT / "build/launcher/protocol.h").read_text(), re.MULTILINE)
)
ACCEPTED, GO, STATUS, STOP, REFUSED = (
    DEFINED[each].strip("'").encode() for each in ("ACCEPTED", "GO", "STATUS", "STOP", "REFUSED")
)
MAX_REQUEST = 160 * 1024
