"""The values before ADD: kept for each attachment, restored by DEL, by GC, and by an ADD that fails.

The values are in a record of `cni.state.attachments`, which is bound to the container's namespace. The Go
plugin keeps them in a file of its `dataDir`; DEL restores those as well, and removes the file. A container
may have changed what it had at ADD. All values are therefore input, and are set in its own namespace only,
except for the MTU of its host end, whose owner the kernel proves.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import AfterValidator, Field

from cni.conf import Bool, Int, Model, Str, Unsigned, decode_object, read
from cni.errors import CniError
from cni.interface.conf import parse_mac
from cni.interface.pair import Sides
from cni.kernel import link, netns, veth
from cni.kernel.rtnetlink import Netlink
from cni.log import note
from cni.state import attachments, files
from cni_tuning import sysctls
from cni_tuning.conf import DEFAULT_DATA_DIR, LinkMtu
from cni_tuning.links import changes
from cni_tuning.plan import Attributes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cni.kernel.link import Link
    from cni.kernel.netns import Netns
    from cni.kernel.rtnetlink import Message
    from cni.request import Attachment
    from cni_tuning.conf import TuningConf

NAME = "tuning"


def _check_mac(text: str) -> str:
    """Return a MAC address in lower case with colons. Raise CniError 7."""
    return parse_mac(text) if text else ""


class SysctlBackup(Model):
    """A sysctl: its value before ADD, what ADD wrote, and what the kernel showed then, as 1 for "0x1".

    `before` is None if the value cannot be read. `shown` is None if ADD was killed before it had looked.
    """

    before: Str | None = None
    written: Str = ""
    shown: Str | None = None


class HostEndBackup(Model):
    """The MTU of the host end before ADD."""

    name: Str
    index: Int
    mtu: LinkMtu


class Backup(Model):
    """The values of one attachment before ADD. The first five keys are those of the Go plugin's file.

    `index` is the interface's. It is 0 in a file of the Go plugin, or if there was no interface.
    """

    mac: Annotated[Str, AfterValidator(_check_mac)] = ""
    mtu: LinkMtu = 0
    promisc: Bool | None = None
    allmulti: Bool | None = None
    tx_q_len: Unsigned | None = None
    index: Int = 0
    host_end: HostEndBackup | None = None
    sysctl: dict[Str, SysctlBackup] = Field(default_factory=dict)

    @property
    def attributes(self) -> Attributes:
        """The attributes of the interface."""
        return Attributes(self.mac or None, self.mtu or None, self.promisc, self.allmulti, self.tx_q_len)

    def with_shown(self, shown: Mapping[str, str | None]) -> Self:
        """Return the backup with the values that the kernel shows for sysctls after the change."""
        sysctl = self.sysctl | {
            key: self.sysctl[key].model_copy(update={"shown": value}) for key, value in shown.items()
        }
        return self.model_copy(update={"sysctl": sysctl})

    def to_values(self) -> dict[str, Any]:
        """Return what a record holds."""
        return self.model_dump(by_alias=True, exclude_defaults=True)


def key_of(network: str, attachment: Attachment) -> attachments.Key:
    """Return the key of the record of an attachment."""
    return attachments.Key(NAME, network, *attachment)


def load(key: attachments.Key, ns: Netns) -> Backup | None:
    """Return the backup of an attachment in this namespace; None if there is none, or if it is damaged."""
    record = attachments.load(key)
    return _parse(record.values, record.path) if record and record.is_of(ns) else None


def make(
    now: Attributes, inside: Link | None, host_end: Link | None, sysctl: dict[str, SysctlBackup]
) -> Backup:
    """Return the backup of present values."""
    end = HostEndBackup(name=host_end.name, index=host_end.index, mtu=host_end.mtu) if host_end else None
    return Backup.model_validate({
        "mac": now.mac,
        "mtu": now.mtu,
        "promisc": now.promisc,
        "allmulti": now.allmulti,
        "txQLen": now.queue_length,
        "index": inside.index if inside else 0,
        "hostEnd": end,
        "sysctl": sysctl,
    })  # fmt: skip


def completed(earlier: Backup | None, new: Backup, ifname: str) -> Backup:
    """Return the backup of an ADD that is repeated: the values before the first one count.

    Those of another interface, which had the name then, do not.
    """
    if earlier is None:
        return new
    is_same = earlier.index == new.index
    values = earlier.model_dump(by_alias=True, exclude_defaults=True) if is_same else {}
    sysctl = {key: each for key, each in earlier.sysctl.items() if is_same or not _is_of_link(key, ifname)}
    for key, each in new.sysctl.items():
        sysctl[key] = each.model_copy(update={"before": sysctl[key].before}) if key in sysctl else each
    return Backup.model_validate(new.model_dump(by_alias=True) | values | {"sysctl": sysctl})


def _is_of_link(key: str, ifname: str) -> bool:
    """Return whether a sysctl is one of the interface: another one of the name has its own."""
    return ifname in key.split("/")[3:-1]


def restore_attachment(key: attachments.Key, path: str) -> None:
    """Restore the values of a record in the namespace at `path`, and drop the record; the undo of ADD."""
    record = attachments.load(key)
    with open_if_there(path if record else "") as sides:
        if record and sides:
            restore_record(record, sides)
    attachments.drop(key)


def restore_record(record: attachments.Record, sides: Sides) -> None:
    """Restore the values of a record, if it is of this namespace."""
    if record.is_of(sides.ns) and (saved := _parse(record.values, record.path)):
        restore(saved, sides, record.ifname)


def restore(saved: Backup, sides: Sides, ifname: str) -> None:
    """Restore all values that can be restored, and log the others: the container may have changed anything.

    A sysctl that has another value than ADD has set stays: another network of the container may have set it.
    """
    inside = link.find(sides.inside, ifname)
    is_same = inside is not None and saved.index in {0, inside.index}
    if inside and is_same:
        _send(sides.inside, changes(inside, saved.attributes))
        if saved.host_end:
            end = veth.find(sides.host, [saved.host_end.name], sides.ns).end_of(inside)
            if end and end.index == saved.host_end.index:
                _send(sides.host, changes(end, Attributes(mtu=saved.host_end.mtu)))
    for key, each in saved.sysctl.items():
        try:
            if is_same or not _is_of_link(key, ifname):
                _restore_sysctl(sides.ns, key, each)
        except CniError as error:
            note(f"{NAME}: {error}")


def _send(nl: Netlink, messages: list[Message]) -> None:
    for refusal in filter(None, nl.attempt(messages)):
        note(f"{NAME}: {refusal}")


def _restore_sysctl(ns: Netns, key: str, saved: SysctlBackup) -> None:
    if saved.before is None:
        return
    current = sysctls.read(ns, key)
    if current is not None and (saved.shown is None or sysctls.is_equal(current, saved.shown)):
        sysctls.write(ns, key, saved.before or "\n")


@contextmanager
def open_if_there(path: str) -> Iterator[Sides | None]:
    """Open a namespace and a socket on both sides; yield None if it is gone. Raise CniError 8."""
    ns = netns.find(path)
    if ns is None:
        yield None
        return
    with ns, Netlink() as host, Netlink(ns) as inside:
        yield Sides(host, inside, ns)


def go_file(conf: TuningConf, attachment: Attachment) -> Path:
    """Return the path of the Go plugin's backup."""
    return Path(conf.data_dir or DEFAULT_DATA_DIR, f"{attachment.container_id}_{attachment.ifname}.json")


def read_go_file(path: Path) -> Backup | None:
    """Return the backup of the Go plugin; None if there is none, or if it cannot be read, which is logged."""
    if not os.path.lexists(path):
        return None
    try:
        files.check_keepers(path.parent)
        content = files.read(path)
        return _parse(decode_object(content, str(path)), str(path)) if content is not None else None
    except CniError as error:
        note(f"{NAME}: ignoring {path}: {error}")
        return None


def _parse(values: Mapping[str, Any], path: str) -> Backup | None:
    try:
        return read(Backup, dict(values))
    except CniError as error:
        note(f"{NAME}: ignoring {path}: {error}")
        return None
