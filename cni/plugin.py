"""A plugin as a value: its name, its configuration and its verbs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from cni.conf import NetConf
from cni.versions import SUPPORTED

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.operations.garbage import Stale
    from cni.operations.repair import Repaired
    from cni.request import Request
    from cni.result import Result
    from cni.undo import Undo

C = TypeVar("C", bound=NetConf)


class Plugin(NamedTuple, Generic[C]):
    """What `cni.skel` runs. A verb that is None is answered with success, as the spec allows.

    `add` registers the inverse of each change with the Undo it is given and returns the result; the
    skeleton undoes when it raises. The other verbs return nothing. All raise CniError.

    The last two are for the command `pycni` and no verbs of the spec. `plan_gc` tells what `gc` would remove
    and changes nothing. `repair` gets what CHECK gets, makes again what is missing and tells what it did.
    """

    name: str
    about: str
    conf: type[C]
    add: Callable[[C, Request, Undo], Result]
    delete: Callable[[C, Request], None]
    check: Callable[[C, Request], None] | None = None
    gc: Callable[[C, Request], None] | None = None
    status: Callable[[C, Request], None] | None = None
    versions: tuple[str, ...] = SUPPORTED
    plan_gc: Callable[[C, Request], list[Stale]] | None = None
    repair: Callable[[C, Request], Repaired] | None = None
