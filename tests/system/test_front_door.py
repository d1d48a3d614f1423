"""The Makefile through a shell, with settings as people have them: what is written after a target arrives as it was.

The python of an environment whose path has spaces, quotes and `$` is stood in for by one that notes its arguments: the
scripts that pip puts beside it would not start there.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.core import ParameterSource

from stages.cli.main import cli

ROOT = Path(__file__).parents[2]
STUB = """#!{python}
import json, os, sys
if not sys.argv[1].endswith("/hypernst") and "torch.distributed.run" not in sys.argv:
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
with open({noted!r}, "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
if "--names" in sys.argv:
    print("align")
"""
NASTY = (
    "/x/Anna's  photos",
    "a $HOME b$5",
    "$(oops ${x} $$",
    '#1 "q" \\n; touch pwned',
    "~/my pictures",
    "~",
    "a ~/b",
    "x,y)",
)
OPTIONS = {
    "PROFILE": "--profile", "CACHE": "--cache", "RUN": "--run", "LIMIT": "--limit", "ENGINE": "--engine",
    "DEVICE": "--device", "CONTENT": "--content", "STYLE": "--style", "NO_FACE": "--no-face", "DATA": "--data",
    "MINUTES": "--minutes", "STEPS": "--steps", "SHEET": "--sheet", "CONTROL_SHEET": "--control-sheet",
    "STRIP": "--strip", "TABLE": "--table", "OUT": "--output", "METHODS": "--methods", "BUDGET": "--budget",
    "STRENGTH": "--strength", "LABELLED": "--labelled", "TEACHER_SHARE": "--teacher-share",
}  # fmt: skip
ROWS = ("PROFILE", "CACHE", "LIMIT", "ENGINE", "DEVICE")
ALL = (*ROWS, "RUN", "CONTENT", "STYLE")
TRAINED = ("PROFILE", "CACHE", "RUN", "DEVICE")
TAKES = {
    "align": (*ALL, "NO_FACE"), "train": (*TRAINED, "MINUTES", "STEPS"),
    "eval": (*TRAINED, "LIMIT", "METHODS", "BUDGET", "STRENGTH"),
    "demo": ALL, "verify": (*ALL, "NO_FACE"), "studio": (*TRAINED, "STYLE"),
    "explain": ("PROFILE", "CACHE", "LIMIT", "RUN", "CONTENT", "STYLE", "NO_FACE"),
    "doctor": ("PROFILE", "CACHE", "RUN"), "weights": ("PROFILE",),
    "quality": (*TRAINED, "ENGINE", "SHEET", "CONTROL_SHEET", "STRIP"),
    "stylize": (*TRAINED, "CONTENT", "STYLE", "NO_FACE", "STRENGTH", "OUT"),
    "interpolate": (*TRAINED, "CONTENT", "STYLE", "OUT"),
    "ablation": (*TRAINED, "LIMIT", "TABLE", "STEPS"), "tables": (*TRAINED, "LIMIT"),
    "train-baseline": (*TRAINED, "MINUTES", "STEPS"), "directions": (*TRAINED, "LIMIT", "OUT"),
    "edits": (*TRAINED, "OUT"),
    "train-parser": ("PROFILE", "RUN", "DEVICE", "DATA", "MINUTES", "STEPS", "OUT", "LABELLED", "TEACHER_SHARE"),
}  # fmt: skip
TARGETS = ("align", "latents", "masks", "aladin-codes", "shards", "samples", "train", *TAKES, "inspect", "train-aladin")
pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="needs make")


class Door:
    """An environment of a stub, and `make` run there by sh."""

    def __init__(self, folder: Path) -> None:
        self.venv, self.noted, self.home = folder / "Anna's  env $5", folder / "noted", folder / "home of 'A'"
        (self.venv / "bin").mkdir(parents=True)
        self.home.mkdir()
        python = self.venv / "bin" / "python"
        python.write_text(STUB.format(python=sys.executable, noted=str(self.noted)))
        python.chmod(0o755)
        (self.venv / ".hypernst-ready").touch()

    def make(self, *words: str, status: int = 0) -> list[list[str]]:
        """The commands that were run, the survey of what is to be done left out."""
        keep = {n: v for n, v in os.environ.items() if n not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", *OPTIONS}}
        line = shlex.join(["make", *words, f"VENV={self.venv}"])
        done = subprocess.run(
            ["sh", "-c", line], cwd=ROOT, env=keep | {"HOME": str(self.home)}, capture_output=True, text=True
        )
        assert done.returncode == status, done.stderr
        self.said = done.stdout + done.stderr
        lines = self.noted.read_text().splitlines() if self.noted.exists() else []
        self.noted.unlink(missing_ok=True)
        assert not (ROOT / "pwned").exists()
        return [command for command in map(json.loads, lines) if "--names" not in command]

    def meant(self, value: str) -> str:
        """The value as README's `CONTENT=~/faces` means it."""
        return str(self.home) + value[1:] if value == "~" or value.startswith("~/") else value


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path)


@pytest.mark.parametrize("target", TAKES)
def test_settings_arrive_as_they_were_written(door: Door, target: str) -> None:
    for i in range(0, len(NASTY), 2):  # neighbours, so that each setting meets half of the values
        values = {name: NASTY[(i + j) % len(NASTY)] for j, name in enumerate(TAKES[target])}
        argument = {"quality": "PORTRAITS", "explain": "STAGE", "train-baseline": "METHOD"}.get(target)
        named = {argument: NASTY[i]} if argument else {}
        ran = door.make(target, *(f"{name}={value}" for name, value in (values | named).items()))[-1]
        assert Path(ran[0]).name == "hypernst" and ran[1] == target
        rest = [word for word in ran[2:] if word != "fetch"]
        if named:
            assert rest.pop() == door.meant(NASTY[i])
        always = {"CACHE": "cache"} if "CACHE" in TAKES[target] else {}
        assert dict(zip(rest[::2], rest[1::2], strict=True)) == {
            OPTIONS.get(name, name): door.meant(value) for name, value in (always | values).items()
        }


