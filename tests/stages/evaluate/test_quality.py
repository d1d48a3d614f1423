"""The quality command: its figures, where it keeps its portraits, and that it measures the shipped weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from models.baselines.adain import AdaIN
from models.encoders.aladin import Aladin
from models.metrics import sifid
from pipeline import images, profile, weights
from pipeline.context import Context
from pipeline.errors import UserError
from stages.apply.look import Look
from stages.apply.refine import Refined
from stages.cli import main as cli
from stages.evaluate import methods, parsing, quality, retrieval
from stages.loaders import style_encoder
from stages.portraits.portrait import Portrait, Target
from tests.stages.evaluate.test_control import portrait

FOLDERS = ("content", "style", "seg", "nonportrait")
FIGURES = {
    "parser_miou", "aladin_top1", "aladin_top1_raw", "inverter_lpips_alex", "reconstruction_lpips_alex",
    "identity_inversion", "identity_reconstruction", "sifid64_unstylised", "sifid192_unstylised",
    *(f"{metric}_{method}" for metric in ("sifid64", "sifid192", "lpips_alex", "lpips_vgg", "identity")
      for method in ("hypernst", "adain", "refined", "refined_adain")), "seconds_refined",
    "control_hair", "control_face", "control_swap", "control_extent", "interpolation_sifid64",
    "interpolation_lpips_alex", "seconds_per_image",
}  # fmt: skip


class Painter:
    """Stands in for the stylist: a region has the colour of its code."""

    def __init__(self, ctx: Context) -> None:
        assert ctx.run == Path("runs/quality")  # where no training leaves a checkpoint

    def render(self, content: Portrait, target: Target) -> np.ndarray:
        return target.codes[:3, :3].astype(np.uint8)[content.region]

    def target(self, content: Portrait, style: Portrait, strength: float) -> Target:
        return Target(content.codes + strength * (style.codes - content.codes), None)

    def stylize(self, content: Portrait, style: Portrait, strength: float = 1.0) -> np.ndarray:
        return self.render(content, style.target)

    def invert(self, content: Portrait) -> np.ndarray:
        return content.image // 2


class Ruler:
    """Stands in for the metrics: mean colour for style, mean difference for content."""

    def __init__(self, ctx: Context) -> None:
        pass

    def summary(self, image: np.ndarray) -> dict[int, sifid.Gaussian]:
        return dict.fromkeys((64, 192), sifid.gaussian(torch.from_numpy(image[::16, ::16]).permute(2, 0, 1)))

    def lpips(self, a: np.ndarray, b: np.ndarray) -> float:
        return float(np.abs(a.astype(float) - b).mean())

    def features(self, image: np.ndarray) -> np.ndarray:
        return image

    def compare(self, image: np.ndarray, content: np.ndarray, style: dict[int, sifid.Gaussian]) -> dict[str, float]:
        apart = sifid.frechet(self.summary(image)[64], style[64])
        names = ("lpips_alex", "lpips_vgg")
        return {**dict.fromkeys(names, self.lpips(image, content)), "sifid_64": apart, "sifid_192": apart}


class Lazy:
    """Stands in for refinement: the content as it is."""

    def __init__(self, ctx: Context, stylist: Painter) -> None:
        pass

    def __call__(self, content: Portrait, look: Look, steps: int) -> Refined:
        assert steps == quality.REFINEMENT_STEPS
        return Refined(images.to_tensor(content.image), [], None)


class Passport:
    """Stands in for the face embedding: the cosine of two pictures is 1 if their mean colours agree, less if not."""

    def __init__(self, model: Path) -> None:
        assert model == Path("face-embedding")

    def __call__(self, image: np.ndarray) -> np.ndarray:
        code = image.mean((0, 1)) + 1
        return code / np.linalg.norm(code)

    def similarity(self, a: np.ndarray, b: np.ndarray) -> float:
        return float(self(a) @ self(b))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in FOLDERS:
        (tmp_path / name).mkdir()
    monkeypatch.setattr(weights, "tensors", lambda name: {})
    monkeypatch.setattr(quality.PortraitParser, "load", lambda tensors: torch.nn.Identity())
    monkeypatch.setattr(parsing, "measure", lambda *_: (0.9, 7))
    monkeypatch.setattr(retrieval, "retrieval", lambda *_: (0.5, 0.75))
    monkeypatch.setattr(style_encoder, "network", lambda ctx: Aladin())
    monkeypatch.setitem(methods.METHODS, "adain", methods.baseline("AdaIN", AdaIN))
    monkeypatch.setattr(quality, "Metrics", Ruler)
    monkeypatch.setattr(quality, "Stylist", Painter)
    monkeypatch.setattr(quality, "FaceEmbedding", Passport)
    monkeypatch.setattr(quality, "Refinement", Lazy)
    monkeypatch.setattr(weights, "path", Path)
    return tmp_path


def test_every_figure_is_printed_once_and_the_sheets_are_drawn(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    people, works = [portrait(s) for s in range(3)], [portrait(s) for s in range(10, 14)]
    monkeypatch.setattr(quality, "prepare", lambda *_: (people, works))
    drawn = {name: folder / "sheets" / f"{name}.png" for name in ("sheet", "control-sheet", "strip")}
    options = [word for name, path in drawn.items() for word in (f"--{name}", str(path))]
    done = CliRunner().invoke(cli.cli, ["quality", "--contents=2", "--styles=3", "--device=cpu", *options, str(folder)])
    assert done.exit_code == 0, done.output
    found = {line["figure"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert set(found) == FIGURES and len(done.stdout.splitlines()) == len(FIGURES)
    assert {found[f"sifid64_{n}"]["n"] for n in ("unstylised", "hypernst", "adain")} == {6}
    style, none, random = (found[f"sifid64_{n}"]["value"] for n in ("hypernst", "unstylised", "adain"))
    assert style == 0 < none != random  # the painter paints just the style's picture
    assert found["reconstruction_lpips_alex"] == {"figure": "reconstruction_lpips_alex", "value": 0, "n": 3}
    assert found["identity_reconstruction"]["value"] == 1 and found["identity_reconstruction"]["n"] == 3
    assert found["identity_hypernst"]["value"] < 1 and found["identity_hypernst"]["n"] == 6
    assert found["lpips_alex_refined"] == {"figure": "lpips_alex_refined", "value": 0, "n": 3}
    assert found["control_swap"]["value"] == 1 and found["interpolation_lpips_alex"]["value"] > 0.9
    assert all(path.stat().st_size > 1000 for path in drawn.values())


def test_its_portraits_go_through_the_stages_into_a_cache_of_their_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "sha256", lambda name: name)
    monkeypatch.setattr(weights, "names", lambda name: [])
    ran: list[tuple[str, str]] = []

    def run_stage(step: object, collection: str, ctx: Context) -> None:
        assert ctx.cache == folder / "cache" / "quality" and ctx.source(collection) == folder / collection
        ran.append((step.output, collection))  # type: ignore[attr-defined]

    monkeypatch.setattr(quality, "run_stage", run_stage)
    usable = {"content": [portrait(1)], "style": []}
    monkeypatch.setattr(quality, "cached", lambda ctx, collection: iter(usable[collection]))
    with pytest.raises(UserError, match="style: no usable image"):
        quality.prepare(Context(profile.load("portable"), cache=folder / "cache"), folder)
    caches = ("images", "latents", "parses", "masks", "aladin")
    assert sorted(ran) == sorted((cache, name) for cache in caches for name in ("content", "style"))


def test_wrong_use_is_told_before_anything_is_measured(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "measure", None)
    ctx = Context(profile.load("portable"))
    with pytest.raises(UserError, match=r"grid.txt: expected an image's name"):
        quality.run(ctx, portraits=folder, strip=folder / "grid.txt")
    for name, why in (("tiny", "untrained"), ("paper256", "'farl-lapa'")):
        with pytest.raises(UserError, match=f"profile {name}: the parser is {why}; quality measures a trained"):
            quality.run(Context(profile.load(name)), portraits=folder)
    (folder / "seg").rmdir()
    with pytest.raises(UserError, match="has no folder seg/"):
        quality.run(ctx, portraits=folder)
