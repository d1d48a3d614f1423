"""Masks: each kind of face parser through its stage, grouped by name, its raw labels kept."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from models.faces.retinaface import RetinaFace
from models.parsing.facexlib_parsers import BiSeNet, ParseNet
from models.parsing.labels import LABELS, grouping
from pipeline import images, profile
from pipeline.caches import reader
from pipeline.caches.schema import Column
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.profile import Parser
from pipeline.runner.run import run_stage
from pipeline.runner.spec import Item, StageSpec
from pipeline.sources.keys import key_of
from stages.loaders import face_parser
from stages.preprocess import chain, masks
from stages.tools import explain
from tests.support.goldens import Case


def use_bands(monkeypatch: pytest.MonkeyPatch, path: Path, classes: int) -> str:
    """A stand-in for FaRL's network: label i is sure of itself in the i-th horizontal band."""
    rows = torch.arange(448) * classes // 448
    bands = (rows[None] == torch.arange(classes)[:, None]).float()[None, :, :, None]
    monkeypatch.setattr(face_parser, "farl_network", lambda ctx: lambda x: bands.expand(len(x), -1, -1, 448))
    save_file({"bands": bands}, path)
    return str(path)


def context(base: Path, parser: Parser) -> Context:
    tiny = dataclasses.replace(profile.load("tiny"), parser=parser)
    return Context(tiny, cache=base / "cache", content=base / "content", style=base / "style")


