"""Executables for which the kernel is late with the local routes of IPv6 addresses, as on a busy host."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from cni.testing import make_bindir
from plugin_table import declared, packages

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Answer

_REPORT = "asked for "
# A script runs these lines before it becomes a plugin. The first question for an address has the answer that
# the route is not there, the others have the kernel's.
_LATE = f"""\
from cni.kernel import route
def is_received(nl, address, index, ask=route.is_received, asked=set()):
    answer = address in asked and ask(nl, address, index)
    asked.add(address)
    sys.stderr.write(f"{_REPORT}{{address}} {{answer}}\\n")
    return answer
route.is_received = is_received
"""


def make_late_bindir(folder: Path) -> Path:
    """Return a folder of executables for all plugins."""
    bindir = make_bindir(folder, packages(declared()))
    for path in bindir.iterdir():
        script = path.read_text()
        assert "\nfrom cni.multicall" in script
        path.write_text(script.replace("\nfrom cni.multicall", f"\n{_LATE}from cni.multicall"))
    return bindir


def waited_for(call: Answer) -> set[str]:
    """Return the addresses for which a call has asked again, until the kernel received packets to them."""
    told = defaultdict(list)
    for line in call.stderr.splitlines():
        if line.startswith(_REPORT):
            address, answer = line.removeprefix(_REPORT).split(" ")
            told[address].append(answer)
    # The kernel may be late for more questions than the first.
    return {address for address, answers in told.items() if answers[0] == "False" and answers[-1] == "True"}
