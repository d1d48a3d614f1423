"""The identity loss: the published layout is taken in, the face's crop decides, gradients reach the image alone."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.backbones import irse
from models.metrics.identity import CROP, EMBEDDING_SIZE, Identity
from models.state_dicts import build
from pipeline import weights
from stages.weights_import import importer as imports

SMALL = ((16, 3), (16, 4), (16, 14), (16, 3))


def state(seed: int = 0) -> dict[str, Tensor]:
    """A small network's tensors, every one of them drawn."""
    rng = torch.Generator().manual_seed(seed)
    out = {}
    for name, t in Identity().state_dict().items():
        draw = torch.randn(t.shape, generator=rng) * (t[0].numel() ** -0.5 if t.ndim > 1 else 0.2)
        out[name] = t if not t.is_floating_point() else 1 + draw.abs() if "running_var" in name else draw
        if t.ndim == 1 and name.endswith("weight"):
            out[name] = out[name] + 1
    return out


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(irse, "UNITS", SMALL)


def faces(count: int, size: int = 256) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.usefixtures("small")
def test_distance_is_of_the_face_alone() -> None:
    net = Identity.load(state())
    x = faces(2)
    assert net.embed(x).shape == (2, EMBEDDING_SIZE)
    torch.testing.assert_close(net.embed(x).norm(dim=1), torch.ones(2))
    torch.testing.assert_close(net(x, x), torch.zeros(2), atol=1e-5, rtol=0)
    other = net(x, x.flip(0))
    assert bool((other > 1e-4).all()) and bool((other <= 2).all())
    torch.testing.assert_close(other[0], other[1])  # of the same pair
    beside = x.clone()
    beside[:, :, :35] = 0
    beside[:, :, 223:] = 0
    beside[..., :32] = 0
    beside[..., 220:] = 0
    assert torch.equal(net.embed(beside), net.embed(x))
    inside = x.clone()
    inside[:, :, CROP[0].start, CROP[1].start] += 1  # the first row and column that count
    assert not torch.equal(net.embed(inside), net.embed(x))


@pytest.mark.usefixtures("small")
def test_gradients_reach_the_first_picture_only() -> None:
    net = Identity.load(state())
    y, x = faces(1).requires_grad_(), faces(1).flip(-1).requires_grad_()
    net(y, x).sum().backward()
    assert y.grad is not None and bool(y.grad[:, :, CROP[0], CROP[1]].any()) and x.grad is None
    assert all(p.grad is None for p in net.parameters())
    assert torch.equal(net.train(False).embed(x.detach()), net.embed(x.detach()))  # no dropout, no batch statistics


@pytest.mark.usefixtures("small")
def test_other_sizes_are_seen_at_256() -> None:
    net = Identity.load(state())
    x = torch.nn.functional.interpolate(faces(1, 32), (64, 64), mode="bilinear")
    large = torch.nn.functional.interpolate(x, (256, 256), mode="bilinear")
    assert float(net(large, x)) < 1e-3


@pytest.mark.usefixtures("small")
def test_counters_may_be_missing_and_nothing_else() -> None:
    own = state()
    old = {name: t for name, t in own.items() if not name.endswith("num_batches_tracked")}
    x = faces(1)
    assert torch.equal(Identity.load(old).embed(x), Identity.load(own).embed(x))
    with pytest.raises(ValueError, match=r"not an ArcFace IR-SE50: 1 of \d+ tensors are missing \(body.3.res_layer"):
        Identity.load({name: t for name, t in own.items() if name != "body.3.res_layer.1.weight"})


def test_the_published_size() -> None:
    net = build(Identity)
    assert sum(p.numel() for p in net.parameters()) == 43_797_696
    assert net.state_dict()["output_layer.3.weight"].shape == (512, 512 * 49)


@pytest.mark.usefixtures("small")
def test_the_file_is_imported_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.save(state(), tmp_path / "model_ir_se50.pth")
    told = str(imports.import_file(tmp_path / "model_ir_se50.pth", ""))
    assert told.startswith("arcface-irse50: ArcFace IR-SE50 face recogniser")
    x = faces(1)
    assert torch.equal(Identity.load(weights.tensors("arcface-irse50")).embed(x), Identity.load(state()).embed(x))
