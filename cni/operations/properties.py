"""The properties of an attachment: what each is, what ADD makes it, and the step that restores it.

A plugin has one generator of properties. CHECK reports the differences, `pycni repair` runs the fixes of what
differs, and STATUS reports the impairments. A generator reads the kernel when the next property is asked
for, so that repair compares each property after the fixes of those before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Code
from cni.operations.repair import Repaired

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cni.operations.status import Impairment
    from cni.undo import Undo

    Fix = Callable[[Undo], str]


class Property(NamedTuple):
    """One property: `name` ("MTU of veth12"), the actual and the wanted value, which `==` compares.

    `message` is the sentence of the difference in CHECK, with Go's text first where tools parse it. `brief`
    replaces it where `pycni` shows the difference to people, for example one sentence for many rules.

    `fix` restores the property and returns in words what it did, "" for nothing. It registers the inverse of
    each change before the change. Several properties may share one fix, which then runs once. A property
    without a fix is only reported.

    `remedy` tells the user in the imperative what to do. CHECK shows that of the first difference.

    `impairment` is the sentence of STATUS, for all objects of the network that have this difference; `name`
    is then the object ("veth12"). "" stands for `message`, without a name.
    """

    name: str
    actual: object
    wanted: object
    message: str = ""
    fix: Fix | None = None
    brief: str = ""
    remedy: str = ""
    impairment: str = ""

    @property
    def differs(self) -> bool:
        """Whether the actual value is not the wanted one."""
        return self.actual != self.wanted

    def describe(self, *, brief: bool = False) -> str:
        """Return the sentence of the difference."""
        text = (self.brief if brief else "") or self.message
        return text or f"{self.name} is {self.actual}, not {self.wanted}"


def list_differences(properties: Iterable[Property], *, brief: bool = False) -> list[str]:
    """Return the sentences of all properties that differ, each sentence once."""
    return list(dict.fromkeys(each.describe(brief=brief) for each in properties if each.differs))


def check(
    properties: Iterable[Property],
    ask_ipam: Callable[[], object] | None = None,
    *,
    brief: bool = False,
    prefix: str = "",
) -> None:
    """Raise CniError 104: the message is the first difference, the details are its remedy and the others.

    `prefix` begins the message. `ask_ipam` lets the IPAM plugin CHECK. What it reports comes last, and is
    raised as it is where nothing else differs. It is not called if the properties cannot be read.
    """
    different = [each for each in properties if each.differs]
    message, *details = list_differences(different, brief=brief) or [""]
    try:
        if ask_ipam:
            ask_ipam()
    except CniError as error:
        if not different:
            raise
        details.append(str(error))
    if different:
        details = list(filter(None, [different[0].remedy, *details]))
        raise CniError(Code.MISMATCH, prefix + message, "; ".join(details))


def repair(properties: Iterable[Property]) -> Repaired:
    """Run the fixes of all properties that differ. A fix that fails is undone, and the others still run.

    Raises CniError if the properties cannot be read; once a fix has run, that error is part of the answer.
    """
    done = Repaired()
    fixes = []
    try:
        for each in properties:
            if each.fix and each.differs and each.fix not in fixes:
                fixes.append(each.fix)
                done.attempt(each.fix)
    except CniError as error:
        if not fixes:
            raise
        done.failed.append(error)
    return done


def list_impairments(properties: Iterable[Property]) -> Iterator[Impairment]:
    """Yield what `cni.operations.status.Reasons.limit` takes, for all properties that differ."""
    for each in properties:
        if each.differs:
            yield (each.impairment, each.name) if each.impairment else (each.describe(), "")
