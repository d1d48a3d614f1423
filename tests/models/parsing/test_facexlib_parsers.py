"""facexlib's networks through our loaders, against their references."""

import pytest
import torch

from models.faces import retinaface
from models.faces.retinaface import RetinaFace
from models.parsing.facexlib_parsers import BiSeNet, FacexlibParser, ParseNet
from tests.support.goldens import Case


@pytest.mark.parametrize(
    ("name", "kind", "outputs"),
    [
        ("bisenet19", BiSeNet, ("out", "out16", "out32")),
        ("parsenet", ParseNet, ("mask", "image")),
    ],
)
def test_segmenters_equal_the_published_ones(
    name: str, kind: type[BiSeNet | ParseNet], outputs: tuple[str, ...]
) -> None:
    case = Case(name)
    tensors = case.tensors()
    net = kind.load(tensors)
    with torch.inference_mode():
        for output, got in zip(outputs, net.network(torch.from_numpy(case.input("image"))), strict=True):
            case.check(output, got)
    extra = tensors | {"fc.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"1 tensors are unexpected \(fc\.weight\)"):
        kind.load(extra)
    with pytest.raises(ValueError, match="among 0 tensors"):
        kind.load({})
    last = next(name for name in tensors if name.startswith(("conv_out.conv_out", "out_mask_conv.conv2d")))
    with pytest.raises(ValueError, match=r"is \[\]; expected at least 1 dimensions"):
        kind.load(tensors | {last: torch.zeros(())})


def test_each_segmenter_normalises_its_own_way() -> None:
    grey = torch.full((1, 3, 8, 8), 0.2)
    net = torch.nn.Identity()
    assert torch.equal(ParseNet(net).prepare(grey), grey)
    x = BiSeNet(net).prepare(grey)[0, :, 0, 0]
    assert x.tolist() == pytest.approx([(0.6 - 0.485) / 0.229, (0.6 - 0.456) / 0.224, (0.6 - 0.406) / 0.225], rel=1e-5)

    class Echo(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
            assert x.shape[-1] == 512
            return (x,)

    assert FacexlibParser(Echo()).logits(grey, 16).shape == (1, 3, 16, 16)


def test_retinaface_equals_the_published_one() -> None:
    case = Case("retinaface_mnet025")
    tensors = {f"module.{name}": tensor for name, tensor in case.tensors().items()}
    net = RetinaFace(tensors)
    image = torch.from_numpy(case.input("image"))
    boxes, scores, points = net.raw(image)
    case.check("loc", boxes)
    case.check("conf", scores)
    case.check("landms", points)
    priors = retinaface.anchors(*image.shape[-2:])
    case.check("priors", priors)
    case.check("boxes", retinaface.decode_boxes(boxes, priors))
    case.check("points", retinaface.decode_points(points, priors))
    rgb = (image[0].permute(1, 2, 0) + 128).clamp(0, 255).to(torch.uint8).numpy()
    net.score = float(scores[..., 1].max()) * 0.9
    faces = net.detect(rgb)
    assert faces and faces == sorted(faces, key=lambda face: -face.score) and faces[0].points.shape == (5, 2)
    with pytest.raises(ValueError, match="not a RetinaFace on ResNet-50"):
        RetinaFace({})


@torch.inference_mode()
def test_retinaface_on_resnet_is_facexlibs_own() -> None:
    from facexlib.detection.retinaface import RetinaFace as Network

    torch.manual_seed(0)
    theirs = Network("resnet50", device=torch.device("cpu")).eval()
    for module in theirs.modules():  # as at the start every batch norm would do nothing
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    net = RetinaFace({f"module.{name}": tensor for name, tensor in theirs.state_dict().items()})
    assert net.network.state_dict().keys() == theirs.state_dict().keys()
    image = torch.randn(1, 3, 64, 96) * 50
    for found, wanted in zip(net.raw(image), theirs(image), strict=True):
        assert torch.equal(found, wanted) and found.std() > 0
    assert net.raw(image)[0].shape[1] == len(retinaface.anchors(64, 96))
