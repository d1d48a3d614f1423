"""Builds the wheel: the rooms lie inside hypernst/ there, so their imports of each other get that name in front.

`from pipeline import images` becomes `from hypernst.pipeline import images`: as packages of their own, `pipeline`,
`models` and `stages` would collide with those of others. `import pipeline` would leave a name that is not there.
"""

import re
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOMS = ("pipeline", "models", "stages")
IMPORT = re.compile(rf"^(\s*)from (?=(?:{'|'.join(ROOMS)})\b)", re.MULTILINE)


class CustomBuildHook(BuildHookInterface):
    """Puts rewritten copies of the Python files into the wheel; an editable install takes the checkout as it is."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        self.copies = tempfile.TemporaryDirectory()
        for top in (*ROOMS, "hypernst"):
            for path in sorted(Path(self.root, top).rglob("*.py")):
                place = path.relative_to(self.root)
                copy = Path(self.copies.name) / place
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_text(IMPORT.sub(r"\1from hypernst.", path.read_text()))
                inside = place if top == "hypernst" else "hypernst" / place
                build_data["force_include"][str(copy)] = str(inside)

    def finalize(self, version: str, build_data: dict[str, Any], artifact: str) -> None:
        if version != "editable":
            self.copies.cleanup()
