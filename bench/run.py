"""Runs every measurement of this folder and writes what they print to bench/results.md."""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def main() -> None:
    """Write the results once all have succeeded; raises CalledProcessError when one has not."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "numpy", "opencv-python-headless"))
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    text = ["# What `make bench` measured", "",
            f"On {cores} {platform.machine()} cores with a load of {load:.1f} before it began, Python "
            f"{platform.python_version()}, {versions}. A load is other work: compare by ratio within a table only.", ""]
    for script in sorted(FOLDER.glob("*.py")):
        if script.name == Path(__file__).name:
            continue
        print(f"bench/{script.name}", file=sys.stderr, flush=True)
        found = subprocess.run([sys.executable, script], stdout=subprocess.PIPE, text=True, check=True,
                               env={"OMP_NUM_THREADS": "1", **os.environ})
        text += [f"## {script.name}", "", found.stdout.strip(), ""]
    (FOLDER / "results.md").write_text("\n".join(text))
    print(FOLDER / "results.md")


if __name__ == "__main__":
    main()
