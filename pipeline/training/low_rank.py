"""A low-rank update: what a later training changed of a network, in a file a fraction of the network's size.

A matrix W of the network becomes W + up @ down (LoRA, Hu et al. 2021; here found afterwards, by singular values), any
other tensor gets its difference. Kernels [out, in, h, w] count as matrices [out, in * h * w].
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

UP, DOWN = ".up", ".down"
PRECISION = 2**-12
SEARCHES = 12  # halvings of the share that is kept


def largest(
    before: Mapping[str, "Tensor"], after: Mapping[str, "Tensor"], limit: int
) -> tuple[dict[str, "Tensor"], float]:
    """The update in fp16 from `before` to `after` that keeps most within `limit` bytes, and the share that it keeps.

    The share is of every matrix's squared change. Raises: ValueError when not even the vectors fit.
    """
    parts = {name: _parts(after[name].float() - before[name].float()) for name in sorted(after)}
    # What fp16 could not tell from the old value has not changed: rounding has no low rank.
    parts = {n: part for n, part in parts.items() if part[0].abs().max() > PRECISION * before[n].float().abs().max()}
    low, high, found = 0.0, 1.0, _cut(parts, 0.0)
    if _bytes(found) > limit:
        raise ValueError(f"the changed tensors take {_bytes(found)} bytes at least, more than {limit}")
    for share in [1.0, *[0.0] * SEARCHES]:
        share = share or (low + high) / 2
        update = _cut(parts, share)
        if _bytes(update) <= limit:
            low, found = share, update
        else:
            high = share
    return found, low


def added(tensors: Mapping[str, "Tensor"], update: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
    """The network's tensors with an update, in float32. Raises: ValueError when it is of another network."""
    out = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    for name in {name.removesuffix(UP).removesuffix(DOWN) for name in update}:
        plain, up, down = (update.get(key) for key in (name, name + UP, name + DOWN))
        try:
            change = up.float() @ down.float() if plain is None and up is not None and down is not None else plain
            out[name] = out[name] + change.float().reshape(out[name].shape)  # type: ignore[union-attr]
        except (KeyError, AttributeError, RuntimeError) as error:
            raise ValueError(f"its update has a {name!r} that does not fit") from error
    return out


def _parts(change: "Tensor") -> tuple["Tensor", ...]:
    """A vector's change, or of a matrix also its singular vectors and values."""
    if change.ndim < 2:
        return (change,)
    import torch

    left, values, right = torch.linalg.svd(change.flatten(1), full_matrices=False)
    return change, left * values.sqrt(), values.sqrt()[:, None] * right, values.square().cumsum(0)


def _cut(parts: Mapping[str, tuple["Tensor", ...]], share: float) -> dict[str, "Tensor"]:
    found = {}
    for name, (change, *factors) in parts.items():
        if factors:
            up, down, energy = factors
            rank = min(len(energy), 1 + int((energy < share * energy[-1]).sum()))
            if rank * (up.shape[0] + down.shape[1]) < change.numel():
                found[name + UP], found[name + DOWN] = up[:, :rank].half(), down[:rank].half()
                continue
        found[name] = change.half()
    return found


def _bytes(update: Mapping[str, "Tensor"]) -> int:
    return sum(tensor.nbytes for tensor in update.values())
