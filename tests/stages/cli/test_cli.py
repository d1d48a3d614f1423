"""The command line and the Makefile: what they call, how they fail, and that help costs nothing."""

import errno
import gc
import os
import re
import shutil
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from pipeline import profile, weights
from pipeline.context import Context
from pipeline.errors import UserError
from stages.apply import stylize
from stages.cli import main, options
from stages.preprocess import align
from tests.support import caches

ROOT = Path(main.__file__).parents[2]
TARGETS = (
    "help setup weights samples align latents masks aladin-codes shards train eval demo stylize interpolate quality "
    "inspect verify test lint bench gpu-check clean finetune-generator train-inverter train-parser train-aladin "
    "train-baseline tables directions"
).split()


def call(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main.cli, words, catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def stage(monkeypatch):
    """Stands in for the stages align and stylize; `calls` holds what they were given."""
    calls = []
    for module in (align, stylize):
        monkeypatch.setattr(module, "run", lambda ctx, **options: calls.append((ctx, options)) or 3)
    return SimpleNamespace(calls=calls)


def test_help_imports_nothing_heavy():
    code = "import sys; from stages.cli import main; print([m for m in ('torch', 'cv2', 'numpy') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert run.stdout.strip() == "[]"
    assert call("--help")[0] == 0


@pytest.mark.parametrize("name", list(main.cli.commands))
def test_every_command_explains_itself(name):
    status, text, _ = call(name, "--help")
    assert status == 0 and "--debug" in text


USES = {  # of the settings that commands share
    "samples": "profile cache device", "shards": "profile cache limit", "train": "profile cache run device",
    "latents": "profile cache limit max-rejects retry-rejected engine device", "weights": "profile",
    "stylize": "content style profile cache run device",
    "eval": "profile cache run limit device", "doctor": "profile cache run",
    "fit-head": "profile run device", "train-aladin": "profile run limit device", "inspect": "",
    "explain": "content style profile cache run limit retry-rejected",
}  # fmt: skip


@pytest.mark.parametrize("name", USES)
def test_a_command_offers_the_settings_that_it_uses(name):
    params = [param for param in main.cli.commands[name].params if not getattr(param, "hidden", False)]
    offered = {option.removeprefix("--") for param in params for option in param.opts}
    shared = "content style profile cache run limit max-rejects retry-rejected engine device"
    assert offered & set(shared.split()) == set(USES[name].split())


def test_a_setting_that_is_not_used_is_told(stage):
    words = ["--content", "a.jpg", "--style", "b.jpg", "-o", "c.png", "--device", "cpu", "--run", "runs/x"]
    assert call("stylize", *words)[2] == ""
    status, out, told = call("stylize", *words, "--limit", "5")
    assert (status, out, told) == (3, "", "hypernst stylize: --limit is not used here\n")
    assert "--limit" not in call("stylize", "--help")[1]


def test_settings_reach_the_stage(stage, tmp_path):
    words = f"--profile tiny --cache {tmp_path} --style {tmp_path}/s --limit 5 --device cpu --no-face keep".split()
    assert call("align", *words)[0] == 3  # the stage's own exit status
    [(ctx, options)] = stage.calls
    assert options == {"no_face": "keep"}
    assert (ctx.profile.name, ctx.cache, ctx.limit, ctx.device) == ("tiny", tmp_path, 5, "cpu")
    assert (ctx.content, ctx.style) == (tmp_path / "samples" / "content", tmp_path / "s")


def test_stylize_takes_files_where_stages_take_folders(stage):
    words = "stylize --device cpu --content a.jpg --style b.jpg -o c.png --strength 0.5".split()
    call(*words)
    [(_, options)] = stage.calls
    pair = {"content": [Path("a.jpg")], "style": (Path("b.jpg"),)}
    assert options == {**pair, "output": Path("c.png"), "strength": 0.5}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--face f.jpg", {"face": Path("f.jpg")}),
        ("--face 2", {"which": 2}),
        ("--face 2 --face f.jpg --no-face keep", {"which": 2, "face": Path("f.jpg"), "no_face": "keep"}),
    ],
)
def test_stylize_takes_another_style_for_the_face_or_another_face(stage, words, expected):
    call(*"stylize --device cpu --content a.jpg --style b.jpg -o c.png".split(), *words.split())
    [(_, options)] = stage.calls
    pair = {"content": [Path("a.jpg")], "style": (Path("b.jpg"),)}
    assert options == {**pair, "output": Path("c.png"), **expected}


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (UserError("no face in x.jpg", 1), 1, "hypernst: no face in x.jpg\n"),
        (UserError("no such folder", 2), 2, "hypernst: no such folder\n"),
        (
            PermissionError(errno.EACCES, "", "a.jpg"),
            1,
            "hypernst: a.jpg: may not be read by this user; have its owner",
        ),
        (OSError(errno.ENOSPC, "", "a.jpg", None, "b.jpg"), 1, "hypernst: b.jpg: cannot be written: no space left"),
        (ValueError("two\nlines"), 1, "hypernst: ValueError: two lines (run it again with --debug for a traceback)\n"),
    ],
)
def test_failures_are_one_line(monkeypatch, error, status, text):
    def fail(ctx):
        raise error

    monkeypatch.setattr(align, "run", fail)
    code, out, told = call("align", "--device", "cpu")
    assert (code, out) == (status, "") and told.startswith(text) and len(told.splitlines()) == 1
    for words in (["--debug", "align", "--device", "cpu"], ["align", "--device", "cpu", "--debug"]):
        with pytest.raises(type(error)):
            call(*words)


