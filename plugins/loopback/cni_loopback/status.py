"""STATUS: whether an ADD could succeed now."""

from cni.errors import CniError, Code, KernelError
from cni.kernel import link
from cni.operations.status import trial
from cni.request import Request
from cni_loopback.conf import LoopbackConf
from cni_loopback.plan import LINK


def status(_conf: LoopbackConf, _request: Request) -> None:
    """Raise CniError 50 unless lo can be switched on in a new namespace."""
    with trial() as nl:
        try:
            nl.batch([link.set_flags(LINK, link.get(nl, LINK).index, on=link.IFF_UP)])
        except KernelError as error:
            raise CniError(Code.NOT_AVAILABLE, error.msg, error.details) from error
