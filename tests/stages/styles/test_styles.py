"""Style search is exact and honest: brute force's answer in any region, on names, for a library and a cache at once."""

import dataclasses
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

import hypernst
from models.regions import REGIONS
from pipeline import images, profile, weights
from pipeline.caches.reader import Cache
from pipeline.caches.schema import Row
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.hashing import digest
from pipeline.runner.run import run_stage
from pipeline.runner.spec import Item, Reject, StageSpec
from stages.cli.main import cli
from stages.portraits.reader import PortraitReader
from stages.styles import blocks, duplicates, library
from stages.styles.blocks import Block, unit
from stages.styles.collection import Styles
from stages.styles.library import Library, Painting
from stages.styles.map import Map, by_neighbours
from tests.support import html_pages
from tests.support.caches import SPECS, fill

COUNT = 40


@pytest.fixture(scope="module")
def ctx(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """A cache of styles with random codes, many without one of the regions."""
    base = tmp_path_factory.mktemp("styles")
    ctx = Context(profile.load("tiny"), cache=base / "cache", style=base / "style")
    fill(ctx, "style", COUNT)

    def work(items: Sequence[Item]) -> list[Row | Reject]:
        rows: list[Row | Reject] = []
        for item in items:
            rng = np.random.default_rng([*item.key.encode()])
            row = {name: rng.normal(size=column.shape) for name, column in SPECS["aladin"].items()}
            rows.append(row | {"valid": rng.random(3) < 0.5})
        return rows

    columns, parents = SPECS["aladin"], {"images": ("image",)}
    codes = StageSpec(name="codes", output="aladin", columns=columns, open=lambda _: work, parents=parents)
    run_stage(codes, "style", ctx)
    return ctx


@pytest.fixture(autouse=True)
def paintings(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library of three paintings, whose codes are the profile's and of which the last is in the cache as well."""
    if "ctx" not in request.fixturenames:
        return
    ctx = request.getfixturevalue("ctx")
    told = [("Klimt, The Kiss", "kiss-1"), ("Klimt, Judith", "judith-2"), ("Wave", "wave-3")]
    content = ["one", "two", "7"]  # the cache's style0007 holds the last
    rows = [
        Painting(key, title, f"{key}.jpg", "", digest(text.encode()).hex())
        for (title, key), text in zip(told, content, strict=True)
    ]
    codes = np.random.default_rng(0).normal(size=(3, 4, 256)).astype(np.float16)
    valid = np.array([[True, True, True], [False, True, True], [True, True, True]])
    palettes = np.zeros((len(rows), 4, 4), np.float16)
    Library(library.recipe(ctx), rows, codes, palettes, valid).write(tmp_path / "painting-codes.safetensors")
    monkeypatch.setenv("HYPERNST_WEIGHTS", str(tmp_path))


def stored(ctx: Context, region: str) -> dict[str, np.ndarray]:
    """Every key's unit code of a region, of the rows that have it."""
    with Cache(ctx.file("style", "aladin")) as cache:
        rows = dict(zip(cache.keys(), cache.rows(cache.keys(), ["code", "valid", "image_code"]), strict=True))
    if region == "whole":
        return {key: row["image_code"] / np.linalg.norm(row["image_code"]) for key, row in rows.items()}
    i = REGIONS.index(region)
    return {key: row["code"][i] / np.linalg.norm(row["code"][i]) for key, row in rows.items() if row["valid"][i]}


@pytest.mark.parametrize("region", ["whole", "hair"])
def test_search_is_brute_force_in_blocks_of_any_size(
    ctx: Context, region: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = stored(ctx, region)
    assert len(codes) == COUNT if region == "whole" else 0 < len(codes) < COUNT
    key = min(codes)
    expected = sorted(set(codes) - {key}, key=lambda other: (-float(codes[other] @ codes[key]), other))
    monkeypatch.setattr(blocks, "ROWS", 7)
    for k in (1, 5, COUNT, 1000):
        one_file = Styles(ctx, ctx.file("style", "aladin"))
        found = one_file.search(one_file.code(key, region), region, k, without=key)
        assert [one.key for one in found] == expected[:k]
        assert [one.likeness for one in found] == pytest.approx([codes[o] @ codes[key] for o in expected[:k]], abs=1e-6)
    both = Styles(ctx, keep=True)
    again = [both.search(codes[key], region, 4) for _ in range(2)]
    assert again[0] == again[1] and again[0][0].key == key
    names = [one.key for one in both.search(codes[key], region, 1000)]
    assert "kiss-1" in names and ("judith-2" in names) == (region == "whole")
    assert "wave-3" not in names  # the cache has the same file


def test_equal_styles_come_by_key_and_names_choose(ctx: Context) -> None:
    same = Block(["d", "b", "c"], ["Klimt", "KLIMT, gold", "x"], unit(np.ones((3, 256))))
    late = Block(["a"], ["gold by Klimt"], same.codes[:1])
    found = blocks.nearest([same, late], np.ones((2, 256)), 3)
    assert [[one.key for one in each] for each in found] == [["a", "b", "c"]] * 2
    assert found[0][0].likeness == pytest.approx(1)
    assert [one.key for one in blocks.nearest([same, late], np.ones((1, 256)), 3, "klimt GOLD", ("a",))[0]] == ["b"]
    assert [one.key for one in Styles(ctx).search(text="klimt")] == ["kiss-1", "judith-2"]
    assert len(Styles(ctx).search(k=5)) == 5 and Styles(ctx).search(text="nothing of the kind") == []


def test_duplicates_are_copies_of_one_picture_and_outliers_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    codes = rng.normal(size=(50, 256)) * 0.3 + 1
    pictures = rng.integers(0, 200, (50, 8, 8, 3), np.uint8).repeat(32, 1).repeat(32, 2)
    for copy in (12, 31, 44):
        codes[copy] = codes[3] + 0.1 * rng.normal(size=256)
        pictures[copy] = pictures[3]
    crop = cv2.resize(pictures[3][30:240, 20:230], (256, 256), interpolation=cv2.INTER_AREA)
    pictures[12], pictures[31], pictures[44] = pictures[3][:, ::-1], crop, pictures[3] + np.uint8(55)
    codes[20], codes[45] = -codes[20], codes[3]  # the same style, another picture
    block = Block([f"{i:02}" for i in range(50)], ["t"] * 50, unit(codes))
    cosines = block.codes @ block.codes.T - 2 * np.eye(50)
    monkeypatch.setattr(duplicates, "ROWS", 7)
    encoded = {key: images.encode(picture) for key, picture in zip(block.keys, pictures, strict=True)}
    pairs, lone = duplicates.compare([block], 2, lambda keys: [encoded[key] for key in keys])
    same = ["03", "12", "31", "44"]
    assert {pair[:2] for pair in pairs} == set(itertools.combinations(same, 2))
    assert all(pair.likeness == pytest.approx(cosines[int(pair.first), int(pair.second)], abs=1e-5) for pair in pairs)
    assert lone[0].key == "20" and lone[0].likeness == pytest.approx(cosines[20].max(), abs=1e-6)
    assert lone[1].key == f"{np.argsort(cosines.max(1))[1]:02}"
    assert duplicates.compare([], 2, lambda keys: []) == ([], [])


def test_the_map_shows_the_directions_that_differ_most_whatever_the_order() -> None:
    rng = np.random.default_rng(2)
    codes = rng.normal(size=(60, 256)) * 0.01
    codes[:, 5] += np.linspace(-3, 3, 60)
    codes[:, 9] += np.sin(np.arange(60))
    codes[:, 7] += 5
    block = Block([str(i) for i in range(60)], [""] * 60, codes.astype(np.float32))
    places = Map([block]).place(block.codes)
    assert places.shape == (60, 2) and places.dtype == np.float32
    assert np.corrcoef(places[:, 0], codes[:, 5])[0, 1] > 0.999 and np.corrcoef(places[:, 1], codes[:, 9])[0, 1] > 0.99
    order = rng.permutation(60)
    pieces = [Block(block.keys, block.titles, block.codes[order][part]) for part in (slice(0, 13), slice(13, 60))]
    assert np.allclose(Map(pieces).place(block.codes), places, atol=1e-4)


def test_a_map_by_neighbours_keeps_likest_styles_together(
    ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn", reason="the extra `map` is not installed")
    rng = np.random.default_rng(4)
    groups = np.repeat([0, 1, 2], 20)
    codes = unit(rng.normal(size=(3, 256))[groups] + 0.3 * rng.normal(size=(60, 256)))
    places = by_neighbours(codes, 0)
    apart = np.linalg.norm(places[:, None] - places[None], axis=2) + 1e9 * np.eye(60)
    assert places.shape == (60, 2) and (groups[apart.argmin(1)] == groups).all()
    assert np.array_equal(by_neighbours(codes, 0), places)
    with pytest.raises(UserError, match="4 styles have too few neighbours for t-SNE; use --method pca"):
        by_neighbours(codes[:4], 0)
    words = ("styles", "map", "--method=tsne", "--in", str(ctx.file("style", "aladin")), "--profile=tiny")
    assert CliRunner().invoke(cli, [*words, "-o", str(tmp_path / "map.json")]).exit_code == 0
    assert len(json.loads((tmp_path / "map.json").read_text())) == COUNT
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    told = CliRunner().invoke(cli, [*words, "-o", str(tmp_path / "map.png")])
    assert told.exit_code == 2 and "pip install 'hypernst[map]', or use --method pca" in told.output


def test_codes_of_another_encoder_are_not_compared(ctx: Context, capsys: pytest.CaptureFixture) -> None:
    other = dataclasses.replace(ctx.profile, aladin=dataclasses.replace(ctx.profile.aladin, kind="vgg16"))
    query = np.ones(256, np.float32)
    with pytest.raises(UserError, match=r"holds codes of imagenet .* profile tiny has vgg16 .* run `hypernst aladin"):
        Styles(dataclasses.replace(ctx, profile=other)).search(query)
    seed = dataclasses.replace(ctx, profile=dataclasses.replace(ctx.profile, seed=9))
    assert all(one.key.startswith("style") for one in Styles(seed).search(query, k=100))
    assert "the paintings are left out" in capsys.readouterr().err
    assert Styles(seed).search(text="klimt")[0].key == "kiss-1"  # by name they are still there


def test_commands_tell_what_they_found(ctx: Context, tmp_path: Path) -> None:
    def run(*words: str) -> tuple[int, str]:
        told = CliRunner().invoke(cli, [*words, "--profile", "tiny", "--cache", str(ctx.cache), "--device", "cpu"])
        return told.exit_code, told.output

    file = str(ctx.file("style", "aladin"))
    page = tmp_path / "page.html"
    status, told = run("search", "--like", "style0003", "-k", "3", "--in", file, "--json", "--html", str(page))
    found = json.loads(told)
    assert status == 0 and len(found) == 3 and set(found[0]) == {"key", "title", "likeness"}
    assert found[0]["key"] in page.read_text() and page.read_text().count("data:image/jpeg") == 3
    assert html_pages.problems(page) == []
    assert run("search", "--text", "KISS") == (0, "kiss-1  Klimt, The Kiss\n")
    status, told = run("search", "--duplicates", "-k", "2", "--in", file)
    assert status == 0 and told.startswith("near duplicates:") and len(told.splitlines()) >= 5
    places = tmp_path / "map.json"
    assert run("styles", "map", "--in", file, "-o", str(places))[0] == 0
    assert {row["key"] for row in json.loads(places.read_text())} == {f"style{i:04}" for i in range(COUNT)}
    assert run("styles", "map", "--in", file, "-o", str(tmp_path / "map.png"))[0] == 0
    hairless = min({f"style{i:04}" for i in range(COUNT)} - set(stored(ctx, "hair")))
    for words, text in (
        (("search", "--like", "nobody"), "nobody: is neither a file nor the key of a style"),
        (("search", "--like", hairless, "--region", "hair"), f"{hairless}: has no hair"),
        (("search", "--in", str(tmp_path / "no.h5"), "--text", "x"), "no.h5: is missing"),
        (("search", "--duplicates", "--like", "x"), "--duplicates compares all styles"),
        (("styles", "map", "-o", str(tmp_path / "map.gif")), "expected a name that ends in .json or .png"),
        (("styles", "map"), "name a file that ends in"),
        (("styles", "codes", "--method", "tsne"), "--in, --method and --region are for the map"),
    ):
        status, told = run(*words)
        assert status == 2 and text in told, (words, told)


def test_the_facade_searches_by_picture_by_key_and_by_name(ctx: Context) -> None:
    studio = hypernst.load(ctx.profile, cache=ctx.cache, device="cpu")
    image = np.random.default_rng(3).integers(0, 256, (80, 80, 3), np.uint8)
    style = studio.read(image, style=True)
    found = studio.search(image, k=3)
    assert found == Styles(ctx).search(style.codes[3], k=3) and len(found) == 3
    assert studio.search("style0003", k=1)[0].key != "style0003"
    assert studio.search(text="wave klimt") == [] and studio.search(text="judith")[0].title == "Klimt, Judith"
    with pytest.raises(UserError, match="there is no region 'nose'"):
        studio.search(image, region="nose")
    with pytest.raises(UserError, match="has no hair"):
        studio.search(dataclasses.replace(style, valid=np.zeros(3, bool)), region="hair")


@pytest.mark.weights
def test_the_shipped_codes_are_those_that_the_shipped_networks_give() -> None:
    ctx = Context(profile.load("portable"))
    shipped = library.shipped()
    assert shipped.is_current(ctx), "run `hypernst styles codes`"
    assert shipped.codes.shape == (174, 4, 256) and shipped.codes.dtype == np.float16
    assert len({painting.key for painting in shipped.paintings}) == 174
    assert np.allclose(np.linalg.norm(shipped.codes.astype(np.float32), axis=2), 1, atol=2e-3)
    other = dataclasses.replace(ctx.profile, aladin=dataclasses.replace(ctx.profile.aladin, weights=""))
    assert not shipped.is_current(dataclasses.replace(ctx, profile=other))
    if weights.local(library.PICTURES) is None:
        pytest.skip("the paintings are not on this machine")
    reader = PortraitReader(ctx)
    for i in (0, 100):  # one without a face, one with
        painting, codes, palette, valid = library.embed(reader, shipped.paintings[i].file, shipped.paintings[i].title)
        assert np.array_equal(palette, shipped.palettes[i])
        assert painting == shipped.paintings[i] and (valid == shipped.valid[i]).all()
        assert np.allclose(codes.astype(np.float32), shipped.codes[i].astype(np.float32), atol=1e-3)
