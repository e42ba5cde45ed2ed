"""The iptables programs: each transaction, and each listing, is one process.

Both variants (nf_tables and legacy) are driven through `iptables-restore`. It accepts listings and checks as
well as changes, so that several of them cost one start.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Code
from cni.firewall import nft
from cni.firewall.iptables import legacy
from cni.firewall.iptables.rule import parse_rule
from cni.kernel import child

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.firewall.iptables.rule import Rule

# How long to wait for the lock that all programs of legacy iptables share.
XTABLES_WAIT_S = 20
# How long a run may take after that: with a hundred thousand rules, under load.
_RUN_S = 60

_PROGRAM = re.compile(r"^(ip6?tables\S*( v\S+)?( \(\w+\))?: *)+")
_LINE = re.compile(r"\bline:? (\d+)")
_TRIVIAL = re.compile(r"^(Try `.*|Error occurred at line.*|# Warning.*|line:? \d+ failed\.?|)$")
_NO_TABLE = re.compile(r"Table does not exist|unable to initialize table|can't initialize ip6?tables table")
_FEATURES = {"nat": "NAT"}
# The kernel refuses a built-in chain that exists with another priority: Linux 6.1 with "File exists".
_INCOMPATIBLE = re.compile(
    r"(table|chain) `\S+'.* is incompatible, use 'nft' tool"
    r"|CHAIN_ADD failed \((Operation not supported|File exists)\)"
)


# The variants in the output of `iptables --version`, by the suffix of their programs.
VARIANTS = {"-nft": "nf_tables", "-legacy": "legacy"}
_VARIANT = re.compile(r"\bv\d[\w.]*(?: \((\w+)\))?")
_ASK_S = 10
# The variants of programs, by path and identity of the file: a worker asks each program once.
_variants: dict[tuple[str, int, int, int], str] = {}


class RefusedError(CniError):
    """iptables refused a transaction; `line` is the refused one, "" if iptables did not report it."""

    def __init__(self, msg: str, details: str, line: str, status: int) -> None:
        super().__init__(Code.FIREWALL, msg, details)
        self.line = line
        self.status = status

    @property
    def is_without_table(self) -> bool:
        """Whether the kernel does not have the table for this family."""
        return bool(_NO_TABLE.search(self.msg))

    @property
    def is_conflict(self) -> bool:
        """Whether the rules differ from those that were read: another program has changed them."""
        return self.status in {1, 4}


class Tool(NamedTuple):
    """The programs of one IP version, for one table in the network namespace of the process.

    `variant` is "-nft" or "-legacy" for the program of that name, "" for the iptables on PATH.
    """

    version: int
    table: str
    wait_s: int = XTABLES_WAIT_S
    variant: str = ""

    @property
    def name(self) -> str:
        """The name of the program that users know."""
        return f"{'iptables' if self.version == 4 else 'ip6tables'}{self.variant}"

    def find(self) -> str | None:
        """Return the path of the program that runs transactions, None if it is not installed."""
        found = child.find(f"{self.name}-restore")
        return found if found or self.variant else _find_with_suffix(self)

    def is_nf_tables(self) -> bool:
        """Return whether PATH's program is the nf_tables variant, by the file that is executed.

        Then netlink may do its work.
        """
        program = None if self.variant else self.find()
        return program is not None and os.path.basename(os.path.realpath(program)) == "xtables-nft-multi"  # noqa: PTH119 - text only

    def apply(self, doing: str, lines: Sequence[str]) -> None:
        """Run commands ("-A CHAIN ...") as one transaction: all of them take effect, or none.

        Raise RefusedError, or CniError 11 if another program holds the xtables lock.
        """
        if lines:
            self._run(doing, lines)

    def list_chains(self, chains: Sequence[str]) -> dict[str, list[Rule]]:
        """Return the rules of those chains that exist. Each missing chain costs one more process."""
        found: dict[str, list[Rule]] = {}
        remaining = list(chains)
        while remaining:
            listed, is_complete = self._list(remaining)
            found |= listed
            if is_complete:
                break
            # The listing ends before the first chain that is missing.
            remaining = remaining[len(listed) + 1 :]
        return found

    def list_while_there(self, chains: Sequence[str]) -> dict[str, list[Rule]]:
        """Return the rules of chains up to the first missing one, in one process."""
        return self._list(chains)[0]

    def list_all(self) -> list[Rule]:
        """Return all rules of the table."""
        lines = self._run(f"list table {self.table}", ["-S"]).splitlines()
        return [rule for line in lines if (rule := parse_rule(self.table, line))]

    def has(self, rule: Rule) -> bool:
        """Return whether a rule exists. One that iptables cannot check for does not."""
        try:
            self._run("check a rule", [rule.as_command("-C")])
        except RefusedError:
            return False
        return True

    def _list(self, chains: Sequence[str]) -> tuple[dict[str, list[Rule]], bool]:
        done = self._start([f"-S {chain}" for chain in chains])
        found = _split_listing(self.table, done.stdout.decode(errors="replace"))
        if done.status == 0:
            return found, True
        missing = chains[len(found)] if len(found) < len(chains) else ""
        if not _says_missing(done, missing):
            raise self._refusal(f"list chain {missing} of table {self.table}", done, f"-S {missing}")
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
        text = "\n".join([f"*{self.table}", *lines, "COMMIT", ""]).encode()
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
        elif _NO_TABLE.search(done.stderr):
            feature = _FEATURES.get(self.table, f"table {self.table}")
            details = f"the kernel has no {feature} for IPv{self.version}, or this process may not use it"
        else:
            details = f"refused: {line}" if line else ""
        return RefusedError(msg, details, line, done.status)


def _split_listing(table: str, text: str) -> dict[str, list[Rule]]:
    """Split a listing by the line that begins each chain: "-P CHAIN POLICY" or "-N CHAIN"."""
    found: dict[str, list[Rule]] = {}
    rules: list[Rule] = []
    for line in text.splitlines():
        if line.startswith(("-P ", "-N ")):
            rules = found[line.split(" ")[1]] = []
        elif rule := parse_rule(table, line):
            rules.append(rule)
    return found


def _says_missing(done: child.Completed, chain: str) -> bool:
    """Return whether a listing failed only because a chain of the CNI plugins does not exist.

    The nf_tables variant calls a missing chain incompatible. The legacy one reports only that a line failed.
    Built-in chains always exist.
    """
    if not chain.startswith("CNI-") or done.status != 1:
        return False
    return bool(re.search(rf"`{re.escape(chain)}'|line \d+ failed|No chain/target/match", done.stderr))


def _words(stderr: str) -> str:
    """Return the program's errors in one line, without its advice on where to find help."""
    lines = [_PROGRAM.sub("", line.strip()) for line in stderr.splitlines()]
    kept = [line for line in lines if not _TRIVIAL.match(line)]
    return "; ".join(dict.fromkeys(kept)).removesuffix(".")


