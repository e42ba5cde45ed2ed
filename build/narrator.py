"""Print a demonstration: its steps, facts read from the kernel, and checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable


class StepError(Exception):
    """A check of the demonstration failed."""


class Narrator:
    """Writes to the terminal, with colours if it supports them."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True, emoji=False)
        self._steps = 0
        self.checks = 0

    def title(self, text: str, about: str) -> None:
        """Open the demonstration."""
        panel = Panel(Text(about), title=f"[bold]{escape(text)}", border_style="cyan")
        self._console.print(panel, soft_wrap=False)

    def step(self, text: str) -> None:
        """Start a numbered step."""
        self._steps += 1
        self._console.print(f"\n[bold cyan]{self._steps}. {escape(text)}")

    def say(self, text: str) -> None:
        """Print an explanation."""
        self._console.print(f"   {escape(text)}")

    def command(self, *words: str) -> None:
        """Print the next command."""
        self._console.print(f"   [bold]$ {escape(' '.join(words))}")

    def show(self, title: str, lines: Iterable[str]) -> None:
        """Print lines from the kernel or a program below a title."""
        self._console.print(f"   [yellow]{escape(title)}")
        for line in lines:
            self._console.print(f"     [dim]{escape(line.rstrip())}")

    def tree(self, text: str) -> None:
        """Print the output of `pycni show`."""
        for line in text.rstrip().splitlines():
            self._console.print(f"     [green]{escape(line)}")

    def check(self, claim: str, actual: object, expected: object) -> None:
        """Print that a claim holds. Raises StepError if the two values differ."""
        if actual != expected:
            raise StepError(f"{claim}: expected {expected!r}, got {actual!r}")
        self.checks += 1
        shown = ", ".join(actual) if isinstance(actual, list) else str(actual)
        self._console.print(f"   [bold green]ok[/] {escape(claim)}: {escape(shown or 'none')}")

    def end(self, text: str) -> None:
        """Close the demonstration."""
        self._console.print(f"\n[bold green]{escape(text)}")

    def fail(self, text: str) -> None:
        """Print in one line why the demonstration ends early."""
        self._console.print(f"\n[bold red]failed:[/] {escape(text)}")
