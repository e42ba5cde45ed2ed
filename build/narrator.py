"""Tell a demonstration as it happens: steps, facts read back from the kernel, and checks that must hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable


class StepError(Exception):
    """A check of the demonstration that did not hold."""


class Narrator:
    """Writes to the terminal, in colours where it has them."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True, emoji=False)
        self._steps = 0
        self.checks = 0

    def title(self, text: str, about: str) -> None:
        """Open the demonstration."""
        panel = Panel(Text(about), title=f"[bold]{escape(text)}", border_style="cyan")
        self._console.print(panel, soft_wrap=False)

    def step(self, text: str) -> None:
        """Begin a step, which has a number."""
        self._steps += 1
        self._console.print(f"\n[bold cyan]{self._steps}. {escape(text)}")

    def say(self, text: str) -> None:
        """Explain, in a sentence or two."""
        self._console.print(f"   {escape(text)}")

    def command(self, *words: str) -> None:
        """Show the command that is run next."""
        self._console.print(f"   [bold]$ {escape(' '.join(words))}")

    def show(self, what: str, lines: Iterable[str]) -> None:
        """Show what was read back from the kernel or printed by a program."""
        self._console.print(f"   [yellow]{escape(what)}")
        for line in lines:
            self._console.print(f"     [dim]{escape(line.rstrip())}")

    def tree(self, text: str) -> None:
        """Show what `pycni show` prints."""
        for line in text.rstrip().splitlines():
            self._console.print(f"     [green]{escape(line)}")

    def check(self, claim: str, actual: object, expected: object) -> None:
        """Say that a claim holds. Raises StepError when the two values differ."""
        if actual != expected:
            raise StepError(f"{claim}: expected {expected!r}, got {actual!r}")
        self.checks += 1
        shown = ", ".join(actual) if isinstance(actual, list) else str(actual)
        self._console.print(f"   [bold green]ok[/] {escape(claim)}: {escape(shown or 'none')}")

    def end(self, text: str) -> None:
        """Close the demonstration."""
        self._console.print(f"\n[bold green]{escape(text)}")

    def fail(self, text: str) -> None:
        """Say in one line why it ends early."""
        self._console.print(f"\n[bold red]failed:[/] {escape(text)}")
