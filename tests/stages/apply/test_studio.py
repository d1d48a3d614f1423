"""The facade on untrained networks at 32 px: what it takes, that what it keeps changes no byte, how it says no."""

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import hypernst
from models.regions import REGIONS
from pipeline import images, profile
from pipeline.profile import Profile
from pipeline.training import checkpoint
from stages.apply.studio import Studio
from stages.loaders import generator as generators
from stages.loaders import hypernetwork as hypernetworks
from stages.portraits.portrait import Portrait

pytestmark = pytest.mark.weights  # LPIPS measures the inversion, VGG16 refines


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8).repeat(16, 0).repeat(16, 1)


@pytest.fixture(params=["paper", "by region"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Profile:
    """Two refinement iterations with deltas that act everywhere, or one forward pass with deltas by region."""
    torch.set_num_threads(1)
    tiny = profile.load("tiny")
    if request.param == "by region":
        train = dataclasses.replace(tiny.train, refinement_iterations=1, region_deltas=True)
        tiny = dataclasses.replace(tiny, train=train)
    return ready(tiny, tmp_path)


def ready(made: Profile, folder: Path) -> Profile:
    """Put four pictures and a run's checkpoint into a folder; of a network whose heads are not silent."""
    for i, name in enumerate(("me", "a", "b", "c")):
        (folder / f"{name}.png").write_bytes(images.encode(picture(i)))
    ctx = dataclasses.replace(hypernst.load(made, cache=None).ctx)
    net = hypernetworks.new_hypernetwork(ctx, generators.generator(ctx).layer_table())
    torch.manual_seed(0)
    for head in net.heads:
        torch.nn.init.normal_(head.out.weight, 0, 0.3)
    checkpoint.save(folder / "run" / "checkpoint.safetensors", {f"ema.{n}": t for n, t in net.state_dict().items()}, {})
    return made


def load(made: Profile, folder: Path, **options: object) -> Studio:
    return hypernst.load(made, cache=folder / "cache", run=folder / "run", device="cpu", **options)  # type: ignore[arg-type]


def with_regions(portrait: Portrait) -> Portrait:
    """The portrait with hair above, a face, and background below; each region with a code of its own."""
    region = np.repeat(np.array([0, 1, 2], np.uint8), (85, 85, 86))[:, None].repeat(256, 1)
    codes = portrait.codes[[1, 2, 0, 3]] + np.linspace(-0.05, 0.05, 256, dtype=np.float32) * np.arange(4)[:, None]
    codes = (codes / np.linalg.norm(codes, axis=1, keepdims=True)).astype(np.float32)
    return dataclasses.replace(portrait, region=region, codes=codes, valid=np.ones(3, bool))


def test_what_is_kept_changes_no_byte_and_is_not_computed_again(small: Profile, tmp_path: Path) -> None:
    told: list[str] = []
    warm = load(small, tmp_path, progress=lambda what, done, of: told.append(what))
    me = str(tmp_path / "me.png")
    first = [warm.stylize(me, tmp_path / f"{name}.png", refine=0) for name in "aba"]
    assert told[0] == "me.png: align" and "me.png: latents" in told and "a.png: latents" not in told
    assert len([what for what in told if what == "me.png: latents"]) == 1
    assert np.array_equal(first[0], first[2]) and not np.array_equal(first[0], first[1])
    nothing_kept = hypernst.load(small, cache=None, run=tmp_path / "run", device="cpu", memory=0)
    from_rows = load(small, tmp_path)
    for studio in (nothing_kept, from_rows):
        assert np.array_equal(studio.stylize(me, tmp_path / "b.png", refine=0), first[1])
    assert from_rows._readers[None, False].workers == {} and first[0].size == (32, 32)
    assert not warm.memory.held > warm.memory.limit and nothing_kept.memory.held == 0


def test_a_picture_is_the_same_from_a_file_from_pil_and_as_an_array(small: Profile, tmp_path: Path) -> None:
    studio = load(small, tmp_path)
    me, a = picture(0), picture(1)
    expected = studio.stylize(tmp_path / "me.png", tmp_path / "a.png", refine=0)
    assert expected.mode == "RGB"
    for made in (
        Image.fromarray,
        lambda x: x,
        lambda x: studio.read(Image.fromarray(x)),
        lambda x: Image.fromarray(x).convert("CMYK").convert("RGB"),
    ):
        assert np.array_equal(studio.stylize(made(me), made(a), refine=0), expected)


def unit_rows(codes: np.ndarray) -> np.ndarray:
    return codes / np.linalg.norm(codes, axis=1, keepdims=True)


def test_styles_by_region_and_mixed(tmp_path: Path) -> None:
    made = ready(profile.load("tiny"), tmp_path)
    studio = load(made, tmp_path)
    me, a, b = (with_regions(studio.read(tmp_path / f"{name}.png")) for name in ("me", "a", "b"))
    by_region = studio.look({"hair": a, "face": [(a, 1), (b, 3)]}, {"hair": 0.5}).codes(me)
    unit = lambda x: x / np.linalg.norm(x)  # noqa: E731
    assert np.allclose(by_region[0], unit(0.5 * (me.codes[0] + a.codes[0])), atol=1e-6)
    assert np.allclose(by_region[1], unit(unit(0.25 * a.codes[1] + 0.75 * b.codes[1])), atol=1e-6)
    assert np.allclose(by_region[2:], me.codes[2:], atol=1e-6)  # what has no style stays as it is
    both = studio.look([a, b]).codes(me)
    assert np.allclose(both, [unit(x) for x in a.codes + b.codes], atol=1e-6)
    near = [dataclasses.replace(a, codes=unit_rows(a.codes + 0.0003 * i)) for i in range(4)]
    usual, robust = (studio.look([*near, b], mix=mix).codes(me) for mix in ("mean", "robust"))
    inliers = studio.look(near).codes(me)
    assert (np.linalg.norm(robust - inliers, axis=1) < 0.5 * np.linalg.norm(usual - inliers, axis=1)).all()
    assert studio.look([(a, 1), (a, 2), (b, 1)], mix="robust").codes(me) == pytest.approx(a.codes, abs=2e-3)
    assert studio.look([a, b]).uniform and not studio.look({"hair": a, "face": b}).uniform
    assert np.array_equal(studio.look(a).codes(me), studio.look(dict.fromkeys(REGIONS, a)).codes(me))


WRONG: list[tuple[object, dict[str, object], str]] = [
    ("nowhere.png", {}, "nowhere.png: is not a file"),
    (np.zeros((4, 4)), {}, "an array float64 [4, 4]; expected uint8"),
    (7, {}, "a int; expected a path"),
    ([], {}, "an empty list of styles"),
    ({}, {}, "no style"),
    ({"ears": "a.png"}, {}, "there is no region 'ears'; expected hair, face, background"),
    ([("a.png", 0)], {}, "a style's weight is 0; expected a number above 0"),
    ([("a.png", float("nan"))], {}, "a style's weight is nan"),
    ("a.png", {"strength": 1.5}, "strength is 1.5; expected 0"),
    ("a.png", {"strength": float("nan")}, "strength is nan"),
    ("a.png", {"strength": {"chin": 1}}, "there is no region 'chin'"),
    ("a.png", {"refine": 3}, "refine is 3; refinement takes a profile with train.refinement_iterations = 1"),
    ("a.png", {"refine": -1}, "refine is -1; expected a number of steps"),
    ("a.png", {"refine": 1001}, "refine is 1001; expected a number of steps from 0 to 1000"),
    (["a.png", "b.png"], {"mix": "robust"}, "a robust mix of 2 styles; expected three or more"),
    ("a.png", {"mix": "median"}, "mix is 'median'; expected mean or robust"),
    ([picture(i) for i in range(9)], {}, "9 styles; expected at most 8"),
]


def test_wrong_use_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studio = load(ready(profile.load("tiny"), tmp_path), tmp_path)
    monkeypatch.chdir(tmp_path)
    for style, options, told in WRONG:
        with pytest.raises(hypernst.UserError) as caught:
            studio.stylize("me.png", style, **options)  # type: ignore[arg-type]
        assert told in str(caught.value) and "\n" not in str(caught.value)


def test_wrong_use_of_other_methods_is_told_in_one_line() -> None:
    studio, image = hypernst.load("tiny", cache=None, device="cpu"), picture(0)
    wrong: list[tuple[Callable[..., object], dict[str, object], str]] = [
        *((studio.search, {"k": k}, f"k is {k!r}; expected a number of styles") for k in (0, 1.5, "x", None, True)),
        (studio.search, {"text": 5}, "text is 5; expected words"),
        (studio.edit, {"portrait": image, "edits": "age"}, "edits are 'age'; expected steps by name"),
        *((studio.read, {"image": image, "face": n}, f"face is {n!r}; expected a number") for n in (0, 1.5, "x", True)),
        (studio.interpolate, {"portrait": image, "styles": "a.png"}, "no style to walk to"),
        *((hypernst.load, {"profile": p}, f"profile is {p!r}; expected a name") for p in (3, None)),
        (hypernst.load, {"device": None}, "--device None: no such device"),
        *((hypernst.load, {"memory": m}, f"memory is {m!r}; expected a number of bytes") for m in (-1, "x")),
    ]
    for method, options, told in wrong:
        with pytest.raises(hypernst.UserError) as caught:
            method(**options)
        assert told in str(caught.value) and "\n" not in str(caught.value) and caught.value.status == 2


def test_a_style_is_no_portrait(tmp_path: Path) -> None:
    studio = load(ready(profile.load("tiny"), tmp_path), tmp_path)
    with pytest.raises(hypernst.UserError, match="was read as a style"):
        studio.stylize(studio.read(tmp_path / "a.png", style=True), tmp_path / "b.png")


def test_threads_take_turns_and_steps_can_be_ended(tmp_path: Path) -> None:
    tiny = profile.load("tiny")
    train = dataclasses.replace(tiny.train, refinement_iterations=1, region_deltas=True)
    made = ready(dataclasses.replace(tiny, train=train), tmp_path)
    studio = load(made, tmp_path)
    found: dict[int, np.ndarray] = {}

    def work(i: int) -> None:
        found[i] = np.asarray(studio.stylize(tmp_path / "me.png", tmp_path / f"{'ab'[i % 2]}.png", refine=i // 2))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = load(made, tmp_path, memory=0)
    for i, image in found.items():
        work(i)
        again = alone.stylize(tmp_path / "me.png", tmp_path / f"{'ab'[i % 2]}.png", refine=i // 2)
        assert np.array_equal(image, again) and np.array_equal(found[i], again)
    seen: list[int] = []
    ended = studio.stylize(
        tmp_path / "me.png", tmp_path / "a.png", refine=9, on_step=lambda step, image: seen.append(step) or step == 1
    )
    assert seen == [0, 1] and np.array_equal(ended, studio.stylize(tmp_path / "me.png", tmp_path / "a.png", refine=1))
