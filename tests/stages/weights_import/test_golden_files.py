"""The parity cases as the files their authors publish: recognised, checked, kept with every tensor and no other."""

from pathlib import Path

import pytest
import torch

from models.hypernetworks.hyperstyle import without_aliases
from pipeline import weights
from stages.weights_import import importer
from tests.support.goldens import Case
from tests.support.weights_import import own_cache, refused, take

CASES = [
    ("sg2_gen256", "stylegan2"),
    ("sg2_disc256", "stylegan2-discriminator"),
    ("hs_wencoder_1024", "w-encoder"),
    ("sae_dpatch32", "sae-patch"),
    ("sae_dpatch128", "sae-patch"),
    ("sae_imaged256", "sae-image"),
    ("aladin_vgg", "aladin-vgg"),
    ("aladin_vit", "aladin-vit"),
    ("bisenet19", "bisenet"),
    ("parsenet", "parsenet"),
    ("retinaface_mnet025", "retinaface-mobilenet"),
    ("gatys_loss", "vgg19"),
    ("sae_swap", "sae"),
    pytest.param("hs_gen256_deltas", "stylegan2", marks=pytest.mark.slow),
    pytest.param("e4e_1024", "e4e", marks=pytest.mark.slow),
    pytest.param("hs_hypernet1024_default17", "hyperstyle", marks=pytest.mark.slow),
]
UNUSED = ("enc_content.", "dec.")  # of ALADIN's whole autoencoder


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_case_is_imported_whole(name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_cache(tmp_path / "cache", monkeypatch)
    case = Case(name)
    torch.save(case.published(), tmp_path / "published.pt")
    done = take(tmp_path / "published.pt", tmp_path / "kept.safetensors", kind=kind)
    assert done.part.kind == kind
    kept = weights.tensors(done.name)
    own = {key: t for key, t in without_aliases(case.tensors()).items() if not key.startswith(UNUSED)}
    assert kept.keys() == own.keys() and all(torch.equal(kept[key], tensor) for key, tensor in own.items())
    assert "as it should be" in importer.verify(done.name)


def by_file(case: Case) -> dict[str, dict[str, torch.Tensor]]:
    """The tensors of a method that is published in several files, by the files' names."""
    names = case.case["checkpoint_layout"]["files"]
    out: dict[str, dict[str, torch.Tensor]] = {name: {} for name in names.values()}
    for key, tensor in case.tensors().items():
        tag, _, own = key.partition("/")
        out[names[tag]][own] = tensor
    return out


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sanet", {"decoder_iter_500000.pth": "sanet-decoder", "transformer_iter_500000.pth": "sanet-transformer"}),
        ("contraast", {"decoder_iter_160000.pth": "contraast-decoder"}),
        ("pama", {f"PAMA{i}.pth": f"pama-align{i}" for i in (1, 2, 3)}),
    ],
)
def test_files_of_one_method_are_told_apart_by_their_names(
    name: str, expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_cache(tmp_path / "cache", monkeypatch)
    for file, tensors in by_file(Case(name)).items():
        torch.save(tensors, tmp_path / file)
        if file in expected:
            assert take(tmp_path / file).name == expected[file]
            kept = weights.tensors(expected[file])
            assert kept.keys() == tensors.keys() and all(torch.equal(kept[k], t) for k, t in tensors.items())
            assert "as it should be" in importer.verify(expected[file])
    if name == "pama":
        told = refused(tmp_path / "decoder.pth")
        assert "is a decoder of VGG19 features; name what to keep it as" in told
        assert "one of sanet-decoder, contraast-decoder, pama-decoder" in told
        assert take(tmp_path / "decoder.pth", "pama-decoder").part.kind == "vgg19-decoder"
        told = refused(tmp_path / "PAMA1.pth", "sanet-transformer")
        assert "is an alignment module of PAMA; expected a style-attentional transformer" in told
        assert "is a normalised VGG19" in refused(tmp_path / "encoder.pth")


def test_artflows_variants_are_told_apart_by_their_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_cache(tmp_path / "cache", monkeypatch)
    published = {**Case("artflow_wct").published(), "iter": 160000, "optimizer": {"state": {0: {"step": 1}}}}
    for name in ("ArtFlow-WCT", "elsewhere"):
        (tmp_path / name).mkdir()
        torch.save(published, tmp_path / name / "glow.pth")
    done = take(tmp_path / "ArtFlow-WCT" / "glow.pth")
    assert done.name == "artflow-wct" and done.tensors == 288
    told = refused(tmp_path / "elsewhere" / "glow.pth")
    assert "is an ArtFlow flow; name what to keep it as" in told and "artflow-adain-portrait, artflow-adain" in told