@pytest.mark.parametrize("target", TARGETS)
def test_a_command_takes_what_make_hands_to_it(door: Door, target: str) -> None:
    """Every setting there is, and the command's own parser takes what arrives: none is ignored, none is unknown."""
    values = {"STAGE": "align", "TABLE": "2", "LIMIT": "1", "STEPS": "1", "MINUTES": "1", "ENGINE": "local"}
    values |= {
        "BUDGET": "1",
        "STRENGTH": "0.5",
        "TEACHER_SHARE": "0.3",
        "METHOD": "sanet",
        "NO_FACE": "keep",
        "PROFILE": "tiny",
        "PORTRAITS": str(door.home),
        "FILE": str(door.home),
    }
    settings = {name: values.get(name, str(door.home / "x.png")) for name in (*OPTIONS, *values)}
    for ran in door.make(target, *(f"{name}={value}" for name, value in settings.items())):
        command = cli.commands[ran[1]]
        taken = command.make_context(ran[1], ran[2:])
        given = {name for name in taken.params if taken.get_parameter_source(name) is not ParameterSource.DEFAULT}
        used = {o: p.name in given for p in command.params if not getattr(p, "hidden", False) for o in p.opts}
        assert {o for o in used if o in OPTIONS.values()} == {o for o, taken in used.items() if taken} & {
            *OPTIONS.values()
        }
        assert not any(getattr(p, "hidden", False) for p in command.params if p.name in given)


@pytest.mark.parametrize("value", NASTY)
def test_a_file_to_inspect(door: Door, value: str) -> None:
    assert [ran[1:] for ran in door.make("inspect", f"FILE={value}")] == [["inspect", door.meant(value)]]


@pytest.mark.parametrize("target", ["samples", "latents", "masks", "aladin-codes", "shards", "align"])
def test_what_make_n_tells_can_be_run(door: Door, target: str) -> None:
    words = (target, f"CONTENT={NASTY[0]}", f"CACHE={NASTY[1]}", f"RUN={NASTY[4]}")
    ran = door.make(*words)
    assert door.make("-n", *words) == []
    told = "\n".join(line for line in door.said.splitlines() if "hypernst " in line)
    subprocess.run(["sh", "-c", told], env={"HOME": str(door.home)}, cwd=ROOT, check=True)
    again = [json.loads(line) for line in door.noted.read_text().splitlines()] if told else []
    assert again == ran


@pytest.mark.parametrize("setting", ["RUN", "CACHE", "PROFILE", "DEVICE"])
def test_several_processes_get_the_command_with_its_own_options(door: Door, setting: str) -> None:
    from torch.distributed.run import get_args_parser

    [*_, ran] = door.make("train", "PROCESSES=2", f"{setting}=x y")
    assert ran[:2] == ["-m", "torch.distributed.run"]
    taken = get_args_parser().parse_args(ran[2:])
    assert (taken.nproc_per_node, taken.standalone) == ("2", True)
    assert taken.training_script == str(door.venv / "bin" / "hypernst")
    words = taken.training_script_args
    assert words[0] == "train" and words[words.index(OPTIONS[setting]) + 1] == "x y"


def test_help_finds_what_is_there(door: Door, tmp_path: Path) -> None:
    cache = tmp_path / 'Anna\'s "cache" $5'
    (cache / "content").mkdir(parents=True)
    (cache / "content" / "images.h5").touch()
    door.make(f"CACHE={cache}")
    states = {line.split()[0]: line.split()[1] for line in door.said.splitlines() if line.startswith("  ")}
    assert (states["setup"], states["align"], states["latents"]) == ("made", "partly", "-")


@pytest.mark.parametrize("name", ["Anna's  cache", "$5 $(x)", "~/a b"])
def test_clean_needs_no_environment_and_knows_what_is_ours(door: Door, tmp_path: Path, name: str) -> None:
    cache = Path(door.meant(name)) if name.startswith("~") else tmp_path / name
    for part in ("content", "shards", "mine"):
        (cache / part).mkdir(parents=True)
    (cache / "content" / "rejects.jsonl").touch()
    (cache / "content" / "mine.jpg").write_bytes(b"mine")
    door.make("clean", f"CACHE={name if name.startswith('~') else cache}")
    assert sorted(str(path.relative_to(cache)) for path in cache.rglob("*")) == ["content", "content/mine.jpg", "mine"]
    assert "left, as it is not what the stages made: content/mine.jpg, mine/" in door.said


def test_an_environment_is_made_where_it_was_named(door: Door, tmp_path: Path) -> None:
    other = tmp_path / "Tom's $HOME"
    door.make("-n", "setup", f"VENV={other}")  # the last one counts
    assert "pip install" not in door.said
    (door.venv / ".hypernst-ready").unlink()
    door.make("-n", "setup")
    assert f"-m venv --clear {shlex.quote(str(door.venv))}" in door.said.replace("'\\''", "'\"'\"'")


def test_stylize_needs_three_files(door: Door) -> None:
    assert door.make("stylize", "CONTENT=a.jpg", "OUT=b.png", status=2) == []
    assert "make stylize: name three files with CONTENT=, STYLE= and OUT=" in door.said


def test_clean_of_no_folder_is_refused(door: Door) -> None:
    door.make("clean", "CACHE=", status=2)
    assert "no folder named; name the cache's with CACHE=dir" in door.said