def fill_images(ctx: Context) -> None:
    """Both collections' image caches: two pictures with a face and one without."""

    def worker(items: Sequence[Item]) -> list:
        rng = np.random.default_rng(0)
        noise = [rng.integers(0, 256, (8, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1) for _ in items]
        return [
            {"image": images.encode(x), "score": float(item.path != "no.png")}
            for item, x in zip(items, noise, strict=True)
        ]

    for name in ("content", "style"):
        ctx.source(name).mkdir(parents=True)
        for key in ("a", "b", "no"):
            (ctx.source(name) / f"{key}.png").write_text(key)
        run_stage(
            StageSpec(
                name="align",
                output="images",
                columns={"image": Column("bytes"), "score": Column("f4")},
                open=lambda ctx: worker,
            ),
            name,
            ctx,
        )


def rows(ctx: Context) -> dict[str, dict]:
    path = ctx.file("content", "masks")
    keys = [key_of(f"{name}.png") for name in ("a", "b", "no")]
    found = reader.read_rows(path, keys, ["region", "parse", "coverage"])
    return dict(zip(("a", "b", "no"), found, strict=True))


FACE = ("face", "rb", "lb", "re", "le", "nose", "ulip", "imouth", "llip")


SKIN = ("skin", "l_brow", "r_brow", "l_eye", "r_eye", "eye_g", "l_ear", "r_ear", "nose", "mouth", "u_lip", "l_lip")


def bands(size: int, classes: int) -> np.ndarray:
    """The label map that `Bands` stands for."""
    return (np.arange(size) * classes // size).astype(np.uint8)[:, None].repeat(size, 1)


@pytest.mark.parametrize(
    ("kind", "face"),
    [("farl-lapa", FACE), ("farl-celebm", (*FACE, "rr", "lr", "eyeg")), ("bisenet", SKIN), ("parsenet", SKIN)],
)
def test_another_grouping_does_not_run_the_network_again(
    kind: str, face: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = use_bands(monkeypatch, tmp_path / "farl.safetensors", len(LABELS[kind]))
    if not kind.startswith("farl"):  # facexlib's networks at 512 px have a test of their own
        monkeypatch.setitem(face_parser.KINDS, kind, lambda ctx: lambda data: bands(256, len(LABELS[kind])))
    ctx, calls = context(tmp_path, Parser(kind, network, ("hair",), face)), []
    fill_images(ctx)
    real = face_parser.open_parser

    def counted(ctx: Context) -> face_parser.FaceParser:
        label = real(ctx)
        return lambda data: (calls.append(data), label(data))[1]  # type: ignore[func-returns-value]

    monkeypatch.setattr(face_parser, "open_parser", counted)
    assert masks.run(ctx) == 0
    first = rows(ctx)
    assert len(calls) == 6  # three pictures of two collections
    assert chain._up_to_date("masks", ctx)
    labels = LABELS[kind]
    expected = np.array([0 if label == "hair" else 1 if label in face else 2 for label in labels])
    assert len(np.unique(first["a"]["parse"])) > len(labels) // 2
    for key in ("a", "b"):
        assert (first[key]["region"] == expected[first[key]["parse"]]).all()
        assert first[key]["coverage"].sum() == pytest.approx(1)
    assert (first["no"]["region"] == 255).all() and first["no"]["coverage"].sum() == 0

    bald = dataclasses.replace(ctx.profile.parser, hair=(), face=("nose",))
    other = dataclasses.replace(ctx, profile=dataclasses.replace(ctx.profile, parser=bald))
    told = explain.report(explain.explain("masks", other))
    assert "parse content: 3 inputs, 3 cached, 0 rejected; nothing to compute" in told
    assert "params.hair" in told and "masks content: 3 inputs, 0 cached" in told
    assert not chain._up_to_date("masks", other)
    assert masks.run(other) == 0
    second = rows(other)
    assert len(calls) == 6
    assert (second["a"]["parse"] == first["a"]["parse"]).all()
    assert ((second["a"]["region"] == 1) == (second["a"]["parse"] == labels.index("nose"))).all()
    assert not (second["a"]["region"] == 0).any()


def test_one_picture_labelled_alone_has_the_same_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = use_bands(monkeypatch, tmp_path / "farl.safetensors", 11)
    ctx = context(tmp_path, Parser("farl-lapa", path, ("hair",), ()))
    label = face_parser.open_parser(ctx)
    data = images.encode(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    assert all((label(data) == label(data)).all() for _ in range(3))


def test_facexlib_kinds_run_from_their_weights(tmp_path: Path) -> None:
    tensors = Case("bisenet19").tensors()
    save_file(tensors, tmp_path / "bisenet.safetensors")
    ctx = context(tmp_path, Parser("bisenet", str(tmp_path / "bisenet.safetensors"), ("hair",), ("skin",)))
    rgb = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8).repeat(64, 0).repeat(64, 1)
    found = face_parser.open_parser(ctx)(images.encode(rgb))
    logits = BiSeNet.load(tensors).logits(images.to_tensor(rgb), 256)
    assert found.shape == (256, 256) and (found == logits[0].argmax(0).numpy()).all()
    wrong = dataclasses.replace(ctx.profile.parser, kind="parsenet")
    with pytest.raises(UserError, match=r"not a ParseNet.*parser\.kind 'parsenet'"):
        face_parser.open_parser(dataclasses.replace(ctx, profile=dataclasses.replace(ctx.profile, parser=wrong)))


def test_without_facexlib_one_line_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "facexlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "facexlib", None)  # as Python notes that there is none
    save_file(Case("bisenet19").tensors(), tmp_path / "bisenet.safetensors")
    ctx = context(tmp_path, Parser("bisenet", str(tmp_path / "bisenet.safetensors"), ("hair",), ("skin",)))
    with pytest.raises(UserError, match=r"^weights \S+bisenet.*pip install 'hypernst\[facexlib\]'.*$"):
        face_parser.open_parser(ctx)
    for network in (ParseNet.load, RetinaFace):
        with pytest.raises(ValueError, match=r"^its network is that of facexlib.*make setup.*$"):
            network({})


def test_labels_that_cannot_be_grouped_are_told_first(tmp_path: Path) -> None:
    assert grouping(LABELS["parsenet"], ["hair"], ["skin"]).tolist().index(0) == LABELS["parsenet"].index("hair")
    for parser, why in (
        (Parser("farl-lapa", "", ("haar",), ()), "'haar' is not one of its labels: background, face"),
        (Parser("bisenet", "", ("hair",), ("hair", "skin")), "hair cannot be both"),
        (Parser("farl", "", (), ()), "expected one of portrait, farl-lapa"),
    ):
        with pytest.raises(UserError, match=why) as caught:
            masks.spec(context(tmp_path, parser))
        assert caught.value.status == 2


def test_what_is_no_network_of_farls_is_told_before_it_runs(tmp_path: Path) -> None:
    for file, why in (
        ("mine.pt", "a TorchScript file is never run; run `hypernst weights import"),
        ("cut.safetensors", "is not a readable safetensors file"),
    ):
        (tmp_path / file).write_bytes(b"PK")
        with pytest.raises(UserError, match=why):
            face_parser.open_parser(context(tmp_path, Parser("farl-lapa", str(tmp_path / file), ("hair",), ())))
    path = tmp_path / "other.safetensors"
    save_file({"head.head.conv_seg.weight": torch.zeros(11, 768, 1, 1)}, path)
    with pytest.raises(
        UserError, match=r"not a FaRL face parser: 238 of 239 tensors are missing.*parser.kind 'farl-lapa'"
    ):
        face_parser.open_parser(context(tmp_path, Parser("farl-lapa", str(path), ("hair",), ())))
    save_file({"x": torch.zeros(1)}, path, {"about": '{"facts": {"output": [512, 1e9]}}'})
    with pytest.raises(UserError, match="not a FaRL face parser"):
        face_parser.open_parser(context(tmp_path, Parser("farl-lapa", str(path), ("hair",), ())))
