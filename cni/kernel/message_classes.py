"""pyroute2's message classes, which encode and decode what is rare; the only module that imports pyroute2.

What ADD and DEL send is packed by struct in the module of its object: a class takes 0.3 ms for one message,
and 1.2 ms to read a link. The classes read the lists that CHECK, GC, repair and STATUS need.
"""

from __future__ import annotations

import struct
import sys
from contextlib import suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Kinds of messages come in groups of four (new, delete, get, set), see rtnetlink(7): the first of each group.
_LINK, _ADDR, _ROUTE, _RULE = 16, 20, 24, 32
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence number, port id


def encode(header: Mapping[str, int], fields: Mapping[str, int], attrs: Sequence[tuple[str, Any]]) -> bytes:
    """Return a message; the fields and attributes are those of pyroute2's class for the header's type."""
    encoder = _message_class(header["type"])()
    for name, value in fields.items():
        encoder[name] = value
    encoder["attrs"] = list(attrs)
    encoder["header"] = dict(header)
    encoder.encode()
    return bytes(encoder.data)


def decode(kind: int, payload: bytes) -> Any:
    """Return the object in a response; `kind` is that of the message that asked for it."""
    header = _HEADER.pack(_HEADER.size + len(payload), kind, 0, 0, 0)
    decoder = _message_class(kind)(header + payload)
    decoder.decode()
    return decoder


def prepare_for_fork() -> None:
    """Import now the parts of pyroute2 that calls use, for a process that serves many calls."""
    for kind in (_LINK, _ADDR, _ROUTE, _RULE):
        _message_class(kind)


def _message_class(kind: int) -> Any:
    _prepare_pyroute2()
    # A call uses one of them at most.
    group = kind & ~3
    if group == _LINK:
        from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

        return ifinfmsg
    if group == _ADDR:
        from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

        return ifaddrmsg
    if group == _RULE:
        from pyroute2.netlink.rtnl.fibmsg import fibmsg

        return fibmsg
    from pyroute2.netlink.rtnl.rtmsg import rtmsg

    return rtmsg


class _LazyPackage(ModuleType):
    """A package whose `__init__` is executed when something other than a module of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        # Seldom called.
        from importlib import import_module

        with suppress(ModuleNotFoundError):
            return import_module(f"{self.__name__}.{name}")
        # From here on it is a package like any other.
        self.__class__ = ModuleType  # type: ignore[assignment]
        if self.__spec__ is None or self.__spec__.loader is None:
            raise AttributeError(name)
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def _prepare_pyroute2() -> None:
    """Import pyroute2 without its `__init__`, which imports the whole package and asyncio.

    That takes 200 ms of a cold start; the message classes take 40 ms. A plugin that uses more of pyroute2
    gets the whole package, because `_LazyPackage` executes `__init__` then.
    """
    if "pyroute2" in sys.modules:
        return
    # Once in a process, and not if pyroute2 is there already.
    from importlib.util import find_spec, module_from_spec

    spec = find_spec("pyroute2")
    if spec is not None and spec.submodule_search_locations is not None:
        package = module_from_spec(spec)
        package.__class__ = _LazyPackage
        sys.modules["pyroute2"] = package
