"""The house keeps its rules: arrows as docs/architecture.md draws them, small files, small folders, nothing hidden."""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("pipeline", "models", "stages")
ABOVE = {"pipeline": {"pipeline"}, "models": {"models"}, "stages": set(ROOMS)}  # rooms that a room's files may import
MOST_LINES, MOST_FILES = 300, 12
PICTURES = {".jpg", ".jpeg", ".png", ".gif", ".webp", ".webm", ".svg", ".heic", ".tif", ".tiff", ".bmp"}
HIDDEN = {"importlib", "importlib.import_module"}  # imports that mypy, an editor and grep cannot see
REEXPORTS = "pipeline/weights/__init__.py"  # the only __init__.py that hands on names
ROW = re.compile(r"^\| `(\w+)/(\w+)/` \| ([^|]+)\| ([^|]*)\|$", re.MULTILINE)

Arrows = Mapping[str, set[str]]


def drawn(page: str) -> dict[str, set[str]]:
    """The table of a page: each folder as `room.folder`, and the folders that it may import."""
    return {
        f"{room}.{folder}": {f"{room}.{name}" for name in re.findall(r"`(\w+)`", arrows)}
        for room, folder, _, arrows in ROW.findall(page)
    }


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every import of a file, lazy ones too: its line and the full name of what is imported."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{start}.{alias.name}") for alias in node.names)


def folder_of(name: str, root: Path) -> str:
    """`room.folder` that a full name lies in, or `room` for what lies in the room itself."""
    parts = name.split(".")
    inside = len(parts) > 1 and (root / parts[0] / parts[1]).is_dir()
    return ".".join(parts[:2]) if inside else parts[0]


def violations(root: Path, arrows: Arrows) -> list[str]:
    """Every import that the rules forbid, as `file:line: what is wrong`."""
    found = []
    for room in ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            place = path.relative_to(root)
            own = folder_of(".".join(place.with_suffix("").parts), root)
            for line, name in imports(path):
                target = folder_of(name, root)
                other = target.split(".")[0]
                if name.startswith(".") or other in ("tests", "bench") or name in HIDDEN:
                    found.append(f"{place}:{line}: imports {name}")
                elif other in ROOMS and other not in ABOVE[room]:
                    found.append(f"{place}:{line}: {room} imports {target}")
                elif other == room and "." in target and target != own and target not in arrows.get(own, set()):
                    found.append(f"{place}:{line}: {own} imports {target}")
    return found


def circles(arrows: Arrows) -> list[str]:
    """Folders that can be reached from themselves along the arrows."""
    reach = {start: set(ends) for start, ends in arrows.items()}
    for _ in arrows:
        for start, ends in reach.items():
            reach[start] = ends.union(*(reach.get(end, set()) for end in ends))
    return sorted(start for start, ends in reach.items() if start in ends)


ARROWS = drawn((ROOT / "docs" / "architecture.md").read_text())


def test_every_folder_is_on_the_page() -> None:
    there = {f"{room}.{p.name}" for room in ROOMS for p in (ROOT / room).iterdir() if (p / "__init__.py").exists()}
    assert set(ARROWS) == there
    assert set().union(*ARROWS.values()) <= there


def test_arrows_run_one_way() -> None:
    assert circles(ARROWS) == []
    assert violations(ROOT, ARROWS) == []


def test_no_file_and_no_folder_is_large() -> None:
    code = [p for top in (*ROOMS, "tests", "bench") for p in (ROOT / top).rglob("*.py")]
    long = {str(p.relative_to(ROOT)): n for p in code if (n := len(p.read_text().splitlines())) > MOST_LINES}
    assert long == {}
    counts = {str(d.relative_to(ROOT)): len(list(d.glob("*.py"))) for d in {p.parent for p in code}}
    assert {d: n for d, n in counts.items() if n > MOST_FILES} == {}
    assert [p.name for p in (ROOT / "stages").glob("*.py")] == ["__init__.py"]


def test_every_picture_is_told_of_with_its_origin() -> None:
    places = (ROOT / top for top in (*ROOMS, "tests", "bench", "docs", "examples", "hypernst", "profiles", "weights"))
    there = [path for place in places for path in place.rglob("*") if path.suffix.lower() in PICTURES]
    told = (ROOT / "CONTRIBUTING.md").read_text()
    assert there and [str(path.relative_to(ROOT)) for path in there if path.name not in told] == []


def test_init_files_hold_a_docstring_alone() -> None:
    inits = [p for room in ROOMS for p in (ROOT / room).rglob("__init__.py")]
    bodies = {str(p.relative_to(ROOT)): ast.parse(p.read_text()).body for p in inits}
    assert all(body and ast.get_docstring(ast.Module(body, [])) for body in bodies.values())
    allowed = {REEXPORTS, "pipeline/__init__.py"}  # the latter holds the version and the schema
    assert [name for name, body in bodies.items() if len(body) > 1 and name not in allowed] == []


@pytest.mark.parametrize(
    ("file", "line", "told"),
    [
        ("pipeline/caches/reader.py", "from pipeline.runner import run", "pipeline.caches imports pipeline.runner"),
        ("pipeline/files.py", "from pipeline.caches.reader import Cache", "pipeline imports pipeline.caches"),
        ("models/net.py", "from pipeline import files", "models imports pipeline"),
        ("pipeline/runner/run.py", "from stages.train import run", "pipeline imports stages.train"),
        ("stages/train/run.py", "def f():\n    from stages.cli import main", "stages.train imports stages.cli"),
        ("stages/cli/main.py", "import importlib", "imports importlib"),
        ("stages/cli/main.py", "from . import options", "imports ..options"),
    ],
)
def test_an_arrow_turned_round_is_found(tmp_path: Path, file: str, line: str, told: str) -> None:
    page = (
        "| `pipeline/caches/` | rows | |\n| `pipeline/runner/` | runs | `caches` |\n"
        "| `stages/train/` | trains | |\n| `stages/cli/` | commands | `train` |\n"
    )
    tree = {
        "pipeline/caches/reader.py": "",
        "pipeline/runner/run.py": "from pipeline.caches import reader",
        "pipeline/files.py": "",
        "models/net.py": "",
        "stages/train/run.py": "from pipeline.runner import run\nfrom models import net",
        "stages/cli/main.py": "from stages.train import run",
    }
    for name, text in tree.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert violations(tmp_path, drawn(page)) == []
    (tmp_path / file).write_text(line)
    [found] = violations(tmp_path, drawn(page))
    assert found.startswith(f"{file}:") and told in found


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == ["a", "b", "c"]
