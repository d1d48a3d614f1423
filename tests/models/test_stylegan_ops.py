"""Resampling and activation against the reference, against zero insertion, and through second derivatives."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from models.stylegan_ops import Pair, fir, leaky, upfirdn
from tests.support.goldens import Case


def by_zero_insertion(
    x: torch.Tensor, kernel: torch.Tensor, up: tuple[int, int], down: tuple[int, int], pad: tuple[int, int, int, int]
) -> torch.Tensor:
    """The definition, spelled out."""
    n, c, h, w = x.shape
    wide = x.new_zeros(n, c, h * up[0], w * up[1])
    wide[..., :: up[0], :: up[1]] = x
    wide = F.pad(wide, (pad[2], pad[3], pad[0], pad[1]))
    flipped = kernel.flip(0, 1)[None, None].expand(c, 1, *kernel.shape)
    return F.conv2d(wide, flipped, groups=c)[..., :: down[0], :: down[1]]


def test_ops_equal_the_reference() -> None:
    case = Case("ops")
    x, asym = torch.from_numpy(case.input("x")), torch.from_numpy(case.input("kernel_asym"))
    for call in case.case["call"]:
        if "up" in call:
            how = (call["up"], call["down"], tuple(call["pad"]))
            case.check(call["name"], upfirdn(x, fir(gain=call["up"] ** 2), *how))
            case.check(call["name"].replace("upfirdn.", "upfirdn_asym."), upfirdn(x, asym, *how))
    case.check("upfirdn_xy", upfirdn(x, asym, (1, 2), (2, 1), (0, 3, 1, 2)))
    case.check("lrelu4d", leaky(x, torch.from_numpy(case.input("bias"))))
    case.check("lrelu4d_nobias", leaky(x))
    case.check("lrelu2d", leaky(torch.from_numpy(case.input("v")), torch.from_numpy(case.input("vbias"))))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**16),
    st.tuples(*[st.integers(1, 3)] * 4),
    st.tuples(*[st.integers(-3, 5)] * 4),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
)
def test_upfirdn_is_zero_insertion(
    seed: int, rates: tuple[int, int, int, int], pad: tuple[int, int, int, int], taps: tuple[int, int]
) -> None:
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 2, 5, 6, generator=rng, dtype=torch.float64)
    kernel = torch.randn(*taps, generator=rng, dtype=torch.float64)
    up, down = rates[:2], rates[2:]
    sizes = [n * u + sum(p) - k + 1 for n, u, p, k in zip((5, 6), up, (pad[:2], pad[2:]), taps, strict=True)]
    if min(sizes) < 1:
        with pytest.raises(ValueError, match="nothing is left"):
            upfirdn(x, kernel, up, down, pad)
    else:
        torch.testing.assert_close(upfirdn(x, kernel, up, down, pad), by_zero_insertion(x, kernel, up, down, pad))


@pytest.mark.parametrize(("up", "down", "size"), [(2, 1, (4, 4)), (1, 2, (5, 4)), ((1, 3), (2, 1), (4, 5))])
def test_filters_have_second_derivatives(up: Pair, down: Pair, size: tuple[int, int]) -> None:
    x = torch.randn(1, 2, *size, dtype=torch.float64, requires_grad=True)
    kernel = fir((1.0, 3.0, 2.0)).double()
    assert torch.autograd.gradcheck(lambda a: upfirdn(a, kernel, up, down, (2, 1)).square(), x)
    assert torch.autograd.gradgradcheck(lambda a: upfirdn(a, kernel, up, down, (2, 1)).square(), x)


def test_a_second_derivative_takes_no_operations_per_channel() -> None:
    """A GPU waits for Python: a step with R1 at 256 px had 233,000 operations, three quarters of them from this."""

    def operations(channels: int, up: int) -> int:
        x = torch.randn(1, channels, 4, 4, requires_grad=True)
        with Counting() as counting:
            y = upfirdn(x, fir(), up, 1, (2, 1)).square().sum()
            torch.autograd.grad(y, x, create_graph=True)[0].square().sum().backward()
        return counting.calls

    for up in (1, 2):
        assert operations(64, up) == operations(2, up)


class Counting(TorchDispatchMode):
    """Counts the operations that PyTorch is asked for."""

    calls = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return function(*args, **(kwargs or {}))
