"""Rules for the configuration of every IPAM plugin, in the words of the Go plugins. Pure."""

from collections.abc import Iterable
from typing import Any

from pydantic import model_validator

from cni.conf import NetConf
from cni.errors import CniError, Code
from cni.versions import OLDEST, at_least

_FIRST_WITH_MANY_ADDRESSES = "0.3.0"


class RequiresIpam(NetConf):
    """A configuration with the key `ipam`, which the model of an IPAM plugin types."""

    @model_validator(mode="before")
    @classmethod
    def _require_ipam(cls, data: Any) -> Any:
        if isinstance(data, dict) and not any(
            key.lower() == "ipam" and data[key] is not None for key in data
        ):
            raise ValueError("IPAM config missing 'ipam' key")
        return data


def check_families(families: Iterable[int], cni_version: str) -> None:
    """Raise CniError 7 if two addresses are of one family, 4 or 6, and the version has room for one only."""
    listed, version = list(families), cni_version or OLDEST
    if len(listed) > len(set(listed)) and not at_least(version, _FIRST_WITH_MANY_ADDRESSES):
        raise CniError(
            Code.INVALID_CONFIG,
            f"CNI version {version} does not support more than 1 address per family",
            f'Set "cniVersion" to {_FIRST_WITH_MANY_ADDRESSES} or newer, or remove addresses.',
        )
