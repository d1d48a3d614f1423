"""The wheel holds all that the program needs, in one folder of site-packages; `.ci/wheel` installs it for real."""

import email
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETUP = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel would put into site-packages."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as box:
        box.extractall(folder / "site")
    return folder / "site"


def run(site: Path, folder: Path, *words: str) -> str:
    """What the program in `site` prints when it is run in `folder`."""
    environment = {**os.environ, "PYTHONPATH": str(site), "COLUMNS": "0"}  # as wide as the text is
    command = [sys.executable, "-P", "-m", "hypernst", *words]
    return subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True).stdout


def test_it_has_one_name_and_every_file_of_ours(site: Path) -> None:
    assert sorted(p.name for p in site.iterdir() if p.suffix != ".dist-info") == ["hypernst"]
    rooms = ("pipeline", "models", "stages", "profiles", "weights")
    ours = {p.relative_to(ROOT) for room in rooms for p in (ROOT / room).rglob("*") if p.is_file()}
    there = {p.relative_to(site / "hypernst") for p in (site / "hypernst").rglob("*") if p.is_file()}
    assert {p for p in ours if p.suffix not in (".pyc", ".tmp")} <= there


def test_it_runs_in_an_empty_folder_from_its_own_files(site: Path, tmp_path: Path) -> None:
    assert f"{site}/hypernst/weights/portable" in run(site, tmp_path, "doctor")
    table = [line.split() for line in run(site, tmp_path, "weights", "list").splitlines()]
    shipped = ("head256", "inverter", "parser", "aladin", "hypernet")
    assert all(row[1] == "have" for row in table if row[0] in shipped)
    assert len([row for row in table if row[0] in shipped]) == len(shipped)


def test_it_is_imported_beside_packages_of_the_same_names(site: Path, tmp_path: Path) -> None:
    for room in ("models", "pipeline", "stages"):
        (tmp_path / f"{room}.py").write_text("raise ImportError('not this one')")
    code = (
        "import sys, hypernst; from hypernst.stages.apply.studio import Studio;"
        "s = hypernst.load('tiny', cache=None); print(isinstance(s, hypernst.Studio), 'models' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(site), "COLUMNS": "0"}  # as wide as the text is
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "False"]


def test_every_name_is_there_after_the_imports_were_rewritten(site: Path) -> None:
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--select", "F821", "."]
    subprocess.run(command, cwd=site / "hypernst", check=True)
    plain = re.compile(r"^\s*import (pipeline|models|stages)\b", re.MULTILINE)
    assert [path for path in (site / "hypernst").rglob("*.py") if plain.search(path.read_text())] == []


def test_heavy_libraries_are_extras() -> None:
    core = " ".join(SETUP["dependencies"])
    assert "facexlib" not in core and SETUP["optional-dependencies"]["facexlib"] == ["facexlib"]


def test_what_a_registry_shows_is_there_and_agrees(site: Path) -> None:
    [info] = site.glob("*.dist-info")
    shown = email.message_from_string((info / "METADATA").read_text())
    assert shown["Description-Content-Type"] == "text/markdown" and shown["License-Expression"] == "MIT"
    assert "# HyperNST" in shown.get_payload() and shown.get_all("Classifier") and shown.get_all("Project-URL")
    version = shown["Version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {version} " in (ROOT / "CHANGELOG.md").read_text()
    card = (site / "hypernst" / "weights" / "README.md").read_text()
    assert card.startswith("---\nlicense: ") and "\npipeline_tag: image-to-image\n" in card
