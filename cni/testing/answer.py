"""The response of a plugin: its exit status and the JSON document that it prints."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    """One finished call of a plugin; `stdout` is unchanged, `stderr` is stripped."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        """The JSON object on stdout; {} if it is empty. Raises ValueError or TypeError otherwise."""
        if not self.stdout.strip():
            return {}
        try:
            document = json.loads(self.stdout)
        except ValueError as error:
            raise ValueError(f"stdout is not one JSON document: {self}") from error
        if not isinstance(document, dict):
            raise TypeError(f"stdout is no JSON object: {self}")
        return document

    @property
    def ok(self) -> bool:
        """Whether the plugin succeeded."""
        return self.status == 0

    @property
    def code(self) -> int:
        """The CNI error code, 0 for a success."""
        return 0 if self.ok else int(self.json["code"])

    @property
    def msg(self) -> str:
        """The error's message; "" for a success."""
        return "" if self.ok else str(self.json.get("msg", ""))

    @property
    def text(self) -> str:
        """The message and the details of an error, "; " between them."""
        return f"{self.msg}; {self.json.get('details', '')}"

    def must(self) -> dict[str, Any]:
        """Return the JSON object of a success. Fail the test if it is none."""
        assert self.ok, f"the plugin failed with {self.status}: {self.stdout.strip()} {self.stderr}"
        return self.json

    @property
    def addresses(self) -> list[str]:
        """The addresses of an ADD's result, without prefix lengths ("10.1.0.5"), in its order."""
        return [str(ip["address"]).split("/")[0] for ip in self.json.get("ips", [])]
