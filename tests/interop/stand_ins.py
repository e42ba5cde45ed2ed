"""Programs under the names of third parties' plugins, for network lists that need one.

tests/data/stand_ins.json has them. An object replaces the plugin's own keys, and a plugin of this suite gets
the call: the type in the object, or the IPAM plugin if there is none. An empty object passes the previous
result on. A string is a plugin of this suite, whose file is copied to the name.

PYCNI_THIRD_PARTY is a folder of third parties' real plugins, which are used instead.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from plugin_table import ROOT

# A plugin of another suite: it knows the verbs of specification 1.0.0 and no other commands.
_PROGRAM = """\
#!{python} -IS
import json, os, sys
OWN = {own}
COMMON = ("cniVersion", "name", "prevResult", "runtimeConfig", "args")
verb = os.environ["CNI_COMMAND"]
conf = json.load(sys.stdin)
if verb == "VERSION":
    versions = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"]
    print(json.dumps({{"cniVersion": "1.0.0", "supportedVersions": versions}}))
elif verb not in ("ADD", "CHECK", "DEL"):
    print(json.dumps({{"cniVersion": "1.0.0", "code": 4, "msg": "unknown CNI_COMMAND: " + verb}}))
    sys.exit(1)
elif OWN:
    conf = {{key: value for key, value in conf.items() if key in COMMON}} | OWN
    program = os.path.join(os.environ["CNI_PATH"].split(":")[0], conf.get("type") or conf["ipam"]["type"])
    # The plugin takes this process: one more, and its module, would cost 10 ms of each call.
    text = os.memfd_create("conf")
    os.write(text, json.dumps(conf).encode())
    os.lseek(text, 0, os.SEEK_SET)
    os.dup2(text, 0)
    os.execv(program, [program])
elif verb == "ADD":
    print(json.dumps(conf["prevResult"]))
"""


def write_all(folder: Path, bindir: Path) -> None:
    """Write the programs that this suite lacks. They call those in the first folder of CNI_PATH."""
    table = json.loads((ROOT / "tests/data/stand_ins.json").read_text())
    real = Path(os.environ.get("PYCNI_THIRD_PARTY", os.devnull))
    for name, own in table.items():
        if (bindir / name).exists():
            continue
        if (real / name).exists():
            shutil.copy(real / name, folder / name)
        elif isinstance(own, str):
            shutil.copy(bindir / own, folder / name)
        else:
            (folder / name).write_text(_PROGRAM.format(python=sys.executable, own=repr(own)))
            (folder / name).chmod(0o755)