def _find_with_suffix(tool: Tool) -> str | None:
    """Return the program that runs transactions if no program without a variant in its name is installed.

    If both variants are installed, return the one whose table exists in this namespace. If neither or both
    tables exist, return the nf_tables one, as distributions with both variants do.
    """
    found = {kind: child.find(f"{tool.name}-{kind}-restore") for kind in ("nft", "legacy")}
    if found["nft"] and found["legacy"] and _is_of_legacy(tool):
        return found["legacy"]
    return found["nft"] or found["legacy"]


def variant_of(program: str) -> str:
    """Return the variant of an "...-restore" program, which `iptables --version` prints; "" if it fails."""
    try:
        asked = os.stat(program)  # noqa: PTH116 - on the hot path
        key = (program, asked.st_dev, asked.st_ino, asked.st_mtime_ns)
        if key not in _variants:
            # The restore programs of old releases do not have the option.
            plain = program.removesuffix("-restore")
            _variants[key] = _ask_variant(plain if os.access(plain, os.X_OK) else program)
    except (OSError, CniError):
        return ""
    return _variants[key]


def _ask_variant(program: str) -> str:
    done = child.run([program, "--version"], timeout_s=_ASK_S)
    said = _VARIANT.search(done.stdout.decode(errors="replace"))
    # Releases before 1.8 print no variant, as only one existed.
    return (said[1] or VARIANTS["-legacy"]) if said and done.status == 0 else ""


def _is_of_legacy(tool: Tool) -> bool:
    try:
        return legacy.is_loaded(tool.version, tool.table) and not nft.has_table(
            nft.FAMILIES[tool.version], tool.table
        )
    except (CniError, OSError):
        return False
