"""pyroute2's message classes are imported without the package's __init__, and the package stays usable.

These tests fail when a release of pyroute2 no longer allows it.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

# What the whole package imports and the message classes do not.
ABSENT = ("asyncio", "concurrent", "ssl", "unittest", "pyroute2.iproute", "pyroute2.ndb")
HEADER = '{"type": 24, "flags": 5, "sequence_number": 7, "pid": 0}'
ENCODE = f"""
from cni.kernel import message_classes
fields, attrs = {{"family": 2, "dst_len": 16}}, [("RTA_DST", "10.2.0.0"), ("RTA_OIF", 3)]
data = message_classes.encode({HEADER}, fields, attrs)
shown = message_classes.decode(24, data[16:])
assert (shown["dst_len"], shown.get_attr("RTA_DST"), shown.get_attr("RTA_OIF")) == (16, "10.2.0.0", 3)
print(data.hex())
"""


def run(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("group", [16, 20, 24, 32])
def test_a_message_class_brings_no_more_of_its_package(group: int) -> None:
    script = f"""
import sys
from cni.kernel import message_classes
message_classes._message_class({group})
print([name for name in {ABSENT!r} if name in sys.modules])
"""
    assert run(script) == "[]\n"


def test_both_ways_of_importing_give_the_same_bytes() -> None:
    assert run(ENCODE) == run(f"import pyroute2\n{ENCODE}") != "\n"


def test_the_rest_of_the_package_can_be_imported() -> None:
    """A plugin may use pyroute2 itself, before or after the library."""
    script = """
import sys
from cni.kernel import message_classes
message_classes.prepare_for_fork()
first = sys.modules["pyroute2.netlink.rtnl.rtmsg"].rtmsg
assert "asyncio" not in sys.modules
from pyroute2 import IPRoute
import pyroute2
assert pyroute2.IPRoute is IPRoute and pyroute2.__version__
assert type(pyroute2) is type(sys)
from pyroute2.netlink.rtnl.rtmsg import rtmsg
assert rtmsg is first
try:
    pyroute2.nonsense
except AttributeError:
    print("like any other")
"""
    assert run(script) == "like any other\n"


def test_a_module_of_the_package_does_not_load_the_rest() -> None:
    script = """
import sys
from cni.kernel import message_classes
message_classes.prepare_for_fork()
from pyroute2 import config
import pyroute2.netlink.rtnl.tcmsg
print("asyncio" in sys.modules, config.__name__)
"""
    assert run(script) == "False pyroute2.config\n"
