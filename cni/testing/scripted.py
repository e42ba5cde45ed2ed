"""Plugins that are small executables: they record each call, and their body is the test's."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_RECORD = """#!{python} -IS
import json, os, sys
text = sys.stdin.read()
env = {{key: value for key, value in os.environ.items()}}
with open({calls!r}, "a") as calls:
    calls.write(json.dumps({{"plugin": {name!r}, "env": env, "stdin": json.loads(text or "{{}}")}}) + "\\n")
conf, verb = json.loads(text or "{{}}"), os.environ["CNI_COMMAND"]
{body}
"""

_ANSWER = """
if verb == "ADD":
    result = conf.get("prevResult") or {"cniVersion": conf["cniVersion"], "ips": []}
    result["ips"] = result.get("ips", []) + [{"address": conf.get("address", "10.9.0.2/24")}]
    print(json.dumps(result))
elif verb == "VERSION":
    print(json.dumps({"cniVersion": "1.1.0", "supportedVersions": ["0.4.0", "1.0.0", "1.1.0"]}))
"""


class ScriptedPlugins:
    """A directory of such plugins; `folder` is its path, for CNI_PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._calls = folder / "calls.jsonl"

    def write(self, name: str, body: str = _ANSWER) -> Path:
        """Make a plugin; `body` is Python code with `conf`, `verb`, `os`, `sys` and `json`."""
        path = self.folder / name
        path.write_text(_RECORD.format(python=sys.executable, calls=str(self._calls), name=name, body=body))
        path.chmod(0o755)
        return path

    @property
    def calls(self) -> list[dict[str, Any]]:
        """All calls so far: plugin, env, stdin."""
        if not self._calls.exists():
            return []
        return [json.loads(line) for line in self._calls.read_text().splitlines()]

    @property
    def order(self) -> list[str]:
        """The calls in short: "ADD first"."""
        return [f"{call['env']['CNI_COMMAND']} {call['plugin']}" for call in self.calls]
