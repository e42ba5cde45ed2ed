"""STATUS without the rights that an ADD needs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cni.testing.place import BARE_ENV
from plugin_table import CHAINED, INTERFACE
from tests.support.subjects import configuration, names, prepare

if TYPE_CHECKING:
    from cni.testing import Host


@pytest.mark.parametrize("plugin", names(INTERFACE, CHAINED))
def test_status_is_50_where_no_namespace_may_be_entered(host: Host, plugin: str) -> None:
    prepare(host, plugin)
    conf = configuration(plugin)
    env = {**BARE_ENV, "CNI_COMMAND": "STATUS", "CNI_PATH": str(host.bindir)}
    program = ["setpriv", "--bounding-set=-sys_admin", str(host.bindir / plugin)]
    before = host.snapshot(exact=True)
    done = host.place.run(program, json.dumps(conf), env=env, check=False)
    told = json.loads(done.stdout)
    assert (done.returncode, told["code"]) == (1, 50)
    said = told["msg"] + told["details"]
    assert "network namespaces may not be entered here: " in said
    assert "CAP_SYS_ADMIN" in said
    assert before.differences(host.snapshot(exact=True)) == []
