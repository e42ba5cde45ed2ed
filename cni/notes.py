"""Notes for the person who reads the runtime's log: plain lines on stderr, never on stdout."""

from __future__ import annotations

import sys


def note(text: str) -> None:
    """Write one line to stderr; that nobody listens there is no error."""
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except OSError:
        pass
