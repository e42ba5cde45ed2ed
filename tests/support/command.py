"""The command `pycni` without the start of Python: each run is forked when its imports are done.

The start with all imports takes 0.1 s of CPU, most of what a run of the command takes.
Tests of streams, signals, terminals and other users start the executable, and so does that of the page.
"""

from __future__ import annotations

import atexit
from functools import cache
from typing import TYPE_CHECKING

from cni.testing import make_command
from cni.testing.faults import ARMING
from cni.testing.place import BARE_ENV, CommandError
from cni.testing.zygote import Zygote
from tests.support.cold_scripts import without_start

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping
    from pathlib import Path

    from cni.testing.place import Place
    from cni.testing.zygote import ForkedCall

# All modules that any run imports are there. The streams are as the start of Python makes them. The script of
# the command names its folder of plugins.
_START = """
import io, pkgutil, re
import rich.console, rich.table, rich.text, typer.main
import cni.cli, cni.runtime
for package in (cni.cli, cni.runtime):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
from cni.cli.start import main
def start(path):
    bindir = re.findall(r"main\\('(.*)'\\)", open(path).read())[0]
    for number, mode, stream in ((0, "r", "stdin"), (1, "w", "stdout"), (2, "w", "stderr")):
        like = getattr(sys, stream)
        buffering = 1 if stream == "stderr" else -1
        file = open(number, mode, buffering, encoding=like.encoding, errors=like.errors)
        setattr(sys, stream, file)
    main(bindir)
"""
# Plugins that outlive a killed command hold its stderr open: who reads that to its end waits for them.
_WITH_FAULTS = """
from cni.kernel.child import lending
plain_start = start
def start(path):
    held = os.dup(2)
    with lending(lambda: held):
        plain_start(path)
"""


class Command:
    """A command of `make_command` in a folder; `str` returns its path.

    `is_forked` makes its cold calls of plugins without the start of Python, too. `with_faults` lets the
    command obey the variable of `cni.testing.faults`.
    """

    def __init__(
        self, folder: Path, bindir: Path, *, is_forked: bool = False, with_faults: bool = False
    ) -> None:
        self._with_faults = with_faults
        self.path = make_command(folder, without_start(bindir) if is_forked else bindir)

    def __str__(self) -> str:
        return str(self.path)

    def run(
        self,
        place: Place,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        check: bool = True,
        timeout_s: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Run the command as `Place.run` does."""
        env = BARE_ENV if env is None else env
        done = _zygote(with_faults=self._with_faults).run(place, self.path, "", env, timeout_s, arguments)
        if done is None:
            return place.run([str(self.path), *arguments], env=env, check=check, timeout_s=timeout_s)
        if check and done.returncode:
            given = " ".join(arguments)
            raise CommandError(f"pycni {given} failed with {done.returncode}: {done.stderr}{done.stdout}")
        return done

    def start(
        self, place: Place, *arguments: str, env: Mapping[str, str] | None = None, stdin: str = ""
    ) -> ForkedCall:
        """Start the command. The test must end it: use the call as a context."""
        zygote = _zygote(with_faults=self._with_faults)
        call = zygote.start(place, self.path, stdin, BARE_ENV if env is None else env, arguments)
        assert call is not None
        return call


@cache
def _zygote(*, with_faults: bool) -> Zygote:
    """Return a zygote of this test process."""
    zygote = Zygote(None, f"{ARMING}{_START}{_WITH_FAULTS}" if with_faults else _START)
    atexit.register(zygote.close)
    return zygote
