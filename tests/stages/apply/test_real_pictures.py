"""Every ability once on a photograph and paintings, with the shipped weights: what a person sees has to follow."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import hypernst
from models.metrics.face_embedding import FaceEmbedding
from pipeline import images, weights
from stages.apply import recipe as recipes
from stages.apply import walk
from stages.apply.studio import Studio
from stages.cli import main
from stages.directions import scores
from stages.styles import library

pytestmark = pytest.mark.weights
PAINTINGS = {"light.jpg": "mada-primavesi", "dark.jpg": "self-portrait-1660"}  # Klimt's and Rembrandt's


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo, two paintings and a profile with few gradient steps on latents, which take most of the time."""
    place = tmp_path_factory.mktemp("real")
    (place / "me.png").write_bytes(weights.path("astronaut").read_bytes())
    for name, word in PAINTINGS.items():
        (place / name).write_bytes(painting(word).read())
    (place / "brief.toml").write_text('extends = "portable"\nname = "brief"\n[inverter]\nsteps = 3\n')
    return place


def painting(word: str) -> library.Painting:
    return next(one for one in library.shipped().paintings if word in one.key)


@pytest.fixture(scope="module")
def studio(folder: Path) -> Studio:
    torch.set_num_threads(1)
    return hypernst.load(folder / "brief.toml", cache=folder / "cache", run=folder / "run", device="cpu")


def lightness(image: object) -> float:
    return float(np.asarray(image).mean())


def test_styles_mixes_and_regions(studio: Studio, folder: Path) -> None:
    me, light, dark = (studio.read(folder / n, style=n != "me.png") for n in ("me.png", *PAINTINGS))
    own, bright, gloomy = (studio.stylize(me, s, t, refine=0) for s, t in ((light, 0), (light, 1), (dark, 1)))
    mixed = studio.stylize(me, [(light, 1), (dark, 1)], refine=0)
    assert lightness(gloomy) + 15 < lightness(bright) and lightness(gloomy) < lightness(mixed) < lightness(bright)
    part = studio.stylize(me, {"background": dark}, refine=0)
    changed = np.abs(np.asarray(part, int) - np.asarray(own, int)).mean(2)
    assert changed[me.region == 2].mean() > 4 * changed[me.region == 1].mean()


def test_edits_change_what_they_say_and_keep_the_person(studio: Studio, folder: Path) -> None:
    me, score, person = (
        studio.read(folder / "me.png"),
        scores.scorer(studio.ctx),
        FaceEmbedding(weights.path("face-embedding")),
    )
    own = studio.stylist().invert(me)
    before = score(own)
    for name in ("age", "smile", "pose"):
        edited = studio.edit(me, {name: 1.5}).image
        after = score(edited)
        assert before and after and after[name] > before[name], name
        assert float(person(own) @ person(edited)) > 0.5, name


def test_refined_large_and_on_the_way(studio: Studio, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "KEYS", 1)
    me, light = studio.read(folder / "me.png"), studio.read(folder / "light.jpg", style=True)
    plain, refined = (studio.stylize(me, light, refine=steps) for steps in (0, 3))
    frames = studio.interpolate(me, [light], 3, refine=3)
    gaps = [np.abs(np.asarray(a, int) - np.asarray(refined, int)).mean() for a in (*frames, plain)]
    assert gaps[0] > gaps[1] > gaps[2] and gaps[2] < 1 < gaps[3]
    large = studio.stylize(me, light, refine=0, size=1024)
    small = large.resize((256, 256), reducing_gap=3)
    assert large.size == (1024, 1024) and np.abs(np.asarray(small, int) - np.asarray(plain, int)).mean() < 8


def test_a_crop_finds_its_painting_in_every_region_that_it_has(studio: Studio) -> None:
    wanted = painting("self-portrait-1660")
    rgb = images.decode(wanted.read())
    crop = rgb[rgb.shape[0] // 20 :, rgb.shape[1] // 20 :]
    style = studio.read(np.ascontiguousarray(crop[:, ::-1]), style=True)  # mirrored as well
    for region in ("whole", "hair", "face", "background"):
        assert studio.search(style, region, 1)[0].key == wanted.key, region


def test_the_command_makes_the_same_and_tells_how(studio: Studio, folder: Path) -> None:
    common = [f"--profile={folder}/brief.toml", f"--cache={folder}/cache", f"--run={folder}/run", "--device=cpu"]
    words = [f"{folder}/me.png", f"--style={folder}/light.jpg", "--smile=1", "--refine=0", "-o", f"{folder}/out.png"]
    done = CliRunner().invoke(main.cli, ["stylize", *words, *common], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    expected = studio.stylize(folder / "me.png", folder / "light.jpg", refine=0, edits={"smile": 1})
    assert np.array_equal(images.decode((folder / "out.png").read_bytes()), expected)
    assert recipes.read(folder / "out.png").edits == {"smile": 1}


def test_a_batch_a_robust_mix_and_the_map_by_command(studio: Studio, folder: Path) -> None:
    common = [f"--profile={folder}/brief.toml", f"--cache={folder}/cache", "--device=cpu"]
    for name in ("faces", "art"):
        (folder / name).mkdir()
    (folder / "faces" / "me.png").write_bytes((folder / "me.png").read_bytes())
    for name in PAINTINGS:
        (folder / "art" / name).write_bytes((folder / name).read_bytes())
    flags = ["--refine=0", f"--run={folder}/run", *common]
    command = ["stylize", f"{folder}/faces", f"--style={folder}/art", "-o", f"{folder}/batch", *flags]
    assert CliRunner().invoke(main.cli, command, catch_exceptions=False).exit_code == 0
    for name in PAINTINGS:
        (file,) = (folder / "batch").glob(f"me-*--{Path(name).stem}.png")
        made = images.decode(file.read_bytes())
        assert np.array_equal(made, studio.stylize(folder / "me.png", folder / name, refine=0))
    assert images.decode((folder / "batch" / "sheet.png").read_bytes()).std() > 20

    styles = [folder / "dark.jpg", folder / "light.jpg", folder / "me.png"]
    words = [f"{folder}/me.png", *(f"--style={file}" for file in styles), "--mix=robust", "-o", f"{folder}/mix.png"]
    assert CliRunner().invoke(main.cli, ["stylize", *words, *flags], catch_exceptions=False).exit_code == 0
    robust, mean = (studio.stylize(folder / "me.png", styles, refine=0, mix=mix) for mix in ("robust", "mean"))
    assert np.array_equal(images.decode((folder / "mix.png").read_bytes()), robust)
    assert not np.array_equal(robust, mean)

    done = CliRunner().invoke(main.cli, ["styles", "map", "-o", f"{folder}/map.json", *common], catch_exceptions=False)
    assert done.exit_code == 0 and len(json.loads((folder / "map.json").read_text())) >= 174
    done = CliRunner().invoke(main.cli, ["search", "--duplicates", "--json", *common], catch_exceptions=False)
    assert done.exit_code == 0 and json.loads(done.stdout)["duplicates"] == []
