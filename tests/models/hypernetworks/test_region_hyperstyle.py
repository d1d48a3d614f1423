"""The hypernetwork in HyperStyle's form: it starts as HyperStyle, then styles matter; phases train what they may."""

import pytest
import torch
from torch import nn

from models.generators.stylegan2 import layer_table
from models.hypernetworks.hyperstyle import HyperStyle, Trunk
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
    with pytest.raises(ValueError, match="start layer 6 is none of the generator's 6"):
        net.train_only(6)


def pictures(count: int = 4) -> torch.Tensor:
    """Low-pass noise beside itself, in place of images and their renderings: [N, 6, 256, 256]."""
    rng = torch.Generator().manual_seed(1)
    small = torch.rand(count, 3, 16, 16, generator=rng) * 2 - 1
    return nn.functional.interpolate(small, (256, 256), mode="bilinear").repeat(1, 2, 1, 1)


def contrast(features: torch.Tensor) -> float:
    """How much of the features differs between images: their std over images beside that over everything."""
    return float(features.std(0).mean() / features.std())


@pytest.mark.parametrize("published", [False, True])
@torch.no_grad()
def test_the_trunk_passes_what_differs_between_images_once_it_is_measured(published: bool) -> None:
    torch.manual_seed(0)
    net, both = RegionHyperStyle(TABLE, project=True), pictures()
    if published:
        net.start_trunk(resnet34())
    before = contrast(net.net.features(both))
    net.measure(pictures(8).split(4))
    after = contrast(net.net.features(both))
    assert after > 0.5 and (published or after > 2 * before)
    assert not any(module.training for module in net.modules() if isinstance(module, nn.BatchNorm2d))


def resnet34() -> dict[str, torch.Tensor]:
    """A drawn ResNet34 under torchvision's names."""
    torch.manual_seed(2)
    state = {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    for name, tensor in Trunk().state_dict().items():
        if name.startswith("body."):
            number = int(name.split(".")[1])
            stage = next(i for i, end in enumerate((3, 7, 13, 16)) if number < end)
            name = name.replace(f"body.{number}.", f"layer{stage + 1}.{number - (0, 3, 7, 13)[stage]}.", 1)
        if name != "relu.weight" and not name.endswith("num_batches_tracked"):
            state[name] = tensor[:, :3] if name == "conv1.weight" else tensor
    state["bn1.running_mean"] = torch.randn(64) * 0.1
    return state


@torch.no_grad()
def test_torchvisions_resnet_sees_the_mean_of_image_and_rendering_as_it_was_trained_to() -> None:
    state, both = resnet34(), pictures(1)
    net = Trunk.load_imagenet(state).eval()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    normal = (both[:, :3] / 2 + 0.5 - mean) / std
    first = nn.functional.conv2d(normal, state["conv1.weight"], stride=2, padding=3)
    norm = [state[f"bn1.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias")]
    wanted = nn.functional.batch_norm(first, *norm).relu()
    found = net.relu(net.bn1(net.conv1(both)))
    torch.testing.assert_close(found[..., 2:-2, 2:-2], wanted[..., 2:-2, 2:-2], rtol=1e-3, atol=1e-3)
    mixed = torch.cat([both[:, :3] + 0.1, both[:, 3:] - 0.1], 1)
    torch.testing.assert_close(
        net.conv1(mixed)[..., 2:-2, 2:-2], net.conv1(both)[..., 2:-2, 2:-2], rtol=1e-3, atol=1e-3
    )
    assert torch.equal(net.body[3].conv2.weight, state["layer2.0.conv2.weight"])
    del state["layer4.2.bn2.bias"]
    with pytest.raises(
        ValueError, match=r"not torchvision's ResNet34: 1 of \d+ tensors are missing \(body.15.bn2.bias"
    ):
        Trunk.load_imagenet(state)


@pytest.mark.parametrize("project", [False, True])
def test_stylisation_learns_a_way_from_the_codes_to_late_deltas_alone(project: bool) -> None:
    """The heads read A(s) by a layer of their own, so the style's way is open when all that they share is frozen."""
    torch.manual_seed(0)
    net = RegionHyperStyle(TABLE, project=project)
    for head in net.heads:
        nn.init.normal_(head.output[-1].weight, 0, 0.02)
    x, y, codes, region = inputs()
    other = -codes
    parameters = net.train_only(3)
    optimiser = torch.optim.Adam(parameters, 1e-3)
    with torch.no_grad():
        before = [net(x, y, c, region) for c in (codes, other)]
    for _ in range(2):
        optimiser.zero_grad()
        pairs = (net(x, y, c, region)[3:] for c in (codes, other))
        loss = torch.stack(
            [(a - s).square().mean() for s, part in zip((1, -1), pairs, strict=True) for a in part]
        ).sum()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        after = [net(x, y, c, region) for c in (codes, other)]
    assert all(torch.equal(a[i], b[i]) for a, b in zip(before, after, strict=True) for i in range(3))
    for i in range(3, 6):
        gap = [float((pair[0][i] - pair[1][i]).abs().mean()) for pair in (before, after)]
        assert gap[1] > gap[0] + 1e-3
    assert all(net.heads[i].style.weight.grad is not None for i in range(3, 6))


def test_the_paper_projects_the_content_to_half_the_channels() -> None:
    net = RegionHyperStyle(TABLE, project=True)
    assert net.features(pictures(1)).shape == (1, 256, 16, 16) and net.fusion is None
    with pytest.raises(ValueError, match=r"set train\.project_content = false"):
        net.initialise(HyperStyle(TABLE, (0, 1)).state_dict())


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


@torch.no_grad()
def test_heads_that_share_their_matrices_expand_together_as_each_would_alone() -> None:
    torch.manual_seed(0)
    table = layer_table(256)[2:5]
    net = RegionHyperStyle(table, project=True)
    nn.init.normal_(net.net.shared_weight_hypernet.w1, 0, 0.1)
    features, codes = torch.randn(2, 512, 16, 16), inputs(2)[2]
    for i, deltas in enumerate(net.deltas(features, codes)):
        alone = net.net.delta(i, features)
        assert deltas.shape == alone.shape and bool(deltas.any()) == (table[i].kind != "to_img")
        torch.testing.assert_close(deltas, alone, rtol=1e-4, atol=1e-6)
