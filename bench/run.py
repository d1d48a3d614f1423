"""Runs all measurements in this folder, or those named, and writes their output to bench/results.md."""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

SELF = Path(__file__).resolve()
FOLDER = SELF.parent


def main(names: list[str]) -> None:
    """Run the measurements and write each section as soon as it is measured.

    With `names` (such as `readers`) the other sections stay as they are.
    Raises: CalledProcessError when a measurement fails.
    """
    path = FOLDER / "results.md"
    others = (SELF.name, "gpu.py")  # that has a report of its own
    chosen = [FOLDER / f"{name}.py" for name in names] or [
        script for script in sorted(FOLDER.glob("*.py")) if script.name not in others
    ]
    sections = _sections(path.read_text()) if path.exists() else {}
    for script in chosen:
        print(f"bench/{script.name}", file=sys.stderr, flush=True)
        before = os.getloadavg()[0]
        done = subprocess.run(
            [sys.executable, script],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env={"OMP_NUM_THREADS": "1", **os.environ},
        )
        loads = f"Load {before:.1f} before, {os.getloadavg()[0]:.1f} after."
        sections[script.name] = f"{loads}\n\n{done.stdout.strip()}"
        parts = [_head(), *(f"## {name}\n\n{text}" for name, text in _ordered(sections))]
        path.write_text("\n\n".join(parts) + "\n")
    print(path)


def _head() -> str:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "numpy", "opencv-python-headless"))
    return (
        "# What `make bench` measured\n\n"
        f"On {len(os.sched_getaffinity(0))} {platform.machine()} cores, Python {platform.python_version()}, "
        f"{versions}. A load\nabove the measurement's own, 1, is other work: compare by ratio within a table only."
    )


def _ordered(sections: dict[str, str]) -> list[tuple[str, str]]:
    """The sections in order: first those that people wrote, such as `missed`, then the measurements."""
    return sorted(sections.items(), key=lambda section: (section[0].endswith(".py"), section[0]))


def _sections(text: str) -> dict[str, str]:
    """The sections of a results.md by the name of their script, or another title."""
    parts = (part.split("\n", 1) for part in text.split("\n## ")[1:])
    return {name.strip(): rest.strip() for name, rest in parts}


if __name__ == "__main__":
    main(sys.argv[1:])
