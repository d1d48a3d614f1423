"""The hypernetwork in HyperStyle's form: it starts as HyperStyle, then styles matter; phases train what they may."""

import pytest
import torch
from torch import nn

from models.generators.stylegan2 import layer_table
from models.hypernetworks.hyperstyle import HyperStyle
from models.hypernetworks.region_hyperstyle import RegionHyperStyle
from tests.support.goldens import Case

TABLE = layer_table(256, 0.5)[-6:]  # no shared heads, whose matrices alone take half a gigabyte


def inputs(count: int = 1) -> tuple[torch.Tensor, ...]:
    rng = torch.Generator().manual_seed(0)
    x, y = (torch.rand(count, 3, 256, 256, generator=rng) * 2 - 1 for _ in range(2))
    codes = nn.functional.normalize(torch.randn(count, 4, 256, generator=rng), dim=-1)
    return x, y, codes, torch.randint(0, 3, (count, 256, 256), generator=rng).byte()


def test_fresh_it_changes_nothing_and_from_hyperstyle_it_is_hyperstyle() -> None:
    torch.manual_seed(0)
    theirs = HyperStyle(TABLE, (0, 1, 3, 4)).eval()
    ours = RegionHyperStyle(TABLE)
    x, y, codes, region = inputs()
    with torch.no_grad():
        assert all(not d.any() for d in ours(x, y, codes, region))
        ours.initialise(theirs.state_dict())
        for mine, want in zip(ours(x, y, codes, region), theirs(torch.cat([x, y], 1)), strict=True):
            assert not mine.any() if want is None else torch.equal(mine.expand_as(want), want)
    changed = ours(x, y, codes, region)
    sum(d.square().sum() for d in changed).backward()  # type: ignore[union-attr]
    assert ours.fusion.weight.grad is not None and ours.fusion.weight.grad[:, 512:].abs().sum() > 0
    with torch.no_grad():
        ours.fusion.weight[:, 512:] += 0.1 * torch.randn(512, 256, 1, 1)
        assert not torch.allclose(ours(x, y, codes, region)[0], ours(x, y, -codes, region)[0])
        ours.condition_on_regions = False
        other = torch.cat([-codes[:, :3], codes[:, 3:]], 1)
        assert torch.equal(ours(x, y, codes, region)[0], ours(x, y, other, region * 0)[0])


def test_a_phase_trains_its_heads_and_never_the_batch_norms_statistics() -> None:
    torch.manual_seed(0)
    net = RegionHyperStyle(TABLE, checkpointing=True).train()
    statistics = {n: t.clone() for n, t in net.state_dict().items() if "running" in n}
    parameters = net.train_only(3)
    allowed = tuple(f"net.refinement_blocks.{i}." for i in (3, 4, 5))
    assert {n for n, p in net.named_parameters() if p.requires_grad} == {
        n for n, _ in net.named_parameters() if n.startswith(allowed)
    }
    sum(d.sum() for d in net(*inputs())).backward()  # type: ignore[union-attr]
    assert any(p.grad is not None and p.grad.any() for p in parameters)
    assert all(torch.equal(t, net.state_dict()[n]) for n, t in statistics.items())
    assert len(net.train_only(None)) == len(list(net.parameters()))
    with pytest.raises(ValueError, match="start layer 6 is past the generator's 6 layers"):
        net.train_only(6)


def test_weights_of_something_else_are_refused() -> None:
    net = RegionHyperStyle(TABLE)
    state = HyperStyle(TABLE, (0, 1)).state_dict()
    with pytest.raises(ValueError, match=r"1 of \d+ tensors are missing \(refinement_blocks.1.output.1.bias\)"):
        net.initialise({n: t for n, t in state.items() if n != "refinement_blocks.1.output.1.bias"})
    with pytest.raises(ValueError, match=r"this generator's 6 layers: .* instead of"):
        net.initialise(HyperStyle(layer_table(256, 1)[-6:], (0, 1)).state_dict())
    with pytest.raises(ValueError, match=r"not a HyperStyle hypernetwork"):
        net.initialise(net.state_dict())


@pytest.mark.slow
@torch.no_grad()
def test_it_starts_with_the_references_deltas() -> None:
    case = Case("hs_hypernet1024_default17")
    table = layer_table(1024)
    net = RegionHyperStyle(table)
    net.initialise(case.tensors())
    pair = torch.from_numpy(case.input("x"))
    _, _, codes, region = inputs()
    found = net(pair[:, :3], pair[:, 3:], codes, region)
    for row, entry, delta in zip(case.case["layers"], table, found, strict=True):
        if row["kind"] == "none":
            assert not delta.any()
        else:
            case.check(f"delta.{row['index']}", delta.expand(-1, -1, -1, *entry.shape[2:]))


def test_region_deltas_are_those_of_the_regions_own_code() -> None:
    torch.manual_seed(0)
    net = RegionHyperStyle(TABLE, region_deltas=True)
    net.initialise(HyperStyle(TABLE, range(len(TABLE))).state_dict())
    x, y, codes, region = inputs(2)
    other = codes.clone()
    other[:, 1] *= -1
    with torch.no_grad():
        net.fusion.weight[:, 512:] += 0.1 * torch.randn(512, 256, 1, 1)
        before, after = net(x, y, codes, region), net(x, y, other, region)
    for a, b, entry in zip(before, after, TABLE, strict=True):
        assert a.shape[:4] == (2, 3, *entry.shape[:2])
        assert [bool((a[:, r] != b[:, r]).any()) for r in range(3)] == [False, True, False]
