"""e4e, the W-encoder and HyperStyle's hypernetwork: the references' numbers, every size, files that do not fit."""

import numpy as np
import pytest
import torch
from torch import nn

from models.encoders import e4e
from models.encoders.e4e import PSP, Encoder4Editing, WEncoder
from models.generators.stylegan2 import layer_table
from models.hypernetworks.hyperstyle import HyperStyle
from models.state_dicts import build
from tests.support.goldens import Case


@pytest.mark.slow
@torch.inference_mode()
def test_e4e_equals_the_reference() -> None:
    case = Case("e4e_1024")
    net = e4e.load(case.tensors())
    assert isinstance(net, Encoder4Editing) and net.num_ws == 18
    codes = net.codes(torch.from_numpy(case.input("image")))
    case.check("codes", codes)
    assert net.latent_avg is not None
    case.check("codes_plus_avg", codes + net.latent_avg)


@torch.inference_mode()
def test_the_w_encoder_equals_the_reference() -> None:
    case = Case("hs_wencoder_1024")
    net = e4e.load(case.tensors())
    assert isinstance(net, WEncoder)
    image = torch.from_numpy(case.input("image"))
    case.check("codes", net.codes(image))
    case.check("codes_plus_avg", net(image))


@pytest.mark.slow
@torch.inference_mode()
def test_hyperstyle_equals_the_reference() -> None:
    case = Case("hs_hypernet1024_default17")
    tensors = case.tensors()
    net = HyperStyle.load(tensors, layer_table(1024))
    assert sum(p.numel() for p in net.parameters()) == 332_664_896
    assert HyperStyle.load(tensors).table == net.table
    found = net(torch.from_numpy(case.input("x")))
    for row, delta in zip(case.case["layers"], found, strict=True):
        assert (delta is None) == (row["kind"] == "none")
        if delta is not None:
            case.check(f"delta.{row['index']}", delta)


@pytest.mark.parametrize(("size", "count"), [(256, 342.3e6), (1024, 369.2e6)])
def test_hyperstyle_of_all_layers_has_the_published_size(size: int, count: float) -> None:
    table = layer_table(size)
    net = build(HyperStyle, table, range(len(table)))
    assert sum(p.numel() for p in net.parameters()) == pytest.approx(count, abs=1e5)
    heads = [sum(p.numel() for p in block.parameters()) / 1e6 for block in net.refinement_blocks.values()]
    shown = [1.886, 4.33, 1.886, 1.886, 4.33] + [1.886, 1.886, 4.33] * 3
    shown += [70.19, 36.57, 3.93, 19.76, 11.36, 3.74, 7.15, 5.05, 3.64, 4.00, 3.48, 3.59]
    assert heads == pytest.approx(shown[: len(table)], abs=0.006)


@pytest.mark.parametrize(("styles", "count"), [(14, 209.5e6), (18, 267.1e6)])
def test_e4e_has_the_published_size(styles: int, count: float) -> None:
    assert sum(p.numel() for p in build(Encoder4Editing, styles).parameters()) == pytest.approx(count, abs=1e5)


def zeros(net: nn.Module) -> dict[str, torch.Tensor]:
    """The layout of a module on the meta device; its tensors share one element, so that size costs nothing."""
    return {name: torch.zeros((), dtype=t.dtype).expand(t.shape) for name, t in net.state_dict().items()}


@torch.inference_mode()
def test_psp_gives_what_e4e_adds_up() -> None:
    torch.manual_seed(0)
    psp, image = PSP(4).eval(), torch.rand(1, 3, 256, 256) * 2 - 1
    state = psp.state_dict() | {"latent_avg": torch.randn(4, 512)}
    assert type(e4e.load(state)) is Encoder4Editing
    ours, theirs = e4e.load(state, "psp"), e4e.load(state)
    assert type(ours) is PSP and torch.equal(ours(image), psp.codes(image) + state["latent_avg"])
    first, *rest = ours.codes(image).unbind(1)
    torch.testing.assert_close(theirs.codes(image), torch.stack([first, *(first + other for other in rest)], 1))
    with pytest.raises(ValueError, match="not a pSp encoder: 0 styles"):
        e4e.load({}, "psp")


