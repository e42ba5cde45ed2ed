"""Plan the record of an attachment, and the result; pure."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from cni.dns.names import Key, Record, Settings, normal_name
from cni.errors import CniError, Code
from cni.result import Dns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.request import Request
    from cni.result import IpAddress, Result
    from cni_dnsname.conf import DnsnameConf

_NAME, _NAMESPACE = "K8S_POD_NAME", "K8S_POD_NAMESPACE"
_ARGS = (_NAME, _NAMESPACE, "K8S_POD_INFRA_CONTAINER_ID", "K8S_POD_UID")
_SHORT_ID = 12


def plan_key(conf: DnsnameConf, request: Request) -> Key:
    """Return the key of the attachment's record."""
    return Key(conf.name, request.container_id, request.ifname)


def pod_name(request: Request) -> str:
    """Return the name that the runtime gives the container, "" if it gives none. Raise CniError 4."""
    return request.known_args(*_ARGS).get(_NAME, "")


def plan_names(conf: DnsnameConf, request: Request) -> tuple[str, ...]:
    """Return the container's names, its own first. Raise CniError 4 for a name that is none.

    The own name is that of the pod, as podman calls a container, or the beginning of the container's ID.
    """
    args = request.known_args(*_ARGS)
    short_id = request.container_id[:_SHORT_ID]
    names = []
    if given := args.get(_NAME):
        try:
            names.append(normal_name(given))
        except ValueError as error:
            raise CniError(Code.INVALID_ENVIRONMENT, f"{_NAME} in CNI_ARGS: {error}") from error
        if namespace := args.get(_NAMESPACE):
            with suppress(ValueError):
                names.append(normal_name(f"{given}.{namespace}"))
    names += conf.runtime_config.aliases.get(conf.name, ())
    # An ID may have other characters than a name.
    with suppress(ValueError):
        names.append(normal_name(short_id))
    if not names:
        raise CniError(
            Code.INVALID_ENVIRONMENT,
            f"container {request.container_id} has no name",
            f"Set {_NAME} in CNI_ARGS to a name.",
        )
    return tuple(dict.fromkeys(names))


def plan_record(
    conf: DnsnameConf, request: Request, gateways: Sequence[IpAddress], *, since_ns: int, owner: str
) -> Record:
    """Return the record of an attachment. Raise CniError 4 or 7."""
    result = request.required_prev_result()
    if not result.ips:
        raise CniError(
            Code.INVALID_CONFIG,
            "prevResult has no IP address",
            "Put this plugin behind one that assigns addresses.",
        )
    settings = Settings(
        conf.domain_name,
        tuple(map(str, gateways)),
        tuple(dict.fromkeys(str(each.address.network) for each in result.ips)),
        conf.internal,
        conf.upstreams,
    )
    addresses = tuple(dict.fromkeys(str(each.address.ip) for each in result.ips))
    return Record(
        plan_key(conf, request),
        plan_names(conf, request),
        addresses,
        settings,
        since_ns,
        request.netns,
        owner,
        conf.runtime_config.dns.servers,
    )


def plan_result(conf: DnsnameConf, result: Result, gateways: Sequence[IpAddress]) -> Result:
    """Return the result with the gateways as the first name servers, and the domain to search."""
    before = result.dns
    servers = tuple(dict.fromkeys([*map(str, gateways), *before.nameservers]))
    search = (*before.search, conf.domain_name) if conf.domain_name else before.search
    return result.with_dns(Dns(servers, before.domain, tuple(dict.fromkeys(search)), before.options))
