"""STATUS: can an ADD succeed now."""

from __future__ import annotations

from functools import partial
from ipaddress import ip_network
from typing import TYPE_CHECKING

from cni.errors import CniError, Code, KernelError
from cni.kernel import rule
from cni.kernel.rule import Rule
from cni.operations.status import Reasons, trial
from cni.state import attachments, files
from cni_sbr.plan import FIRST_TABLE

if TYPE_CHECKING:
    from cni.request import Request
    from cni_sbr.conf import SbrConf


def status(_conf: SbrConf, _request: Request) -> None:
    """Raise CniError 50 if the kernel has no policy routing, or if no record can be saved."""
    reasons = Reasons()
    reasons.attempt(_try_rule)
    reasons.attempt(partial(files.check_writable, attachments.FOLDER))
    reasons.raise_any()


def _try_rule() -> None:
    """Add a rule in a new namespace."""
    with trial() as nl:
        try:
            rule.ensure(nl, Rule(4, FIRST_TABLE, ip_network("192.0.2.1/32"), priority=1))
        except KernelError as error:
            details = "the kernel needs CONFIG_IP_MULTIPLE_TABLES"
            raise CniError(Code.NOT_AVAILABLE, f"no policy routing here: {error.msg}", details) from error
