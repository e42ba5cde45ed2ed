"""ADD: save the present values, then set attributes and sysctls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.interface import layer3
from cni.interface.pair import open_sides
from cni.interface.plan import owner_of
from cni.kernel import link
from cni.state import attachments
from cni_tuning import backup, links, sysctls
from cni_tuning.backup import SysctlBackup
from cni_tuning.plan import Attributes, own_ips, plan_attributes, plan_result

if TYPE_CHECKING:
    from cni.firewall.intents import Owner
    from cni.interface.pair import Sides
    from cni.kernel.link import Link
    from cni.request import Request
    from cni.result import Result
    from cni.undo import Undo
    from cni_tuning.conf import TuningConf
    from cni_tuning.sysctls import Setting


def add(conf: TuningConf, request: Request, undo: Undo) -> Result:
    """Set everything, and return prevResult with the new MAC address and MTU."""
    result = request.required_prev_result()
    wanted = plan_attributes(conf, request.known_args("MAC"))
    settings = sysctls.list_settings(conf, request)
    if not wanted and not settings:
        return result
    key = backup.key_of(conf.name, request.attachment)
    with open_sides(request.netns) as sides:
        look_up = link.get if wanted else link.find
        inside = look_up(sides.inside, request.ifname)
        end = None
        if inside and wanted.mtu is not None:
            end = links.find_host_end(sides, result, owner_of(conf, request), inside)
        now = _look(sides, wanted, settings, inside, end)
        saved = backup.completed(backup.load(key, sides.ns), now, request.ifname)
        undo.add(f"restore the settings of {request.ifname}", backup.restore_attachment, key, request.netns)
        attachments.save(key, saved.to_values(), sides.ns)
        if inside:
            _set_attributes(sides, result, wanted, inside, end)
            if wanted.mac and wanted.mac != inside.mac:
                _remember_mac(sides, result, owner_of(conf, request), inside, wanted.mac)
        # After the attributes: the kernel changes the IPv6 MTU of a link, a sysctl, with its MTU.
        if settings:
            shown = sysctls.write_all(sides.ns, settings)
            attachments.save(key, saved.with_shown(shown).to_values(), sides.ns)
    return plan_result(result, request.ifname, wanted, end.name if end else "")


def _look(
    sides: Sides, wanted: Attributes, settings: tuple[Setting, ...], inside: Link | None, end: Link | None
) -> backup.Backup:
    """Return the values before the change."""
    values = sysctls.read_all(sides.ns, [each.key for each in settings]) if settings else {}
    before = {each.key: SysctlBackup(before=values[each.key], written=each.value) for each in settings}
    return backup.make(links.present(inside, wanted) if inside else Attributes(), inside, end, before)


def _remember_mac(sides: Sides, result: Result, owner: Owner, inside: Link, mac: str) -> None:
    """Let the next container with one of the addresses on this bridge announce it."""
    end = links.find_host_end(sides, result, owner, inside)
    if end and end.master:
        layer3.remember(sides.host, end.master, own_ips(result, inside.name), mac)


def _set_attributes(sides: Sides, result: Result, wanted: Attributes, inside: Link, end: Link | None) -> None:
    has_new_mac = wanted.mac not in {None, inside.mac}
    # The kernel then announces the IPv4 addresses with the new MAC address.
    before = [link.set_arp_notify(inside.name, inside.index)] if has_new_mac else []
    sides.inside.batch([*before, *links.changes(inside, wanted)])
    if end:
        # Otherwise one end drops the larger packets of the other without a word.
        sides.host.batch(links.changes(end, Attributes(mtu=wanted.mtu)))
    ips = own_ips(result, inside.name)
    ipv6 = tuple(each for each in ips if each.address.version == 6)
    if has_new_mac and ipv6 and inside.operstate == "up":
        layer3.announce(ipv6, sides, link.get(sides.inside, inside.name))