@pytest.mark.parametrize(
    "words",
    ["nonsense", "align --nonsense", "align --limit 0", "align --profile nonsense", "align --device nonsense",
     "weights fetch nonsense", "weights list nonsense", "weights fetch --json", "weights list --as x",
     "doctor --limit 0", "inspect . --json --png x.png", "stylize --content a.jpg", "train-parser",
     "stylize --content a --style b -o c.png --face 1 --face 2", "directions --measure --images 3",
     "search --duplicates --text x"],
)  # fmt: skip
def test_wrong_use_is_status_2(words):
    status, _, stderr = call(*words.split())
    assert status == 2 and "Traceback" not in stderr


@pytest.mark.parametrize("name", main.cli.commands)
def test_a_path_that_can_be_none_is_wrong_use_of_every_option(name, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    never = {"": "empty", "/": "whole file system", "loop": "links", "n" * 300: "too long", "file/in": "a directory"}
    for param in main.cli.commands[name].params:
        if not isinstance(param.type, options._Path):
            continue
        words = never if param.type.file_okay else never | {"pipe": "no folder", "file": "no folder"}
        for value, told in (words | ({"\udcff": "not UTF-8"} if param.type is options.RUN else {})).items():
            given = str(tmp_path / value) if value not in ("", "/") else value
            status, _, text = call(name, *([param.opts[0]] if param.opts[0].startswith("-") else []), given)
            assert (status, "Traceback" in text) == (2, False) and told in text.splitlines()[-1], (param.name, text)


def test_curves_leave_out_what_is_no_number(tmp_path):
    rows = [
        f'{{"step": {i}, "loss": {i}, "cut": NaN, "far": 1e400, "half": {"NaN" if i % 2 else 1}}}' for i in range(4)
    ]
    (tmp_path / "log.jsonl").write_text("\n".join([*rows, '{"step": null}', "[1]", '{"st']))
    assert call("curves", str(tmp_path), "-o", str(tmp_path / "curves.html"))[0] == 0
    page = (tmp_path / "curves.html").read_text()
    assert "loss" in page and "half" in page and not re.search(r">(cut|far)<|\bnan\b|\binf\b", page)


def test_weights_and_doctor_report(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("HYPERNST_WEIGHTS", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)
    status, text, _ = call("weights", "list")
    assert status == 0 and all(name in text for name in weights.REGISTRY)
    head, *rows = (re.split(r" {2,}", line) for line in text.splitlines()[:-1])
    row = dict(zip(head, next(row for row in rows if row[0] == "hyperstyle-ffhq-1024"), strict=True))
    known = weights.REGISTRY["hyperstyle-ffhq-1024"]
    assert row == {
        "name": known.name,
        "state": "missing",
        "MB": "1331.0",
        "needed by": "paper1024",
        "what": known.what,
        "licence": known.licence,
        "origin": known.source,
    }
    status, text, _ = call("doctor")
    assert status == 0 and "torch" in text and "GB free" in text and "that profile portable needs are here" in text
    assert ("missing: " in text) == ("while they are fetched" in text)
    for name, weight in (("paper256", "stylegan2-ffhq-256"), ("paper1024", "hyperstyle-ffhq-1024")):
        status, text, _ = call("doctor", "--profile", name)
        assert status == 0 and f"missing: {weight}: get " in text and "import FILE --as" in text
        assert re.search(r"missing: farl-lapa: .*`hypernst weights fetch farl-lapa`", text)
        assert "enough" in text and re.search(r"GB \((NOT )?enough[^)]*\) to train with one sample at a time", text)


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
class TestMakefile:
    def make(self, *words: str) -> str:
        # as from a shell, also when `make test` runs this
        env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
        return subprocess.run(["make", *words], cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout

    def status(self, *words: str) -> int:
        try:
            self.make(*words)
        except subprocess.CalledProcessError as error:
            return error.returncode
        return 0

    def test_help_lists_the_targets(self):
        listed = [line.split()[0] for line in self.make().splitlines() if line.startswith("  ")]
        assert set(TARGETS) <= set(listed)

    def test_settings_are_passed(self):
        text = self.make("-n", "latents", "PROFILE=tiny", "CONTENT=my faces", "CACHE=c", "LIMIT=3")
        rows = "--profile 'tiny' --cache 'c' --limit '3'"
        commands = [line.split("/")[-1] for line in text.splitlines()[-2:]]
        assert commands == [f"hypernst align {rows} --content 'my faces'", f"hypernst latents {rows}"]

    @pytest.mark.weights
    def test_what_would_run_is_told_and_nothing_else_is_run(self, tmp_path):
        (tmp_path / "bin").mkdir()
        (tmp_path / ".hypernst-ready").touch()
        python = tmp_path / "bin" / "python"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        python.chmod(0o755)
        (tmp_path / "bin" / "hypernst").write_text("from stages.cli.main import main\n\nmain()\n")
        places = {"content": tmp_path / "c", "style": tmp_path / "s", "cache": tmp_path / "cache"}
        ctx = Context(profile.load("portable"), **places)
        words = [f"VENV={tmp_path}", *(f"{name.upper()}={place}" for name, place in places.items())]

        def told(*more: str) -> list[str]:
            lines = self.make("-n", "shards", *words, *more).splitlines()
            return [line.split("/hypernst ")[1].split()[0] for line in lines if "/hypernst " in line]

        everything = ["align", "latents", "masks", "aladin-codes", "shards"]
        assert told() == everything
        for collection in ("content", "style"):
            caches.fill_in_place_of_networks(ctx, collection, 4)
        assert told() == ["shards"]
        assert self.status("-q", "shards", *words) == 1
        self.make("shards", *words)
        assert told() == [] and self.status("-q", "shards", *words) == 0
        assert "Nothing to be done" in self.make("shards", *words)
        own = tmp_path / "own.toml"
        own.write_text((profile.FOLDER / "portable.toml").read_text().replace("\npatches = 8", "\npatches = 6", 1))
        assert told(f"PROFILE={own}") == ["aladin-codes", "shards"]
        (ctx.style / "style00001.jpg").write_text("another")
        assert told() == everything

    def test_an_unchanged_environment_is_not_made_again(self, tmp_path):
        venv = tmp_path / "venv"
        (venv / "bin").mkdir(parents=True)
        stamp = venv / ".hypernst-ready"
        assert "pip install" in self.make("-n", "setup", f"VENV={venv}")
        stamp.touch()
        assert "pip install" not in self.make("-n", "setup", f"VENV={venv}")

    def test_clean_keeps_the_readme(self, tmp_path):
        for name in ("README.md", "content", "shards"):
            (tmp_path / name).mkdir()
        self.make("clean", f"CACHE={tmp_path}")
        assert [item.name for item in tmp_path.iterdir()] == ["README.md"]


def test_garbage_of_one_command_is_freed_after_the_next() -> None:
    class Network:
        pass

    for _ in range(2):
        net = Network()
        net.itself = net  # type: ignore[attr-defined]
        left = weakref.ref(net)
        del net
        with options.quick_imports():
            pass
    gc.collect()
    assert left() is None and gc.isenabled() and gc.get_freeze_count()
