"""Hatch's build hook: add every plugin's package and the table of their names to the wheel."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).parent))
from plugin_table import declared, show


class Plugins(BuildHookInterface[Any]):
    """Adds the plugins of plugins/*/plugin.toml; an editable install uses the Makefile's .pth file."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files to the wheel."""
        if version == "editable":
            return
        plugins = declared(Path(self.root))
        table = Path(tempfile.mkdtemp()) / "plugins.json"
        table.write_text(show(plugins))
        build_data["force_include"] |= {str(each.folder / each.package): each.package for each in plugins}
        build_data["force_include"][str(table)] = "cni/plugins.json"
