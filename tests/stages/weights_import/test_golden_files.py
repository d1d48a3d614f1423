"""The parity cases as the files their authors publish: recognised, checked, kept with every tensor and no other."""

from pathlib import Path

import pytest
import torch

from models.hypernetworks.hyperstyle import without_aliases
from pipeline import weights
from stages.weights_import import importer
from tests.support.goldens import Case
from tests.support.weights_import import own_cache, take

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
