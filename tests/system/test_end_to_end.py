"""Every stage through the command line on a folder as users have them: good portraits among unusable files."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner, Result

from models.generators.mobilestylegan import MobileStyleGAN
from pipeline import images, profile, weights
from pipeline.caches import reader
from pipeline.context import Context
from pipeline.sources.keys import key_of
from stages.cli import main
from stages.portraits import portrait
from stages.portraits.reader import PortraitReader
from stages.preprocess import samples

pytestmark = pytest.mark.weights
ROOT = Path(main.__file__).parents[2]
STAGES = ("align", "latents", "masks", "aladin-codes", "shards")
CACHES = ("images", "latents", "masks", "aladin")
GOOD = ("anna.jpg", "Ben, 2.PNG")
BAD = {
    "notes.jpg": "not a picture in a known format",
    "cut.jpg": "damaged or truncated picture",
    "nobody.jpg": "no face found",
    "stamp.png": "16x16 pixels, shorter side under 64",
}
KILLING = """
import os, signal, sys
from pathlib import Path
from pipeline.runner import compute as runner
from stages.cli import main
left, replace = int(sys.argv[1]), Path.replace
def killing(self, target):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)
Path.replace, runner.PART_SECONDS = killing, 0
for stage in sys.argv[2].split():
    assert main.cli([stage, *sys.argv[3:]], standalone_mode=False) == 0
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two portraits drawn from the generator and what else lies in a folder."""
    folder = tmp_path_factory.mktemp("mine")
    generator = MobileStyleGAN.load(weights.tensors("mobilestylegan"))
    mean = generator.mean_latent(1000)
    with torch.no_grad():
        w = mean + 0.6 * (generator.map(torch.randn(2, 512, generator=torch.Generator().manual_seed(3))) - mean)
        faces = [images.to_arrays(F.avg_pool2d(generator(w[i : i + 1]), 2))[0] for i in range(2)]
    for name, face in zip(GOOD, faces, strict=True):
        data = images.encode(samples.with_margin(face), Path(name).suffix.lower())
        (folder / name).write_bytes(data)
    data = (folder / GOOD[0]).read_bytes()
    (folder / "cut.jpg").write_bytes(data[: len(data) // 2])
    (folder / "notes.jpg").write_text("remember the milk")
    ramp = np.linspace(0, 255, 300).astype(np.uint8)
    (folder / "nobody.jpg").write_bytes(images.encode(np.stack([ramp[:, None] | ramp] * 3, 2), ".jpg"))
    (folder / "stamp.png").write_bytes(images.encode(faces[0][:16, :16]))
    return folder


def words(folder: Path, base: Path) -> list[str]:
    places = {"cache": base / "cache", "run": base / "run", "content": folder, "style": folder}
    return [*(f"--{name}={place}" for name, place in places.items()), f"--profile={brief(base)}", "--device=cpu"]


def brief(base: Path) -> Path:
    """The portable profile with few gradient steps on latents, which take most of the time."""
    path = base / "brief.toml"
    base.mkdir(parents=True, exist_ok=True)
    path.write_text('extends = "portable"\nname = "brief"\n[inverter]\nsteps = 2\n')
    return path


def call(*given: object) -> Result:
    return CliRunner().invoke(main.cli, [str(word) for word in given], catch_exceptions=False)


@pytest.fixture(scope="module")
def made(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Context:
    """All caches and the shards, made without a disturbance."""
    base = tmp_path_factory.mktemp("made")
    for stage in STAGES:
        result = call(stage, *words(folder, base))
        assert result.exit_code == 0, result.output
    return Context(profile.load(brief(base)), cache=base / "cache", content=folder, style=folder, run=base / "run")


def keys(*names: str) -> list[str]:
    return sorted(key_of(name) for name in names)


def test_the_good_ones_are_in_every_cache_and_the_bad_ones_are_told(made: Context) -> None:
    for collection, kept in (("content", GOOD), ("style", (*GOOD, "nobody.jpg"))):
        for name in CACHES:
            assert list(reader.keys(made.file(collection, name))) == keys(*kept)
        lines = [json.loads(x) for x in (made.cache / collection / "rejects.jsonl").read_text().splitlines()]
        assert all(line["stage"] == "align" for line in lines)
        reasons = {line["key"]: line["reason"] for line in lines}
        assert sorted(reasons) == keys(*(name for name in BAD if name not in kept))
        assert all(reasons[key_of(name)].startswith(why) for name, why in BAD.items() if name not in kept)


def test_what_was_made_is_plausible(made: Context) -> None:
    for row in reader.read_rows(made.file("content", "images"), keys(*GOOD), ["image", "score", "path"]):
        assert images.decode(bytes(row["image"])).shape == (512, 512, 3)
        assert row["score"] > 0.5 and row["path"] in GOOD
    for row in reader.read_rows(made.file("content", "masks"), keys(*GOOD), ["region", "coverage"]):
        assert row["region"].max() <= 2 and row["coverage"].min() > 0.02 and abs(row["coverage"].sum() - 1) < 1e-5
    for row in reader.read_rows(made.file("content", "latents"), keys(*GOOD), ["latent", "lpips"]):
        assert np.isfinite(row["latent"]).all() and 0 < row["lpips"] < 1
    faceless = keys("nobody.jpg")
    assert (reader.read_rows(made.file("style", "masks"), faceless, ["region"])[0]["region"] == 255).all()
    assert not reader.read_rows(made.file("style", "aladin"), faceless, ["valid"])[0]["valid"].any()


def test_too_many_rejects_are_status_3(folder: Path, made: Context) -> None:
    common = words(folder, made.run.parent)
    assert call("align", "--max-rejects=0", *common).exit_code == 3
    assert call("align", "--max-rejects=4", *common).exit_code == 0
    assert call("latents", "--max-rejects=0", *common).exit_code == 0  # it rejected none


def test_killed_again_and_again_the_caches_are_the_same(folder: Path, made: Context, tmp_path: Path) -> None:
    common = words(folder, tmp_path)
    for renames in (3, 9, 14):
        command = [sys.executable, "-c", KILLING, str(renames), " ".join(STAGES), *common]
        # as many threads as here: how a sum is split among them moves its last bit
        env = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
        killed = subprocess.run(command, cwd=ROOT, env=env, capture_output=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-500:]
    for stage in STAGES:
        assert call(stage, *common).exit_code == 0
    assert listing(tmp_path / "cache") == listing(made.cache)
    for path in sorted(made.cache.rglob("*")):
        again = tmp_path / "cache" / path.relative_to(made.cache)
        if path.suffix == ".h5":
            assert contents(again) == contents(path)
        elif path.is_file() and path.name != ".lock":
            assert again.read_bytes() == path.read_bytes(), path


def listing(cache: Path) -> list[str]:
    return sorted(path.relative_to(cache).as_posix() for path in cache.rglob("*"))


def contents(path: Path) -> tuple:
    """Provenance, every row's digest and inputs, and the rows themselves."""
    with reader.Cache(path) as cache:
        rows = cache.rows(cache.keys(), list(cache.columns))
        return cache.provenance, cache.entries(), [{k: np.asarray(v).tobytes() for k, v in r.items()} for r in rows]


