"""The manual page pycni(1), generated from the texts of `--help`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cni import __version__
from cni.cli.settings import DEFAULT_PATH
from cni.runtime.conflists import DEFAULT_FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterator

_VARIABLES = {
    "CNI_PATH": f"Folders of plugin executables, separated by colons. Default: {DEFAULT_PATH}.",
    "NETCONFPATH": f"Folder of network files. Default: {DEFAULT_FOLDER}.",
    "CAP_ARGS": "JSON object of capability args, such as portMappings. Default for check and del: as in add.",
    "CNI_ARGS": "KEY=VALUE;KEY=VALUE. Default for check and del: as in add.",
    "CNI_IFNAME": "Name of the link in the namespace. --ifname takes precedence. Default: eth0.",
    "NO_COLOR": "Any value: print no colours.",
}
_CODES = {
    "0": "Success.",
    "1": "A plugin failed, or the configuration, the environment or a file is invalid.",
    "2": "Wrong usage: an unknown verb or option, a missing argument.",
    "130": "Interrupted from the keyboard.",
}
_FILES = {
    f"{DEFAULT_FOLDER}/*.conflist": "Networks.",
    "/var/lib/cni/results": "Arguments and results of add.",
}


def page(root: Any) -> str:
    """Return the page in the macros of man(7); `root` is the `typer` command."""
    return "\n".join(_lines(root)) + "\n"


def _lines(root: Any) -> Iterator[str]:
    yield f'.TH PYCNI 1 "" "pycni {__version__}" "User commands"'
    yield from [".SH NAME", f"pycni \\- {_text(root.help)[:1].lower()}{_text(root.help)[1:].rstrip('.')}"]
    yield from [".SH SYNOPSIS", ".B pycni", ".I VERB", "[ARGUMENTS] [OPTIONS]", ".SH VERBS"]
    for name, command in _walk(root, ""):
        yield from _of_verb(name, command)
    for title, table in (("EXIT STATUS", _CODES), ("ENVIRONMENT", _VARIABLES), ("FILES", _FILES)):
        yield f".SH {title}"
        for term, about in table.items():
            yield from [".TP", f".B {_text(term)}", _text(about)]


def _walk(group: Any, above: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _walk(command, f"{above}{name} ")
        elif not command.hidden:
            yield f"{above}{name}", command


def _of_verb(name: str, command: Any) -> Iterator[str]:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    shown = [each.metavar if each.required else f"[{each.metavar}]" for each in arguments]
    yield f".SS pycni {' '.join([name, *shown])}"
    yield _text(command.help)
    for each in command.params:
        if each.hidden or not each.help:
            continue
        flags = ", ".join(each.opts) if each not in arguments else ""
        value = "" if getattr(each, "is_flag", False) else each.metavar or ""
        yield from [".TP", f".B {_text(f'{flags} {value}'.strip())}", _text(each.help)]


def _text(text: str) -> str:
    """Return a text as one line of roff, with roff's special characters escaped."""
    line = " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{line}" if line[:1] in {".", "'"} else line
