"""What a user who may not write somewhere meets: real permissions, under a uid that is in no list of users."""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline import images, weights

ROOT = Path(__file__).parents[2]


def alone() -> list[str]:
    """What runs a command as a user without any rights but those of this user as an owner; [] where that is not had."""
    if os.getuid() != 0:
        return ["env"]
    command = ["unshare", "-U", "--map-user=12345", "--map-group=12345"]
    with contextlib.suppress(OSError):
        if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
            return command
    return []


pytestmark = pytest.mark.skipif(not alone(), reason="a user without rights cannot be had here")

CACHE = """
import os, sys
from pathlib import Path
from pipeline import profile
from pipeline.context import Context
from pipeline.errors import UserError
from stages.preprocess import shards
from stages.tools import verify
from tests.support.caches import fill

folder = Path(sys.argv[1])
ctx = Context(profile.load("tiny"), folder / "cache", folder / "c", folder / "s")
def stages():
    for collection in ("content", "style"):
        fill(ctx, collection, 3)
    shards.run(ctx)

stages()
everything = [ctx.cache, *ctx.cache.rglob("*")]
for path in everything:
    path.chmod(0o555 if path.is_dir() else 0o444)
before = {path: path.stat().st_mtime_ns for path in everything}
stages()
assert verify.run(ctx) == 0
assert {path: path.stat().st_mtime_ns for path in [ctx.cache, *ctx.cache.rglob("*")]} == before
(folder / "c" / "new.jpg").write_text("new")
try:
    stages()
except UserError as error:
    print(error)
for path in everything:
    path.chmod(0o755)
"""

HOME = """
from pipeline import weights
from pipeline.errors import UserError
for name in ("lpips-vgg", "farl-lapa"):
    try:
        with weights.held(name):
            print("held")
    except UserError as error:
        print(error)
"""


def run(code: str, *words: object, **variables: str) -> str:
    keep = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME")}
    command = [*alone(), sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, env=keep | variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_a_cache_that_may_only_be_read_is_enough_where_nothing_is_to_do(tmp_path: Path) -> None:
    told = run(CACHE, tmp_path, HOME=str(tmp_path))
    assert told.count("\n") == 1 and "cannot be written: this user may not write there" in told, told


def test_a_home_that_cannot_be_written_or_is_not_known_has_a_way_out(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o555)
    for told in (run(HOME, HOME=str(home)), run(HOME, XDG_CACHE_HOME=str(home))):
        assert len(told.splitlines()) == 2
        assert all("may not write there" in x and "XDG_CACHE_HOME" in x for x in told.splitlines()), told
    if os.getuid() == 0:  # as the other user is in no list of users
        assert all("no home folder; name a folder for weights in XDG_CACHE_HOME" in x for x in run(HOME).splitlines())
    assert run(HOME, XDG_CACHE_HOME=str(tmp_path)) == "held\nheld\n"


DOOR = """
set -e
mount --bind "$CHECKOUT" "$PLACE"
mount -o remount,bind,ro "$PLACE"
cd "$PLACE"
unshare -U --map-user=12345 --map-group=12345 sh -ec '
    umask 077
    if touch here 2> /dev/null; then exit 9; fi
    make doctor PROFILE=tiny "CACHE=$CACHE" "VENV=$ENVIRONMENT"
    for again in 1 2; do
        make shards PROFILE=tiny "CONTENT=$FACES" "STYLE=$FACES" "CACHE=$CACHE" "VENV=$ENVIRONMENT" DEVICE=cpu
    done
    make verify PROFILE=tiny "CONTENT=$FACES" "STYLE=$FACES" "CACHE=$CACHE" "VENV=$ENVIRONMENT"
'
"""


@pytest.mark.weights
@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("make"), reason="needs make, and root to mount a checkout")
def test_the_front_door_of_a_strange_house(tmp_path: Path) -> None:
    """An empty HOME, another uid, umask 077, a checkout that is read-only, and paths with spaces and quotes at once."""
    house = tmp_path / "Anna's  house $5"
    names = {"CHECKOUT": ROOT, "PLACE": house / "checkout", "HOME": house / "home", "FACES": house / "her 'faces'"}
    names |= {"CACHE": house / "cache", "ENVIRONMENT": house / "env", "HYPERNST_WEIGHTS": house / "weights"}
    for name in names.keys() - {"CHECKOUT", "CACHE"}:
        names[name].mkdir(parents=True)
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 256, (5, 5, 3), np.uint8).repeat(16, 0).repeat(16, 1)
        (names["FACES"] / f"{i} 'x'.png").write_bytes(images.encode(pixels))
    shutil.copy(weights.path("lpips-alex"), names["HYPERNST_WEIGHTS"] / "lpips-alex.safetensors")
    (names["ENVIRONMENT"] / "bin").mkdir()
    python = names["ENVIRONMENT"] / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (python.parent / "hypernst").write_text("from stages.cli.main import main\n\nmain()\n")
    (names["ENVIRONMENT"] / ".hypernst-ready").touch()
    keep = {n: v for n, v in os.environ.items() if n not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "XDG_CACHE_HOME")}
    environment = keep | {name: str(path) for name, path in names.items()} | {"PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", DOOR], env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stdout[-1000:] + done.stderr[-3000:]
    assert "all checksums hold" in done.stderr and "Nothing to be done" not in done.stderr
    made = list(names["CACHE"].rglob("*"))
    assert {path.name for path in made} >= {"images.h5", "latents.h5", "masks.h5", "aladin.h5", "index.json"}
    assert not [path for path in made if path.stat().st_mode & 0o077]
