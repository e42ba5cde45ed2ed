"""Real namespaces for tests of plugins, those of this suite and those of other authors.

`Host` has private networking and private directories of CNI. `Sandbox` is a container's network namespace on
a host. Both run programs, Python functions, servers and clients. `Host` also calls plugins and takes
snapshots. They need iproute2 and util-linux, and root or user namespaces. In a conftest.py:

    @pytest.fixture
    def host(bindir):
        with Host(bindir) as host:
            yield host
"""

from cni.testing.answer import Answer
from cni.testing.executables import make_bindir, make_command
from cni.testing.host import GO, OURS, Host, Outside, Sandbox
from cni.testing.place import why_no_namespaces
from cni.testing.snapshot import Snapshot
from cni.testing.traffic import Seen

__all__ = [
    "GO",
    "OURS",
    "Answer",
    "Host",
    "Outside",
    "Sandbox",
    "Seen",
    "Snapshot",
    "make_bindir",
    "make_command",
    "why_no_namespaces",
]
