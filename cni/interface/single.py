"""A link of the container that has no end on the host, as macvlan, ipvlan, VLAN and dummy links have none.

The link ends with the container's namespace. While that exists, DEL finds the link there by its name and its
alias, and GC by the record that ADD has saved. The name that a veth pair's host end would have is the link's
own until it has its final one. A link of that name that another attachment has marked stays:
a path such as /proc/PID/ns/net can pass to another container before a late DEL comes.
"""

from __future__ import annotations

import errno
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from cni import delegate
from cni.errors import CniError, Code, ErrorList, KernelError
from cni.firewall.intents import Owner
from cni.interface import compare, default_route, ipam, layer3
from cni.interface.plan import (
    Layer3,
    PairPlan,
    complete_routes,
    host_name,
    plan_pair,
    ranked,
    required_ips,
)
from cni.kernel import link, link_removal, netns, veth
from cni.kernel.attributes import number
from cni.kernel.rtnetlink import Netlink
from cni.marks import ALIAS, alias
from cni.operations.garbage import Removal, Stale
from cni.operations.status import trial
from cni.request import Attachment as Key
from cni.result import Interface, Result
from cni.state import attachments

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from cni.interface.compare import Attachment
    from cni.interface.conf import InterfaceConf
    from cni.interface.pair import Sides
    from cni.kernel.link import Link
    from cni.operations.properties import Property
    from cni.request import Request
    from cni.undo import Undo

_NOARP = 0x80
# The modules of the kernel that are not called as the kind is.
_MODULES = {"vlan": "8021q"}


class LinkSpec(NamedTuple):
    """A link to create. `data` are the settings of its kind, which the module of the kind makes.

    `parent` is the link below, None for none; `is_inside` says that this one is in the container's namespace.
    `mac` "" and `mtu` 0 leave these to the kernel. `master` is the index of a bridge in the container, or 0.

    The kernel makes some kinds without netlink: then `make` makes the link of a name in the container, with
    MAC address and MTU, in the group of unfinished links. It returns False if a link of that name exists.
    """

    kind: str
    data: bytes = b""
    parent: Link | None = None
    is_inside: bool = False
    mac: str = ""
    mtu: int = 0
    master: int = 0
    make: Callable[[str], bool] | None = None
    noun: str = ""

    @property
    def doing(self) -> str:
        """The begin of an error's message; `noun` is the word that people use for the kind."""
        return f"failed to create {self.noun or self.kind}"


def create(conf: InterfaceConf, plan: PairPlan, spec: LinkSpec, sides: Sides, undo: Undo) -> Link:
    """Create the link in the container's namespace, down, under its name and with its mark; return it.

    It gets its name in a second step: older kernels refuse a new link whose name the host has, too. Raise
    CniError 105 if the container has a link of that name, else KernelError.
    """
    doing = spec.doing
    check_name(sides.inside, plan, doing)
    key = _key(conf, plan)
    undo.add("remove the record", attachments.drop, key)
    attachments.save(key, {}, sides.ns)
    undo.add(f"remove {plan.ifname} from the container", remove, plan, spec.kind)
    is_here = spec.parent is not None and not spec.is_inside
    attrs = [link.identity(plan.host_name, spec.mac, spec.mtu), number(link.GROUP, link.UNFINISHED)]
    attrs += [number(link.LINK, spec.parent.index)] if spec.parent else []
    attrs += [number(link.NET_NS_FD, sides.ns.fd)] if is_here else []
    try:
        _create(sides.host if is_here else sides.inside, sides.inside, plan.host_name, spec, *attrs)
    except KernelError as error:
        raise _explain(error, spec) from error
    own = link.get(sides.inside, plan.host_name)
    messages = [link.set_name_and_owner(own.name, own.index, plan.ifname, plan.alias)]
    messages += [link.set_master(plan.ifname, own.index, spec.master)] if spec.master else []
    sides.inside.batch(messages)
    return replace(own, name=plan.ifname, alias=plan.alias, group=0)


def check_name(inside: Netlink, plan: PairPlan, doing: str) -> None:
    """Raise CniError 105 if the container has a link of the attachment's name, 4 for a name of no link."""
    if link.find(inside, plan.ifname):
        raise CniError(
            Code.ALREADY_EXISTS,
            f'{doing}: "{plan.ifname}" exists in {plan.netns}',
            "the runtime must give another CNI_IFNAME, or DEL the earlier attachment first",
        )
    if "%" in plan.ifname:
        raise CniError(
            Code.INVALID_ENVIRONMENT,
            f'{doing}: no link can be called "{plan.ifname}"',
            'the kernel numbers links whose names have a "%"; give another CNI_IFNAME',
        )


