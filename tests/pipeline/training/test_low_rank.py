"""Low-rank updates of shipped weights."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline import hashing, weights
from pipeline.errors import UserError
from pipeline.training import checkpoint, low_rank

SHAPES = {"a.weight": (40, 24), "a.bias": (40,), "b.weight": (16, 8, 3, 3), "same": (5, 5)}


def network(seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return {name: torch.randn(shape) for name, shape in SHAPES.items()}


def changed(rank: int, seed: int) -> dict[str, Tensor]:
    """A network whose matrices changed by that rank, and whose last tensor did not change."""
    torch.manual_seed(seed + 1)
    out = network(seed)
    for name in ("a.weight", "b.weight"):
        flat = out[name].flatten(1)
        out[name] = out[name] + (torch.randn(len(flat), rank) @ torch.randn(rank, flat.shape[1])).reshape(SHAPES[name])
    return out | {"a.bias": out["a.bias"] + 1}


@given(st.integers(0, 99), st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_a_change_of_low_rank_is_kept(seed: int, rank: int) -> None:
    before, after = network(seed), changed(rank, seed)
    after["same"] = after["same"] * (1 + 1e-7)  # an average of equal values is rounded
    found, share = low_rank.largest(before, after, 10_000)
    assert share > 0.9999 and "same" not in found and all(t.dtype is torch.float16 for t in found.values())
    for name, tensor in low_rank.added(before, found).items():
        torch.testing.assert_close(tensor, after[name], rtol=0.01, atol=0.03)


@given(st.integers(0, 99), st.integers(600, 6000))
@settings(max_examples=20, deadline=None)
def test_it_keeps_as_much_as_fits(seed: int, limit: int) -> None:
    before, after = network(seed), network(seed + 100)
    found, share = low_rank.largest(before, after, limit)
    assert sum(t.nbytes for t in found.values()) <= limit and 0 <= share <= 1
    more, larger = low_rank.largest(before, after, 2 * limit)
    nets = low_rank.added(before, found), low_rank.added(before, more), before
    errors = [sum(float((after[name] - net[name]).square().sum()) for name in SHAPES) for net in nets]
    assert larger >= share and errors[1] <= errors[0] * 1.001 <= errors[2]


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(ValueError, match=r"more than 10"):
        low_rank.largest(network(0), network(1), 10)
    for wrong in ({"c": torch.ones(2)}, {"a.bias": torch.ones(3)}, {"a.weight.up": torch.ones(40, 1)}):
        with pytest.raises(ValueError, match=r"does not fit"):
            low_rank.added(network(0), wrong)


def test_shipped_weights_are_read_with_the_update_beside_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPERNST_WEIGHTS", str(tmp_path))
    place, beside = tmp_path / "hypernet.safetensors", tmp_path / "hypernet-update.safetensors"
    before, after = network(0), changed(2, 0)
    checkpoint.save(place, before, {})
    alone = weights.sha256("hypernet")
    assert alone == hashing.sha256(place) and torch.equal(weights.tensors("hypernet")["a.weight"], before["a.weight"])

    checkpoint.save(beside, low_rank.largest(before, after, 10_000)[0], {"of": alone})
    found = weights.tensors("hypernet")
    assert all(torch.allclose(found[name], after[name], rtol=0.01, atol=0.03) for name in SHAPES)
    assert weights.sha256("hypernet") not in (alone, hashing.sha256(beside))
    assert torch.equal(weights.base("hypernet")["a.weight"], before["a.weight"])

    checkpoint.save(place, after, {})  # others were put in the place of those that were updated
    with pytest.raises(UserError, match=r"hypernet-update.safetensors: is no update of .*it is of others"):
        weights.tensors("hypernet")
    beside.write_text(json.dumps({}))
    with pytest.raises(UserError, match=r"hypernet-update.safetensors: is not a readable"):
        weights.tensors("hypernet")
