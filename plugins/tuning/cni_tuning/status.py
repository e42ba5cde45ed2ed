"""STATUS: whether an ADD could succeed now."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.kernel import link
from cni.operations.status import Reasons, trial
from cni.state import attachments, files
from cni_tuning import sysctls

if TYPE_CHECKING:
    from cni.request import Request
    from cni_tuning.conf import TuningConf

# A link that every namespace has.
_LINK = "lo"
_OF_ALL_LINKS = {"all", "default"}


def status(conf: TuningConf, request: Request) -> None:
    """Raise CniError 50 if a sysctl is not allowed or not in this kernel, or if no record can be saved."""
    reasons = Reasons()
    reasons.attempt(_try_settings, conf, request)
    reasons.attempt(partial(files.check_writable, attachments.FOLDER))
    reasons.raise_any()


def _try_settings(conf: TuningConf, request: Request) -> None:
    settings = sysctls.list_settings(conf, request._replace(ifname=_LINK))
    with trial() as nl:
        link.get(nl, _LINK)
        missing = [each.text for each in settings if not _is_in_kernel(each.key)]
    if missing:
        raise CniError(
            Code.NOT_AVAILABLE,
            f"the kernel has no sysctl {', '.join(missing)} in a new network namespace",
            "Remove it from the network, or load the kernel module that has it.",
        )


def _is_in_kernel(key: str) -> bool:
    """Return whether a namespace has a sysctl, if its links have the same ones as `lo`."""
    parts = key.split("/")
    if len(parts) == 5 and parts[2] in {"conf", "neigh"} and parts[3] not in _OF_ALL_LINKS:
        parts[3] = _LINK
    return os.path.lexists(f"/proc/sys/{'/'.join(parts)}")