def test_one_picture_read_alone_gives_what_the_caches_hold_under_any_name(folder: Path, made: Context) -> None:
    read = PortraitReader(made)
    for collection in ("content", "style"):
        for cached in portrait.cached(made, collection):
            name = next(n for n in (*GOOD, "nobody.jpg") if key_of(n) == cached.key)
            alone = read((folder / name).read_bytes(), name, collection)
            fields = ("key", "image", "region", "codes", "valid", *["latent"] * (collection == "content"))
            for field in fields:
                assert np.array_equal(getattr(alone, field), getattr(cached, field)), (name, field)
            assert len(alone.latent) == (len(cached.latent) if collection == "content" else 0)
    data = (folder / GOOD[0]).read_bytes()
    renamed, alone = (read(data, name, "style") for name in ("another name.jpg", GOOD[0]))
    assert renamed.key != alone.key
    for field in ("image", "region", "latent", "codes", "valid"):
        assert np.array_equal(getattr(alone, field), getattr(renamed, field)), field


def test_a_step_of_training_then_a_stylised_picture(folder: Path, made: Context, tmp_path: Path) -> None:
    common = words(folder, made.run.parent)
    result = call("train", "--from-scratch", "--steps=1", *common)
    assert result.exit_code == 0, result.output
    options = [word for word in common if not word.startswith(("--content", "--style"))]
    pair = [f"--content={folder / GOOD[0]}", f"--style={folder / 'nobody.jpg'}"]
    result = call("stylize", *pair, "-o", tmp_path / "deep" / "out.png", "--strength=0.5", *options)
    assert result.exit_code == 0, result.output
    assert images.decode((tmp_path / "deep" / "out.png").read_bytes()).shape == (256, 256, 3)
    result = call("stylize", *pair, "-o", tmp_path / "refined.png", "--refine=2", *options)
    assert result.exit_code == 0, result.output
    refined, half = (images.decode((tmp_path / p).read_bytes()) for p in ("refined.png", "deep/out.png"))
    assert refined.shape == half.shape and not np.array_equal(refined, half)
    refused = call("stylize", f"--content={folder / 'nobody.jpg'}", pair[1], "-o", tmp_path / "out.png", *options)
    assert refused.exit_code == 1 and "nobody.jpg: no face found" in refused.stderr
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--style=b.jpg", "-o", "out.txt"], "out.txt: expected an image's name"),
        (["--hair=b.jpg", "-o", "out.png"], "no style for --face, --background"),
        (["--style=b.jpg", "-o", "out.png"], "a.jpg: is not a file"),
        (["--style=b.jpg", "-o", "out.png", "--refine=3", "--profile=tiny"], "refine is 3; refinement takes a profile"),
    ],
)
def test_wrong_use_of_stylize_is_told_in_one_line(given: list[str], message: str) -> None:
    result = call("stylize", "--content=a.jpg", "--device=cpu", *given)
    assert result.exit_code == 2 and message in result.stderr and result.stderr.count("\n") == 1
