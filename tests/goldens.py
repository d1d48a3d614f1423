"""Reads the numeric parity cases that lie beside the checkout; tests that use them skip where they are absent."""

import json
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

ROOT = Path(os.environ.get("HYPERNST_SHARED", Path(__file__).parents[2] / "shared")) / "goldens"


def fill(salt: str, key: str, spec: dict[str, Any]) -> np.ndarray:
    """Make the array that the case's rule gives to `key`."""
    shape, blocks = tuple(spec["shape"]), spec.get("blocks") or 1
    if spec["kind"] == "const":
        return np.full(shape, spec["c"]).astype(spec["dtype"])
    if spec["kind"] == "literal":
        return np.array(spec["values"]).reshape(shape).astype(spec["dtype"])
    small = (*shape[:-2], shape[-2] // blocks, shape[-1] // blocks) if blocks > 1 else shape
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(f"{salt}:{key}".encode())))
    x = rng.standard_normal(small, dtype=np.float32)
    if blocks > 1:
        x = x.repeat(blocks, -2).repeat(blocks, -1)
    x = np.abs(x) if spec["kind"] == "absnormal" else x
    value = np.float32(spec["std"]) * x + np.float32(spec["mean"])
    return np.clip(value, *map(np.float32, spec["clamp"])) if spec.get("clamp") else value


class Case:
    """One golden case: its tensors, its inputs, and a comparison with its outputs."""

    def __init__(self, name: str) -> None:
        if not (ROOT / f"{name}.json").exists():
            pytest.skip("the parity goldens are not on this machine")
        self.case = json.loads((ROOT / f"{name}.json").read_text())
        self.npz = np.load(ROOT / f"{name}.npz")

    def tensors(self) -> dict[str, torch.Tensor]:
        """The whole state dict, in the reference's keys."""
        out: dict[str, torch.Tensor] = {}
        for spec in self.case["tensors"]:
            if spec["kind"] == "alias":
                out[spec["key"]] = out[spec["of"]]
            else:
                out[spec["key"]] = torch.from_numpy(fill(self.case["salt"], spec["key"], spec))
        return out

    def input(self, name: str) -> np.ndarray:
        """One named input."""
        spec = next(s for s in self.case["inputs"] if s["name"] == name)
        return fill(self.case["salt"], f"input:{name}", spec)

    def check(self, name: str, got: torch.Tensor | np.ndarray | float) -> None:
        """Compare a fully stored output within the case's own tolerance."""
        spec = next(s for s in self.case["outputs"] if s["name"] == name)
        value = got.detach().numpy() if isinstance(got, torch.Tensor) else np.asarray(got)
        np.testing.assert_allclose(value, self.npz[name], atol=spec["atol"], rtol=spec["rtol"])
