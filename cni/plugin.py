"""A plugin as a value: its name, its configuration and its verbs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from cni.conf import NetConf
from cni.versions import SUPPORTED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cni.operations.garbage import Finder
    from cni.operations.repair import Repaired
    from cni.request import Request
    from cni.result import Result
    from cni.undo import Undo

C = TypeVar("C", bound=NetConf)

# The function of each verb module. `gc` has finders, which GC and its dry run share.
_FUNCTIONS = {"gc": "finders"}


class Plugin(NamedTuple, Generic[C]):
    """A plugin as `cni.skel` runs it. Its verbs are modules of `package`, or functions given here.

    The skeleton imports "cni_bridge.add" when ADD is called, and calls `add.add(conf, request, undo)`,
    `delete.delete(conf, request)`, `check.check`, `status.status` or `repair.repair`. For GC and its dry run
    it takes the finders that `gc.finders(conf, request)` returns, and asks for them only if the runtime has
    sent a list of valid attachments. A plugin in one file gives the functions instead.

    `add` registers the inverse of each change with the Undo it gets and returns the result; the skeleton
    undoes when it raises. `repair` returns what it did. The other verbs return nothing. All raise CniError.

    A verb that a plugin does not have succeeds, as the spec allows, with any configuration whose keys of the
    spec are valid: the plugin's model is not read. `pycni repair` reports a plugin without `repair`.

    Attributes:
        name: The `type` of configurations.
        about: What the plugin does, for people.
        conf: The model of the configuration.
        add: The function of ADD. None if it is a module of `package`, or the plugin does not have the verb.
        delete: The function of DEL, or None.
        check: The function of CHECK, or None.
        finders: Returns the finders of GC and its dry run, or None.
        status: The function of STATUS, or None.
        versions: The versions of the specification that the plugin supports.
        repair: The function of `pycni repair`, or None.
        package: The package that has the verbs as modules.
        calls_ipam: GC and its dry run also call the plugin that `ipam.type` of the configuration names.
    """

    name: str
    about: str
    conf: type[C]
    add: Callable[[C, Request, Undo], Result] | None = None
    delete: Callable[[C, Request], None] | None = None
    check: Callable[[C, Request], None] | None = None
    finders: Callable[[C, Request], Sequence[Finder]] | None = None
    status: Callable[[C, Request], None] | None = None
    versions: tuple[str, ...] = SUPPORTED
    repair: Callable[[C, Request], Repaired] | None = None
    package: str = ""
    calls_ipam: bool = False

    def find(self, verb: str) -> Callable[..., Any] | None:
        """Return the function of a verb ("add", "delete", ...), None if the plugin does not have the verb."""
        function = _FUNCTIONS.get(verb, verb)
        given: Callable[..., Any] | None = getattr(self, function)
        if given or not self.package:
            return given
        name = f"{self.package}.{verb}"
        try:
            module = import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
            return None
        found: Callable[..., Any] = getattr(module, function)
        return found
