"""Notes for the person who reads the runtime's log: plain lines on stderr, never on stdout."""

from __future__ import annotations

import sys


def note(text: str) -> None:
    """Write one line to stderr. A stderr that cannot be written is no error."""
    try:
        sys.stderr.write(f"{text}\n")
    except (OSError, AttributeError):
        # AttributeError: the interpreter has None in place of a stream that the caller has closed.
        return
    flush()


def flush() -> bool:
    """Write what lies in the buffer of stderr. Return whether that could be done."""
    try:
        sys.stderr.flush()
    except (OSError, AttributeError):
        return False
    return True
