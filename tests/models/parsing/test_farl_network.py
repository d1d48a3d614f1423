"""FaRL's network, rebuilt in plain torch, against the published one."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from models.parsing.farl_network import OUTPUT, TAPS, FaRL
from models.state_dicts import build
from tests.support.goldens import ROOT, Case

CASES = sorted(path.stem for path in ROOT.glob("farl_net_*.json")) or ["farl_net_lapa"]


@torch.inference_mode()
@pytest.mark.parametrize("name", CASES)
def test_the_network_equals_the_published_one(name: str) -> None:
    case = Case(name)
    given = case.case["reference"]["args"]
    net = FaRL.load(case.tensors(), tuple(given["out_size"]))
    assert net.classes == given["num_labels"] and not any(p.requires_grad for p in net.parameters())
    seen: dict[str, Tensor] = {}

    def keep(place: str, _: Any, __: Any, answer: Tensor) -> None:
        seen[place] = answer

    blocks, head = net.backbone.visual.transformer["resblocks"], net.head["head"]
    watched = {f"block{i}": blocks[i] for i in TAPS} | {f"fpn{i}": net.backbone.fpns[i] for i in (0, 1, 3)}
    watched |= {"psp": head.bottleneck, "fused": head.fpn_bottleneck, "head_logits": head}
    hooks = [module.register_forward_hook(partial(keep, place)) for place, module in watched.items()]
    case.check("logits", net(torch.from_numpy(case.input("image"))))
    for place, answer in seen.items():
        is_block = place.startswith("block")
        case.check(place, answer[:, 1:].transpose(1, 2).unflatten(2, (28, 28)) if is_block else answer)
    for hook in hooks:
        hook.remove()
    case.check("logits_other", net(torch.from_numpy(case.input("image_other"))))


def zeros(classes: int = 11) -> dict[str, Tensor]:
    """Tensors of the network's names, shapes and types that take no memory."""
    own = build(FaRL, classes).state_dict()
    return {name: torch.zeros((), dtype=t.dtype).expand(t.shape) for name, t in own.items()}


def test_the_names_and_sizes_are_the_published_ones() -> None:
    for classes, parameters, size in ((11, 161_582_603, 646_410_412), (19, 161_588_755, 646_435_020)):
        net = build(FaRL, classes)
        assert len(net.state_dict()) == 239
        assert sum(p.numel() for p in net.parameters()) == parameters
        assert sum(t.numel() * t.element_size() for t in net.state_dict().values()) == size
    assert FaRL.load(zeros(19)).classes == 19 and FaRL.load(zeros()).output == OUTPUT


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"head.head.conv_seg.weight": None}, "no head.head.conv_seg.weight among 238 tensors"),
        ({"backbone.visual.proj": None}, r"1 of 239 tensors are missing \(backbone.visual.proj\)"),
        ({"backbone.extra": torch.zeros(1)}, r"1 tensors are unexpected \(backbone.extra\)"),
        ({"backbone.visual.positional_embedding": torch.zeros(197, 768)}, r"is \[197, 768\] instead of \[785, 768\]"),
        ({"backbone.visual.ln_pre.bias": torch.zeros(768).half()}, "ln_pre.bias is float16 instead of float32"),
        ({"backbone.fpns.0.1.num_batches_tracked": torch.zeros(())}, "tracked is float32 instead of int64"),
    ],
)
def test_tensors_that_do_not_fit_are_named(change: dict[str, Tensor | None], told: str) -> None:
    with pytest.raises(ValueError, match=f"not a FaRL face parser: .*{told}"):
        FaRL.load({name: t for name, t in (zeros() | change).items() if t is not None})
