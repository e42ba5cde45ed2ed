"""The keys of tuning's configuration; pure."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from cni.conf import Args, Bool, Int, Model, NetConf, Str, Unsigned

DEFAULT_DATA_DIR = "/run/cni/tuning"

# The kind of the link decides what the largest MTU is, and the kernel checks it.
_LARGEST_MTU = 0x7FFFFFFF
LinkMtu = Annotated[Int, Field(ge=0, le=_LARGEST_MTU)]


def _check_path(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f'"dataDir" must be a path, got {text!a}')
    return text


class RuntimeConf(Model):
    """Keys that the runtime adds for the capability `mac`.

    Attributes:
        mac: MAC address of the interface, before `MAC` in CNI_ARGS, and that before `mac`.
    """

    mac: Str = ""


class ArgsOfCni(Model):
    """The part of `args` that the conventions give to plugins. Each key replaces the configuration's own.

    Attributes:
        sysctl: Sysctls to set, besides those of the configuration.
        mac: MAC address of the interface, before `runtimeConfig.mac`.
        promisc: As `promisc` of the configuration.
        mtu: As `mtu` of the configuration.
        allmulti: As `allmulti` of the configuration.
        tx_q_len: As `txQLen` of the configuration.
    """

    sysctl: dict[Str, Str] = Field(default_factory=dict)
    mac: Str | None = None
    promisc: Bool | None = None
    mtu: LinkMtu | None = None
    allmulti: Bool | None = None
    tx_q_len: Unsigned | None = None


class TuningArgs(Args):
    """The `args` object.

    Attributes:
        cni: The part that the conventions give to plugins.
    """

    cni: ArgsOfCni = Field(default_factory=ArgsOfCni)  # type: ignore[assignment]  # the same object, read closer


class TuningConf(NetConf):
    """The configuration of tuning.

    Attributes:
        sysctl: Sysctls of the container's namespace, below `net`. `IFNAME` in a key stands for the interface.
        mac: MAC address of the interface.
        promisc: Switch promiscuous mode on or off. Without this key it stays as it is.
        mtu: MTU of the interface, and of its host end if it is one end of a veth pair. 0 leaves it unchanged.
        allmulti: Switch all-multicast mode on or off. Without this key it stays as it is.
        tx_q_len: Length of the interface's transmit queue in packets. Without this key it stays as it is.
        data_dir: Folder in which the Go plugin keeps its backups, for a DEL of its attachments. The default
            is `/run/cni/tuning`.
        runtime_config: What the runtime adds for capabilities.
    """

    sysctl: dict[Str, Str] = Field(default_factory=dict)
    mac: Str = ""
    promisc: Bool | None = None
    mtu: LinkMtu = 0
    allmulti: Bool | None = None
    tx_q_len: Unsigned | None = None
    data_dir: Annotated[Str, AfterValidator(_check_path)] = ""
    runtime_config: RuntimeConf = Field(default_factory=RuntimeConf)
    args: TuningArgs = Field(default_factory=TuningArgs)
