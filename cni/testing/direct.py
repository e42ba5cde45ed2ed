"""Call a plugin inside the test's own process: for thousands of calls, and for calls without a namespace."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr
from typing import TYPE_CHECKING, Any

from cni import skel
from cni.testing.answer import Answer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cni.plugin import Plugin

# There is no such file, so that a plugin that opens the namespace fails.
NO_NETNS = "/run/netns/no-such-namespace"


def call(  # noqa: PLR0913 - the parameters of a CNI call
    plugin: Plugin[Any],
    verb: str,
    conf: Mapping[str, Any] | str,
    *,
    container_id: str = "c1",
    ifname: str = "eth0",
    netns: str = NO_NETNS,
    args: str = "",
) -> Answer:
    """Run one verb through the skeleton, `conf` being the configuration or raw stdin."""
    env = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": container_id,
        "CNI_NETNS": netns,
        "CNI_IFNAME": ifname,
        "CNI_ARGS": args,
        "CNI_PATH": "/opt/cni/bin",
    }
    stdin = conf if isinstance(conf, str) else json.dumps(conf)
    stdout, stderr = io.BytesIO(), io.StringIO()
    with redirect_stderr(stderr):
        status = skel.run(lambda: plugin, env, io.BytesIO(stdin.encode()), stdout)
    return Answer(status, stdout.getvalue().decode(), stderr.getvalue().strip())
