"""The results of a run, and the files that they are written to."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bench import page, picture, plot
from bench.curves import CURVES
from bench.run import SETTLE_S
from bench.targets import judge

if TYPE_CHECKING:
    from pathlib import Path

    from bench.rows import Row
    from bench.targets import Verdict


@dataclass(frozen=True)
class Report:
    """`processes` is by side and verb, or why they could not be counted; `suites` is what was compared."""

    size: str
    suites: dict[str, str]
    machine: dict[str, str]
    rows: list[Row]
    processes: dict[str, dict[str, int] | str]
    memory: list[dict[str, Any]]

    @property
    def verdicts(self) -> list[Verdict]:
        """Return the targets, and whether the run has reached them."""
        return judge(self.rows, self.memory)

    @property
    def subtitle(self) -> str:
        """Return the compared suites and the machine in one line."""
        return f"{self.suites['ours']}, against {self.suites['go']}, on {self.machine['cores']} cores"

    def write(self, folder: Path) -> list[Path]:
        """Write page, pictures and figures. Return their paths. Raises OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        texts = {
            "benchmarks.md": page.write(self, "benchmarks.svg", round(SETTLE_S * 1000)),
            "benchmarks.svg": picture.draw(self.rows, self.subtitle),
            **{each.file: plot.draw(self.rows, each, self.subtitle) for each in CURVES},
            "benchmarks.json": self._json(),
        }
        for name, text in texts.items():
            (folder / name).write_text(text)
        return [folder / name for name in texts]

    def _json(self) -> str:
        document = asdict(self) | {"targets": [each._asdict() for each in self.verdicts]}
        # One row a line: an indented list of all times would be thousands of lines.
        rows = ",\n  ".join(json.dumps(row) for row in document.pop("rows"))
        return json.dumps(document, indent=1)[:-2] + f',\n "rows": [\n  {rows}\n ]\n}}\n'
