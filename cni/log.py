"""Log lines for people, in the runtime's log: plain lines on stderr, never on stdout."""

from __future__ import annotations

import sys


def note(text: str) -> None:
    """Log one line to stderr. It is no error if stderr cannot be written."""
    try:
        sys.stderr.write(f"{text}\n")
    except (OSError, AttributeError):
        # AttributeError: sys.stderr is None if the caller has closed the descriptor.
        return
    flush()


def flush() -> bool:
    """Flush stderr. Return whether that succeeded."""
    try:
        sys.stderr.flush()
    except (OSError, AttributeError):
        return False
    return True
