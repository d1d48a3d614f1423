"""The hypernetwork: what its codes, regions and heads do, and what each phase may train."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.generators.mobilestylegan import LayerEntry
from models.hypernetworks import hypernetwork
from models.hypernetworks.hypernetwork import CELLS, DeltaHead, HyperNetwork, add, arrange, mix_codes
from models.regions import CODE_SIZE, UNKNOWN

TABLE = [
    LayerEntry(0, "conv1", 4, "conv3x3", (24, 24, 3, 3)),
    LayerEntry(1, "layers.0.conv1", 8, "pointwise", (24, 6)),
    LayerEntry(2, "layers.0.conv2", 8, "pointwise", (16, 24)),
    LayerEntry(3, "to_img", 16, "to_img", (12, 16)),
]


def codes(seed: int, n: int = 1) -> Tensor:
    return F.normalize(torch.randn(n, 4, CODE_SIZE, generator=torch.Generator().manual_seed(seed)), dim=-1)


def inputs(seed: int = 0, n: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, y_hat, codes, region: random content of the network's size, regions in blobs."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 4, (n, 8, 8), generator=rng)
    region = torch.where(coarse == 3, UNKNOWN, coarse).to(torch.uint8).repeat_interleave(32, 1).repeat_interleave(32, 2)
    return (torch.rand(n, 3, 256, 256, generator=rng) * 2 - 1, torch.rand(n, 3, 256, 256, generator=rng) * 2 - 1,
            codes(seed, n), region)  # fmt: skip


@pytest.fixture(scope="module")
def awake() -> HyperNetwork:
    """A network whose heads no longer give zeros."""
    torch.manual_seed(0)
    net = HyperNetwork(TABLE, width=8, rank=2)
    for head in net.heads:
        torch.nn.init.normal_(head.out.weight, 0, 0.02)
    return net


def state(net: torch.nn.Module) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in net.state_dict().items()}


@given(st.integers(0, 999), st.sampled_from([16, 32, 48, 80, 100]), st.integers(1, 2))
@settings(max_examples=20, deadline=None)
def test_arranging_is_tiling_the_whole_map_then_averaging(seed: int, side: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    region = torch.from_numpy(rng.choice(np.array([0, 1, 2, UNKNOWN], np.uint8), (n, side, side)))
    own = codes(seed, n)
    which = np.where(region == UNKNOWN, 3, region)
    tiled = torch.stack([own[i][torch.from_numpy(which[i]).long()] for i in range(n)]).permute(0, 3, 1, 2)
    assert torch.allclose(arrange(own, region), F.adaptive_avg_pool2d(tiled, CELLS), atol=1e-5)


def test_measured_codes_differ_as_evenly_spread_ones_do_and_old_weights_know_none(awake: HyperNetwork) -> None:
    """Codes of which 98 % is common are read as if it were not there; unmeasured ones stay the same to the bit."""
    rng = torch.Generator().manual_seed(5)
    near = F.normalize(codes(3)[:, :1] + 0.14 / 16 * torch.randn(60, 4, CODE_SIZE, generator=rng), dim=-1)
    x, y, _, region = inputs(2, 2)
    net = HyperNetwork(TABLE, width=8, rank=2)
    net.load_state_dict({name: t for name, t in state(awake).items() if not name.startswith("space.")})

    def gap(given: Tensor) -> float:
        with torch.no_grad():
            return float(net(x[:1].expand_as(x), y[:1].expand_as(y), given, region)[0].diff(dim=0).abs().mean())

    assert torch.equal(net.conditions(near[:2], region)[0], near[:2])
    spread, before = gap(codes(4, 2)), gap(near[:2])
    net.space.measure(near.flatten(0, 1))
    assert before < 0.2 * spread and gap(near[:2]) > 0.5 * spread
    other = HyperNetwork(TABLE, width=8, rank=2)
    other.load_state_dict(net.state_dict())
    assert torch.equal(other.space(near), net.space(near)) and not torch.equal(net.space(near), near)
    net.space.measure(near[:1, 0])
    assert not net.space(near[0, 0]).any()  # a single code


@pytest.mark.parametrize("rank", [0, 1, 6])
@pytest.mark.parametrize("entry", TABLE[:2], ids=lambda e: e.name)
def test_a_head_starts_at_zero_deltas_and_can_learn(entry: LayerEntry, rank: int) -> None:
    head = DeltaHead(entry, rank)
    seen, own = torch.randn(2, 512, CELLS, CELLS), codes(0, 2)
    deltas = head(seen, own)
    assert deltas.shape == (2, *entry.shape[:2]) and not deltas.any()
    (deltas - 1).square().sum().backward()
    gradient = head.out.weight.grad
    assert gradient is not None and gradient.any()
    moved = -0.01 * gradient / gradient.abs().max()
    head.out.weight.data += moved
    assert (head(seen, own) - 1).square().sum() < (deltas - 1).square().sum()


def test_a_new_network_changes_nothing() -> None:
    assert not any(delta.any() for delta in HyperNetwork(TABLE, width=8, rank=2)(*inputs()))


def test_deltas_follow_the_table_and_do_not_depend_on_the_batch(awake: HyperNetwork) -> None:
    batch = inputs(1, n=3)
    together = awake(*batch)
    assert [tuple(d.shape) for d in together] == [(3, *entry.shape[:2]) for entry in TABLE]
    for i in range(3):
        alone = awake(*(t[i : i + 1] for t in batch))
        assert all(torch.allclose(t[i : i + 1], a, atol=1e-5) for t, a in zip(together, alone, strict=True))
    assert all((d[0] - d[1]).abs().max() > 1e-3 for d in together)


def test_every_regions_code_matters_where_the_region_is(awake: HyperNetwork) -> None:
    x, y, own, region = inputs(2)
    plain = awake(x, y, own, region)
    for label in range(4):
        changed = own.clone()
        changed[:, label] = codes(9)[:, label]
        assert not any(torch.equal(a, b) for a, b in zip(plain, awake(x, y, changed, region), strict=True))
        elsewhere = region.clone()
        elsewhere[region == (UNKNOWN if label == 3 else label)] = (label + 1) % 3
        assert torch.equal(arrange(own, elsewhere), arrange(changed, elsewhere))


def test_without_region_conditioning_the_map_is_ignored(awake: HyperNetwork) -> None:
    net = HyperNetwork(TABLE, width=8, rank=2, condition_on_regions=False)
    net.load_state_dict(awake.state_dict())
    x, y, own, region = inputs(3)
    plain, other = net(x, y, own, region), net(x, y, own, torch.zeros_like(region))
    whole = awake(x, y, own[:, 3:].expand_as(own), torch.full_like(region, UNKNOWN))
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(plain, other, whole, strict=True))


def test_checkpointing_changes_no_number(awake: HyperNetwork) -> None:
    gradients = []
    for checkpointing in (False, True):
        net = HyperNetwork(TABLE, width=8, rank=2, checkpointing=checkpointing)
        net.load_state_dict(awake.state_dict())
        deltas = net(*inputs(4))
        torch.stack([d.square().mean() for d in deltas]).sum().backward()
        gradients.append([p.grad for p in net.parameters()])
    for a, b in zip(*gradients, strict=True):
        assert a is not None and b is not None and torch.allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("start", [None, 0, 2, 3])
def test_a_phase_trains_exactly_its_own_parameters(start: int | None) -> None:
    net = HyperNetwork(TABLE, width=8, rank=1)
    returned = net.train_only(start)
    names = {name for name, p in net.named_parameters() if p.requires_grad}
    late = tuple(f"heads.{i}." for i in range(start or 0, len(TABLE)))
    expected = {name for name, _ in net.named_parameters() if start is None or name.startswith(late)}
    assert names == expected
    own = dict(net.named_parameters())
    assert {id(p) for p in returned} == {id(own[name]) for name in expected}
    net.train_only(None)  # a phase can be left again
    assert all(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize("start", [-1, len(TABLE), 99])
def test_a_start_layer_outside_the_table_is_refused(start: int) -> None:
    with pytest.raises(ValueError, match=f"start layer {start} "):
        HyperNetwork(TABLE, width=8, rank=1).train_only(start)


def test_stylising_keeps_the_early_deltas_to_the_bit(awake: HyperNetwork) -> None:
    """Even with an optimiser that holds momentum of the frozen parameters from the phase before."""
    net = HyperNetwork(TABLE, width=8, rank=2)
    net.load_state_dict(awake.state_dict())
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        torch.stack([(d - 0.5).square().mean() for d in net(*inputs(5))]).sum().backward()
        optimiser.step()

    net.train_only(None)
    step()
    net.train_only(2)
    before, kept = [d.detach() for d in net(*inputs(6))], state(net)
    for _ in range(3):
        step()
    after, now = [d.detach() for d in net(*inputs(6))], state(net)
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, True, False, False]
    changed = {name for name in now if not torch.equal(now[name], kept[name])}
    assert changed and all(name.startswith(("heads.2.", "heads.3.")) for name in changed)


def test_refinements_add_up_and_only_the_last_is_learned_from() -> None:
    first = [torch.ones(1, 2, 2, requires_grad=True)]
    more = [torch.full((1, 2, 2), 0.5, requires_grad=True)]
    total = add(add(None, first), more)
    total[0].sum().backward()
    assert total[0].tolist() == [[[1.5, 1.5], [1.5, 1.5]]] and first[0].grad is None
    assert more[0].grad is not None and bool((more[0].grad == 1).all())
    with pytest.raises(ValueError):
        add(total, [])


def test_deltas_and_their_sums_stay_float32_under_autocast(awake: HyperNetwork) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        first = awake(*inputs(8))
        total = add(first, [torch.full_like(d, 1e-4) for d in first])
    assert all(d.dtype is torch.float32 for d in total)
    assert all(torch.allclose(t - d, torch.tensor(1e-4), atol=1e-6) for t, d in zip(total, first, strict=True))


class Painter:
    """A generator whose image tells which deltas it got."""

    def __init__(self) -> None:
        self.given: list[Sequence[Tensor] | None] = []

    def __call__(self, latent: Tensor, deltas: Sequence[Tensor] | None = None, region_weights: object = None) -> Tensor:
        self.given.append(deltas)
        level = torch.tensor(0.1) if deltas is None else torch.stack([d.mean() for d in deltas]).sum()
        return level.expand(latent.shape[0], 3, 256, 256)


def test_rendering_feeds_each_picture_back(awake: HyperNetwork) -> None:
    x, _, own, region = inputs(7)
    painter = Painter()
    latent = torch.zeros(1, 18, 512)
    y = hypernetwork.render(awake, painter, x, latent, own, region, 3)  # type: ignore[arg-type]
    assert [g is None for g in painter.given] == [True, False, False, False]
    expected, image = None, painter(latent)
    for _ in range(3):
        expected = add(expected, awake(x, image, own, region))
        image = painter(latent, expected)
    assert torch.allclose(y, image.clamp(-1, 1))
    inverted = hypernetwork.render(awake, painter, x, latent, own, region, 3, inversion=painter(latent))  # type: ignore[arg-type]
    assert torch.equal(inverted, y)


@given(st.integers(0, 999), st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_strength_walks_from_ones_own_style_to_the_other(seed: int, strength: float) -> None:
    own, style = codes(seed), codes(seed + 1)
    mixed = mix_codes(own, style, strength)
    assert torch.allclose(mixed.norm(dim=-1), torch.ones(1, 4), atol=1e-5)
    assert torch.allclose(mix_codes(own, style, 0.0), own, atol=1e-6)
    assert torch.allclose(mix_codes(own, style, 1.0), style, atol=1e-6)
    nearer = mix_codes(own, style, min(1.0, strength + 0.1))
    assert bool(((nearer * style).sum(-1) >= (mixed * style).sum(-1) - 1e-5).all())


@given(st.integers(0, 99), st.integers(0, 3), st.integers(1, 2))
@settings(max_examples=8, deadline=None)
def test_region_deltas_are_those_of_the_regions_own_code(seed: int, changed: int, n: int) -> None:
    torch.manual_seed(seed)
    net = HyperNetwork(TABLE, width=8, rank=2, region_deltas=True)
    for head in net.heads:
        torch.nn.init.normal_(head.out.weight, 0, 0.02)
    x, y_hat, own, region = inputs(seed, n)
    other = own.clone()
    other[:, changed] = codes(seed + 1, n)[:, changed]
    with torch.no_grad():
        before, after = (net(x, y_hat, c, region) for c in (own, other))
    for a, b, entry in zip(before, after, TABLE, strict=True):
        assert a.shape == (n, 4, *entry.shape[:2])  # the map has unknown places, with the whole image's code
        assert [bool((a[:, r] != b[:, r]).any()) for r in range(4)] == [r == changed for r in range(4)]
    with torch.no_grad():
        alone = net.of_region(net.features(hypernetwork.side_by_side(x, y_hat)), other[:, changed])
    assert all(torch.allclose(a, b[:, changed], atol=1e-5) for a, b in zip(alone, after, strict=True))


@pytest.mark.parametrize("region_deltas", [False, True])
def test_without_region_conditioning_only_the_codes_change(awake: HyperNetwork, region_deltas: bool) -> None:
    nets = [
        HyperNetwork(TABLE, width=8, rank=2, region_deltas=region_deltas, condition_on_regions=condition)
        for condition in (True, False)
    ]
    for net in nets:
        net.load_state_dict(awake.state_dict())
    x, y_hat, own, region = inputs(0)
    same = nets[0](x, y_hat, own[:, 3:].expand_as(own), region)
    for a, b in zip(same, nets[1](x, y_hat, own, region), strict=True):
        assert a.shape == b.shape and torch.allclose(a, b, atol=1e-5)
    assert (nets[1].region_weights(region) is None) != region_deltas
