"""The iptables programs: one transaction, or one reading, is one process. No plugin's rules are known here.

Both variants (nf_tables and legacy) are driven alike through `iptables-restore`, whichever PATH gives:
it takes listings and checks as well as changes, several of them for the price of one start.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Code
from cni.kernel import child

if TYPE_CHECKING:
    from collections.abc import Sequence

# How long to wait for the lock that all users of iptables-legacy share.
XTABLES_WAIT_S = 20
# What it may take beyond that, with a hundred thousand rules, on a busy machine.
_RUN_S = 60

_PROGRAM = re.compile(r"^(ip6?tables\S*( v\S+)?( \(\w+\))?: *)+")
_LINE = re.compile(r"\bline:? (\d+)")
_TRIVIAL = re.compile(r"^(Try `.*|Error occurred at line.*|# Warning.*|line:? \d+ failed\.?|)$")
_NO_NAT = re.compile(r"Table does not exist|unable to initialize table|can't initialize ip6?tables table")
_INCOMPATIBLE = re.compile(
    r"(table|chain) `\S+'.* is incompatible, use 'nft' tool|CHAIN_ADD failed \(Operation not supported\)"
)


class RefusedError(CniError):
    """iptables refused a transaction; `line` is the one it stumbled over, "" when it did not say."""

    def __init__(self, msg: str, details: str, line: str, status: int) -> None:
        super().__init__(Code.FIREWALL, msg, details)
        self.line = line
        self.status = status

    @property
    def is_without_table(self) -> bool:
        """Whether the kernel has no table nat for this family at all."""
        return bool(_NO_NAT.search(self.msg))

    @property
    def is_conflict(self) -> bool:
        """Whether the rules were not as they had been read: somebody else has changed them meanwhile."""
        return self.status in {1, 4}


class Tool(NamedTuple):
    """The programs of one IP version, working on table nat of the namespace that the process is in.

    `variant` is "-nft" or "-legacy" for the program of that name, "" for what PATH has as iptables.
    """

    version: int
    wait_s: int = XTABLES_WAIT_S
    variant: str = ""

    @property
    def name(self) -> str:
        """The program that users know."""
        return f"{'iptables' if self.version == 4 else 'ip6tables'}{self.variant}"

    def find(self) -> str | None:
        """Give the path of the program that runs transactions, None when it is not installed."""
        found = child.find(f"{self.name}-restore")
        if found or self.variant:
            return found
        from cni.firewall.iptables.programs import find_with_suffix

        return find_with_suffix(self.version, self.name)

    def apply(self, doing: str, lines: Sequence[str]) -> None:
        """Run commands ("-A CHAIN ...") as one transaction: all of them take effect, or none.

        Raises RefusedError, or CniError 11 when the xtables lock was not to be had.
        """
        if lines:
            self._run(doing, lines)

    def list_chain(self, chain: str) -> list[str] | None:
        """Give the lines of a chain as `iptables -S` prints them; None when there is no such chain."""
        return self.list_chains([chain]).get(chain)

    def list_chains(self, chains: Sequence[str]) -> dict[str, list[str]]:
        """Give the lines of chains, those of missing ones left out; one process and one for each missing."""
        found: dict[str, list[str]] = {}
        left = list(chains)
        while left:
            listed, complete = self._list(left)
            found |= listed
            if complete:
                break
            # The listing ends before the first chain that is missing.
            left = left[len(listed) + 1 :]
        return found

    def list_while_there(self, chains: Sequence[str]) -> dict[str, list[str]]:
        """Give the lines of chains up to the first missing one, in one process."""
        return self._list(chains)[0]

    def list_all(self) -> list[str]:
        """Give the lines of the whole table."""
        return self._run("list table nat", ["-S"]).splitlines()

    def has(self, command: str) -> bool:
        """Tell whether a rule is there, by its "-C ..." line; what cannot be asked for is not there."""
        try:
            self._run("check a rule", [command])
        except RefusedError:
            return False
        return True

    def _list(self, chains: Sequence[str]) -> tuple[dict[str, list[str]], bool]:
        done = self._start([f"-S {chain}" for chain in chains])
        found = _split_listing(done.stdout.decode(errors="replace"))
        if done.status == 0:
            return found, True
        missing = chains[len(found)] if len(found) < len(chains) else ""
        if not _says_missing(done, missing):
            raise self._refusal(f"list chain {missing} of table nat", done, f"-S {missing}")
        return found, False

    def _run(self, doing: str, lines: Sequence[str]) -> str:
        done = self._start(lines)
        if done.status != 0:
            number = _LINE.search(done.stderr)
            # Line 1 is the table's.
            index = int(number[1]) - 2 if number else -1
            raise self._refusal(doing, done, lines[index] if 0 <= index < len(lines) else "")
        return done.stdout.decode(errors="replace")

    def _start(self, lines: Sequence[str]) -> child.Completed:
        program = self.find()
        if program is None:
            raise CniError(
                Code.FIREWALL,
                f"{self.name} is not installed: no {self.name}-restore on PATH",
                'install iptables, or configure the backend "nftables"',
            )
        text = "\n".join(["*nat", *lines, "COMMIT", ""]).encode()
        argv = [program, "--noflush", "-w", str(self.wait_s)]
        return child.run(argv, text, timeout_s=self.wait_s + _RUN_S)

    def _refusal(self, doing: str, done: child.Completed, line: str) -> CniError:
        said = _words(done.stderr) or f"exit status {done.status}"
        msg = f"{self.name} could not {doing}: {said}"
        if "xtables lock" in done.stderr:
            return CniError(Code.TRY_AGAIN, msg, "another program holds /run/xtables.lock")
        if _INCOMPATIBLE.search(done.stderr):
            details = (
                "native nftables rules are in a table of iptables-nft; configure "
                '"backend": "nftables", which for ipMasq is "ipMasqBackend"'
            )
        elif _NO_NAT.search(done.stderr):
            details = f"the kernel has no NAT for IPv{self.version}, or this process may not use it"
        else:
            details = f"refused: {line}" if line else ""
        return RefusedError(msg, details, line, done.status)


def _split_listing(text: str) -> dict[str, list[str]]:
    """Part listings by the line that begins each chain: "-P CHAIN POLICY" or "-N CHAIN"."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith(("-P ", "-N ")):
            lines = found[line.split(" ")[1]] = []
        elif line.startswith("-A "):
            lines.append(line)
    return found


def _says_missing(done: child.Completed, chain: str) -> bool:
    """Tell whether a listing failed only because a chain of the CNI plugins is not there.

    The nf_tables variant calls a missing chain incompatible, the legacy one says no more than that a line
    failed; built-in chains are never missing.
    """
    if not chain.startswith("CNI-") or done.status != 1:
        return False
    return bool(re.search(rf"`{re.escape(chain)}'|line \d+ failed|No chain/target/match", done.stderr))


def _words(stderr: str) -> str:
    """Give what the program said in one line, without its advice on where to find help."""
    lines = [_PROGRAM.sub("", line.strip()) for line in stderr.splitlines()]
    kept = [line for line in lines if not _TRIVIAL.match(line)]
    return "; ".join(dict.fromkeys(kept)).removesuffix(".")