def test_sizes_are_inferred_and_what_does_not_fit_is_named() -> None:
    state = zeros(build(Encoder4Editing, 14))
    assert Encoder4Editing.load(state | {"latent_avg": torch.zeros(512)}).num_ws == 14
    with pytest.raises(ValueError, match="no latent_avg"):
        Encoder4Editing.load(state)(torch.zeros(1, 3, 256, 256))
    with pytest.raises(ValueError, match=r"e4e encoder of 14 styles: latent_avg is \[18, 512\]"):
        Encoder4Editing.load(state | {"latent_avg": torch.zeros(18, 512)})
    with pytest.raises(ValueError, match=r"not an e4e encoder: 13 styles"):
        Encoder4Editing.load({name: t for name, t in state.items() if not name.startswith("styles.13.")})
    with pytest.raises(ValueError, match=r"1 of \d+ tensors are missing \(styles.7.linear.bias\)"):
        Encoder4Editing.load({name: t for name, t in state.items() if name != "styles.7.linear.bias"})
    with pytest.raises(ValueError, match=r"unexpected \(decoder"):
        Encoder4Editing.load(state | {"decoder.input.input": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"reads images \[N, 3, 256, 256\], got \[1, 3, 128, 128\]"):
        WEncoder.load(zeros(build(WEncoder, 14)), styles=14).codes(torch.zeros(1, 3, 128, 128))


def test_hyperstyle_reads_any_generators_list() -> None:
    for size, multiplier in ((256, 2), (256, 1), (512, 2)):
        table = layer_table(size, multiplier)
        net = build(HyperStyle, table, range(len(table)))
        state = zeros(net)
        assert HyperStyle.load(state, table).state_dict().keys() == state.keys()
        assert HyperStyle.load(state).table == table
    shared = {name.removeprefix("shared_weight_hypernet."): t for name, t in state.items() if name.startswith("shared")}
    aliases = {f"refinement_blocks.{i}.hypernet.{name}": t for i in (0, 2, 12) for name, t in shared.items()}
    assert HyperStyle.load(state | aliases, table).state_dict().keys() == state.keys()
    with pytest.raises(ValueError, match=r"refinement_blocks.12.hypernet.b1 differs from shared_weight_hypernet.b1"):
        HyperStyle.load(state | aliases | {"refinement_blocks.12.hypernet.b1": torch.ones(4608)}, table)
    with pytest.raises(ValueError, match=r"layer 22 belongs to a larger generator; this one's layers end at 19"):
        HyperStyle.load(state, layer_table(256))
    with pytest.raises(ValueError, match=r"for 23 of 26 layers: .* have another shape"):
        HyperStyle.load(state, layer_table(1024, 1))
    few = {
        name: t
        for name, t in state.items()
        if not name.startswith("refinement_blocks.") or name.startswith("refinement_blocks.14.")
    }  # published files hold the shared matrices all the same
    assert HyperStyle.load(few, table).state_dict().keys() == few.keys()
    with pytest.raises(ValueError, match="not a HyperStyle hypernetwork: no refinement_blocks"):
        HyperStyle.load({"conv1.weight": torch.zeros(1)})


@torch.inference_mode()
def test_only_rows_of_a_batch_decide_their_deltas() -> None:
    table = layer_table(128, 0.5)[-2:]
    torch.manual_seed(0)
    net = HyperStyle(table, range(len(table))).eval()
    x = torch.rand(2, 6, 256, 256) * 2 - 1
    both = net(x)
    for row, delta in zip(table, both, strict=True):
        assert delta is not None and tuple(delta.shape) == (2, *row.shape)
        assert np.ptp(delta.numpy(), axis=(3, 4)).max() == 0  # one value a kernel
    alone = net(x[1:])
    torch.testing.assert_close([d[1:] for d in both], alone, atol=1e-5, rtol=1e-4)
