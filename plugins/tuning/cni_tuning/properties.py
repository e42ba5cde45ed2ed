"""The attributes and sysctls of an attachment: one list for CHECK and repair."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cni.interface import compare
from cni.interface.pair import open_sides
from cni.interface.plan import owner_of
from cni.kernel import link
from cni.operations.properties import Property
from cni_tuning import backup, links, sysctls
from cni_tuning.plan import Attributes, plan_attributes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.interface.pair import Sides
    from cni.kernel.link import Link
    from cni.request import Request
    from cni.undo import Undo
    from cni_tuning.conf import TuningConf
    from cni_tuning.sysctls import Setting

_WHERE = " of the container"


def list_properties(conf: TuningConf, request: Request) -> Iterator[Property]:
    """Yield all that ADD sets. Messages begin with those of the Go plugin."""
    result = request.required_prev_result()
    wanted = plan_attributes(conf, request.known_args("MAC"))
    settings = sysctls.list_settings(conf, request)
    if not wanted and not settings:
        return
    with open_sides(request.netns) as sides:
        saved = backup.load(backup.key_of(conf.name, request.attachment), sides.ns)
        if wanted:
            inside = link.find(sides.inside, request.ifname)
            yield compare.holds(inside is not None, f"Cannot find container link {request.ifname}")
            if inside:
                yield from _of_attributes(sides, inside, wanted)
            # The Go plugin does not change the host end.
            if inside and wanted.mtu is not None and saved and saved.host_end:
                end = links.find_host_end(sides, result, owner_of(conf, request), inside)
                yield from _of_host_end(sides, end, wanted.mtu)
        for each in settings:
            yield _of_sysctl(sides, each, saved)


def _of_attributes(sides: Sides, inside: Link, wanted: Attributes) -> Iterator[Property]:
    name = inside.name
    now = links.present(inside, wanted)
    subjects = (
        f"configured Ethernet of {name}",
        f"configured MTU of {name}",
        f"link {name} configured promisc",
        f"configured all-multicast mode of {name}",
        f"configured Transmit Queue Length of {name}",
    )
    for field, subject, current, value in zip(Attributes._fields, subjects, now, wanted, strict=True):
        # The Go plugin shows promiscuous mode as the number of those who asked for it.
        shown = int(current or 0) if field == "promisc" else current
        message = f"Error: Tuning {subject} is {_word(value)}, current value is {_word(shown)}"
        done = f"{name}{_WHERE}: set {field.replace('_', ' ')} to {_word(value)}"
        alone = Attributes._make(value if each == field else None for each in Attributes._fields)
        fix = compare.send(sides.inside, done, *links.changes(inside, alone))
        yield Property(f"{field} of {name}", current, value, message, fix)


def _of_host_end(sides: Sides, end: Link | None, mtu: int) -> Iterator[Property]:
    if end:
        message = f"MTU of the host end {end.name} is {end.mtu}, not {mtu}"
        fix = compare.send(
            sides.host, f"{end.name}: set mtu to {mtu}", link.set_mtu(end.name, end.index, mtu)
        )
        yield Property(f"MTU of {end.name}", end.mtu, mtu, message, fix)


def _of_sysctl(sides: Sides, setting: Setting, saved: backup.Backup | None) -> Property:
    """Return the property that a sysctl has the value that the kernel made of the configured one."""
    current = sysctls.read(sides.ns, setting.key)
    known = saved.sysctl.get(setting.key) if saved else None
    is_known = known is not None and known.written == setting.value
    expected = known.shown if known and is_known and known.shown is not None else setting.value
    # A value that nobody can read, as that of route/flush, was not there to read at ADD, either.
    is_write_only = current is None and known is not None and is_known and known.before is None
    message = (
        f"Error: Tuning configured value of /proc/sys/{setting.key} is {setting.value}, "
        f"current value is {current}"
    )
    fix = partial(_set_sysctl, sides, setting)
    is_right = is_write_only or sysctls.is_equal(current, expected)
    return Property(setting.key, is_right, wanted=True, message=message, fix=fix)


def _set_sysctl(sides: Sides, setting: Setting, _undo: Undo) -> str:
    sysctls.write(sides.ns, setting.key, setting.content)
    return f"set sysctl {setting.key}{_WHERE} to {setting.value}"


def _word(value: object) -> str:
    """Return a value as JSON has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