def _create(nl: Netlink, inside: Netlink, name: str, spec: LinkSpec, *attrs: bytes) -> None:
    """Create the link, once more after an unfinished one of that name that a killed ADD has left."""
    doing = spec.doing
    for attempt in range(2):
        if spec.make(name) if spec.make else link.create(nl, doing, spec.kind, spec.data, *attrs):
            return
        if attempt or not _remove_unfinished(inside, name):
            raise KernelError(doing, errno.EEXIST)


def _remove_unfinished(nl: Netlink, name: str) -> bool:
    own = link.find(nl, name)
    return own is not None and _is_unfinished(own) and link.remove(nl, name, own.index)


def _key(conf: InterfaceConf, plan: PairPlan) -> attachments.Key:
    return attachments.Key(conf.plugin, conf.name, plan.owner.container_id, plan.ifname)


def _explain(error: KernelError, spec: LinkSpec) -> CniError:
    """Return an error with what to do; the error itself where its text says enough."""
    below = spec.parent.name if spec.parent else ""
    module = _MODULES.get(spec.kind, spec.kind)
    remedies = {
        errno.EOPNOTSUPP: f"this kernel has no links of kind {spec.kind}: modprobe {module}",
        errno.EBUSY: f"{below} is a port of a bridge, or has links of another kind on top: use another one",
        errno.EEXIST: f"{below} has such a link already: a VLAN ID can be used once on a master",
        errno.EINVAL: f"{below} takes no more links, or cannot have links of kind {spec.kind} on top",
    }
    if spec.make or error.errno not in remedies:
        return error
    return CniError(Code.KERNEL, error.msg, remedies[error.errno])


def attach(  # noqa: PLR0913, PLR0917 - the parts of an ADD
    conf: InterfaceConf,
    request: Request,
    undo: Undo,
    sides: Sides,
    spec: LinkSpec,
    given: Result | None = None,
) -> Result:
    """Create the link, set the addresses that IPAM gives, and switch the link on; return the result.

    Without IPAM in the configuration the addresses are those of `given`, or there are none.
    """
    own = create(conf, plan_pair(conf, request), spec, sides, undo)
    leased = ipam.lease(conf, request, undo) if conf.ipam.type else given
    return complete(conf, request, undo, sides, own, leased, spec.parent)


def complete(  # noqa: PLR0913, PLR0917 - the parts of an ADD
    conf: InterfaceConf,
    request: Request,
    undo: Undo,
    sides: Sides,
    own: Link,
    given: Result | None,
    parent: Link | None = None,
) -> Result:
    """Set the addresses and routes of `given` on the container's link, and switch it on; return the result.

    The addresses are announced on the network of the link below, `parent`.
    """
    ips = required_ips(given, conf.ipam.type, 0) if given else ()
    routes = ranked(given.routes, default_route.rank(conf, sides, own, undo)) if given else ()
    configure(Layer3(ips, complete_routes(routes, ips)), sides, own, parent)
    interface = Interface(own.name, own.mac, request.netns, own.mtu)
    return Result((interface,), ips, routes, ipam.dns(conf, given))


def configure(plan: Layer3, sides: Sides, own: Link, parent: Link | None) -> None:
    """Set addresses and routes, switch the link on, and announce the addresses on the network of `parent`."""
    if not plan.ips:
        layer3.switch_on(sides.inside, own)
        return
    layer3.configure(plan, sides, own)
    # Without a carrier nobody hears it, and waiting for one takes seconds.
    if parent and parent.operstate not in link.WITHOUT_CARRIER and not own.flags & _NOARP:
        layer3.announce(plan.ips, sides, own)


def detach(conf: InterfaceConf, request: Request, kind: str) -> None:
    """Remove the link and its record, and release its addresses. Raise the first error.

    The record and the leases stay if the link may be there and in use: it could not be removed, or the caller
    may not look into the namespace. The next DEL finds all again, and GC too.
    """
    plan = plan_pair(conf, request)
    errors, removal = ErrorList(), ErrorList()
    errors.attempt(ipam.release_through_link, conf, request)
    is_unreached = any(each.code == Code.INVALID_NETNS for each in errors.errors)
    removal.attempt(
        partial(remove, early=link_removal.is_early(request.env)), plan, kind, _recorded_mac(request)
    )
    errors.errors += removal.errors
    if not is_unreached and not removal.errors:
        if conf.ipam.type:
            errors.attempt(delegate.delete, conf.ipam.type, request)
        errors.attempt(attachments.drop, _key(conf, plan))
    errors.raise_any()


def _recorded_mac(request: Request) -> str:
    result = request.prev_result
    inside = result.container_interface(request.ifname) if result else None
    return inside.mac if inside else ""


def remove(plan: PairPlan, kind: str, mac: str = "", *, early: bool = False) -> None:
    """Remove the attachment's link; succeed if it is gone, or its namespace is.

    `mac` is the MAC address in the result of ADD, "" without a result. Raise CniError, with code 8 if the
    caller may not look at the namespace.
    """
    ns = netns.find(plan.netns)
    if ns is None:
        return
    with ns:
        with Netlink(ns) as nl:
            own = find(nl, plan, kind, mac)
        if own:
            link_removal.remove_in(ns, own.name, own.index, early=early)


