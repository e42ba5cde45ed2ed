"""The configuration keys of the ptp plugin; pure."""

from cni.conf import Mtu
from cni.interface.conf import MasqueradeConf


class PtpConf(MasqueradeConf):
    """The configuration of a network whose containers reach each other through the host.

    Attributes:
        ip_masq: Masquerade what containers send outside their subnet.
        ip_masq_backend: `"iptables"` or `"nftables"`. The default is iptables where it works, else nftables.
        mtu: MTU of both ends of the veth pair. 0 leaves it to the kernel.
    """

    plugin = "ptp"
    delete_reads = frozenset({"ipMasq"})
    mtu: Mtu = 0
