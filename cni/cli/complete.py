"""Shell completion: the candidates for the next word, and the scripts that call `pycni complete`.

`cni.runtime` is imported in functions: most candidates do not need it, and each TAB starts a new process.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cni.cli.settings import NETNS_FOLDER, from_env
from cni.errors import CniError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Each script calls the hidden verb `pycni complete` with the words up to the cursor.
SCRIPTS = {
    "bash": """\
_pycni() {
    local line
    COMPREPLY=()
    while IFS=$'\\t' read -r line _; do
        COMPREPLY+=("$line")
    done < <("$1" complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -o default -F _pycni pycni
""",
    "zsh": """\
#compdef pycni
_pycni() {
    local -a found
    local word help
    while IFS=$'\\t' read -r word help; do
        found+=("${word//:/\\\\:}${help:+:$help}")
    done < <("${words[1]}" complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)
    _describe pycni found || _files
}
if [ "$funcstack[1]" = _pycni ]; then _pycni "$@"; else compdef _pycni pycni; fi
""",
    "fish": """\
function __pycni_complete
    set -l words (commandline -opc) (commandline -ct)
    $words[1] complete -- $words[2..] 2>/dev/null
end
complete -c pycni -f -a '(__pycni_complete)'
""",
}


class Candidate(NamedTuple):
    """A candidate for the word at the cursor, and its meaning."""

    word: str
    about: str = ""


def list_candidates(root: Any, words: Sequence[str]) -> list[Candidate]:
    """Return the candidates for the last word; `root` is the `typer` command."""
    *before, incomplete = words or [""]
    command, arguments = _descend(root, before)
    if "--" in before:
        return []
    if option := _taking_value(command, before[-1] if before else ""):
        candidates = list(_list_option_values(command, option))
    elif incomplete.startswith("-"):
        candidates = _list_options(command)
    elif hasattr(command, "commands"):
        candidates = [
            Candidate(name, each.help.splitlines()[0])
            for name, each in command.commands.items()
            if not each.hidden
        ]
    else:
        candidates = list(_list_values(command, arguments))
    return [each for each in dict.fromkeys(candidates) if each.word.startswith(incomplete)]


def _descend(root: Any, words: Sequence[str]) -> tuple[Any, list[str]]:
    """Return the verb that the words name, and its arguments."""
    command, arguments = root, []
    is_value = False
    for word in words:
        if is_value or word.startswith("-"):
            is_value = _taking_value(command, word) is not None and not is_value
        elif hasattr(command, "commands") and word in command.commands:
            command = command.commands[word]
        else:
            arguments.append(word)
    return command, arguments


def _taking_value(command: Any, word: str) -> Any | None:
    """Return the option that a word names and that takes a value, None if there is none."""
    options = [each for each in command.params if each.opts[0][0] == "-" and not each.is_flag]
    return next((each for each in options if word in each.opts), None)


def _list_option_values(command: Any, option: Any) -> Iterator[Candidate]:
    if option.metavar != "NETWORK":
        return
    if command.name == "run":
        yield Candidate("host", "the network of the host")
        yield Candidate("none", "no network")
    with suppress(CniError, OSError):
        yield from _list_networks()


def _list_options(command: Any) -> list[Candidate]:
    options = [
        Candidate(name, each.help or "")
        for each in command.params
        for name in each.opts
        if name.startswith("--")
    ]
    return [*options, Candidate("--help", "Show this message and exit.")]


def _list_values(command: Any, arguments: Sequence[str]) -> Iterator[Candidate]:
    taking = [each for each in command.params if each.param_type_name == "argument"]
    expected = [each.metavar for each in taking]
    position = len(arguments)
    if taking and taking[-1].nargs < 0:
        position = min(position, len(taking) - 1)
    if position >= len(expected):
        return
    try:
        yield from _list_words(command.name, expected[position], arguments)
    except (CniError, OSError):
        # A caller who may not read the files gets no candidates.
        return


def _list_words(verb: str, expected: str, arguments: Sequence[str]) -> Iterator[Candidate]:
    """Yield the candidates for an argument by its name in the help. Raise CniError or OSError."""
    if expected == "NETWORK":
        yield from _list_networks()
    elif expected == "CONTAINER":
        yield from _list_containers(arguments[0] if verb == "disconnect" else "")
    elif expected == "SHELL":
        yield from map(Candidate, SCRIPTS)
    elif expected == "PLUGIN":
        yield from _list_plugins()
    elif expected == "NETNS" and verb in {"check", "del"}:
        yield from _list_attached(arguments[0])
    elif expected == "NETNS" and verb == "add":
        for each in sorted(Path(NETNS_FOLDER).iterdir()):
            yield Candidate(each.name, str(each))


def _list_plugins() -> Iterator[Candidate]:
    from cni.cli.schema import find_plugins

    for each in find_plugins().values():
        yield Candidate(each.name, each.about)


def _list_networks() -> Iterator[Candidate]:
    from cni.runtime.conflists import Broken, load_all

    for each in load_all(from_env(os.environ).conf_folder):
        if not isinstance(each, Broken):
            yield Candidate(each.name, each.file)


def _list_containers(network: str) -> Iterator[Candidate]:
    """Yield names and IDs of attached containers: of all networks, or of one."""
    from cni.runtime.cache import Cache
    from cni.runtime.containers import names

    for each in Cache().list_entries():
        if network in {"", each.network}:
            word = (*names(each), each.container_id)[0]
            yield Candidate(word, each.sandbox)


def _list_attached(network: str) -> Iterator[Candidate]:
    from cni.runtime.cache import Cache

    for each in Cache().list_entries():
        if each.network == network and each.sandbox:
            path = Path(each.sandbox)
            word = path.name if str(path.parent) == NETNS_FOLDER else each.sandbox
            yield Candidate(word, f"{each.container_id} {each.ifname}")