def find(nl: Netlink, plan: PairPlan, kind: str, mac: str = "") -> Link | None:
    """Return the attachment's link in the container; None without one.

    It may have no name yet, or the container has renamed it. A link without a mark is one of the Go plugins',
    or the container has removed the mark.
    """
    named = link.find(nl, plan.ifname)
    if named and named.kind == kind:
        is_unmarked = not named.alias.startswith(ALIAS) and mac in {"", named.mac}
        if named.alias == plan.alias or is_unmarked:
            return named
    try:
        return _find_marked(link.list_links(nl), plan, kind)
    except CniError as error:
        if error.code == Code.TRY_AGAIN and (own := _find_marked(_rough_list(nl), plan, kind)):
            return own
        raise


def _find_marked(links: Iterable[Link], plan: PairPlan, kind: str) -> Link | None:
    for each in links:
        is_unnamed = each.name == plan.host_name and _is_unfinished(each)
        if each.kind == kind and (each.alias == plan.alias or is_unnamed):
            return each
    return None


def _rough_list(nl: Netlink) -> list[Link]:
    """List the links of a container that does not stop adding and removing some."""
    return link.list_links(nl, settled=False)


def _is_unfinished(own: Link) -> bool:
    return own.group == link.UNFINISHED and not own.alias


def links(conf: InterfaceConf, kind: str, valid: Collection[Key]) -> Iterator[Removal]:
    """Find the links and the records of attachments that are not valid."""
    for record in attachments.list_stale(conf.plugin, conf.name, valid):
        things = [Stale("record", record.path, conf.name, record.container_id, record.ifname)]
        # The step raises it again: one container does not keep GC from the things of the others.
        with suppress(CniError), _opened(record) as nl:
            if own := nl and find(nl, _plan_of(conf, record), kind):
                things.insert(0, things[0]._replace(kind="link", name=own.name))
        yield Removal(tuple(things), partial(_collect, conf, kind, record))


def _collect(conf: InterfaceConf, kind: str, record: attachments.Record) -> None:
    with _opened(record) as nl:
        if own := nl and find(nl, _plan_of(conf, record), kind):
            link.remove(nl, own.name, own.index)
    attachments.remove(record)


@contextmanager
def _opened(record: attachments.Record) -> Iterator[Netlink | None]:
    """Open a socket in the namespace that a record was saved for; None if that is gone."""
    ns = netns.find(record.netns)
    if ns is None:
        yield None
        return
    with ns:
        if not record.is_of(ns):
            yield None
            return
        with Netlink(ns) as nl:
            yield nl


def _plan_of(conf: InterfaceConf, record: attachments.Record) -> PairPlan:
    owner = Owner(conf.name, record.container_id, record.ifname)
    mark = alias(conf.name, Key(record.container_id, record.ifname))
    return PairPlan(owner, record.netns, record.ifname, host_name(owner), mark)


def properties(
    conf: InterfaceConf, of: Attachment, kind: str, of_kind: Callable[[Link], Iterable[Property]]
) -> Iterator[Property]:
    """Yield all that ADD makes; `of_kind` yields what is the kind's own."""
    own = link.find(of.sides.inside, of.plan.ifname)
    yield from compare.of_container(of, own, kind)
    if own is None or own.kind != kind:
        return
    yield from of_kind(own)
    routes = compare.promised_routes(conf, of.result)
    # The Go plugins set no mark and no metrics of routes.
    is_ours = own.alias == of.plan.alias
    yield from compare.of_layer3(of, Layer3(of.ips), routes, own, compare_metrics=is_ours)


def require(of: Attachment, kind: str) -> None:
    """Raise CniError 104 if the link is gone: only an ADD creates it."""
    own = link.find(of.sides.inside, of.plan.ifname)
    if own is None or own.kind != kind:
        raise CniError(
            Code.MISMATCH,
            f"the {kind} link {of.plan.ifname} in {of.plan.netns} is gone and cannot be repaired",
            "attach the container again: DEL, then ADD",
        )


def try_create(kind: str, data: bytes, *, with_parent: bool = True) -> None:
    """Raise CniError if the kernel cannot create a link of a kind: one is created in a new namespace."""
    with trial() as nl, netns.own() as here:
        attrs = [link.identity("own", "")]
        if with_parent:
            veth.create(nl, veth.VethSpec("below", link.new_mac(), "peer", link.new_mac(), here))
            attrs.append(number(link.LINK, link.get(nl, "below").index))
        try:
            link.create(nl, f"failed to create {kind}", kind, data, *attrs)
        except KernelError as error:
            raise _explain(error, LinkSpec(kind)) from error
