"""Reads the numeric parity cases beside the checkout; tests that use them are skipped where they are missing."""

import json
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

ROOT = Path(os.environ.get("HYPERNST_SHARED", Path(__file__).parents[3] / "shared")) / "goldens"


def fill(salt: str, key: str, spec: dict[str, Any]) -> np.ndarray:
    """The array that the rule `spec` of a case gives to `key`."""
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
    """A golden case: its tensors, its inputs, and the comparison with its outputs."""

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

    def published(self) -> dict[str, object]:
        """The content of the file as its author publishes it: prefixed keys under the root, extra tensors beside it."""
        layout, tensors = self.case["checkpoint_layout"], self.tensors()
        extra = {name: tensors.pop(name) for name in layout["extra"]}
        state = {layout["prefix"] + name: tensor for name, tensor in tensors.items()}
        if layout["root"] is None:
            return state | extra
        return {layout["root"]: state, **extra, **({"opts": layout["opts"]} if "opts" in layout else {})}

    def input(self, name: str) -> Any:
        """An input by name; None where the call passes None."""
        spec = next(s for s in self.case["inputs"] if s["name"] == name)
        if spec["kind"] in ("none", "stored"):
            return None if spec["kind"] == "none" else self.npz[f"input/{name}"]
        return fill(self.case["salt"], f"input:{name}", spec)

    def check(self, name: str, got: torch.Tensor | np.ndarray | float) -> None:
        """Compare every stored part of an output, within the tolerance of the case."""
        parts = [spec for spec in self.case["outputs"] if spec["of"] == name]
        if not parts:
            raise KeyError(f"{self.case['case']} has no output {name!r}")
        full = got.detach().cpu().numpy() if isinstance(got, torch.Tensor) else np.asarray(got)
        for spec in parts:
            assert list(full.shape) == spec["shape"], (name, full.shape, spec["shape"])
            value, expected = _view(full, spec["stored"]), self.npz[spec["name"]]
            np.testing.assert_allclose(value, expected, atol=spec["atol"], rtol=spec["rtol"], err_msg=spec["name"])


def _view(full: np.ndarray, stored: dict[str, Any]) -> np.ndarray:
    if stored["op"] == "full":
        return full
    if stored["op"] == "slice":
        return full[(..., *(slice(*part) for part in stored["trailing"]))]
    return getattr(np.asarray(full, np.float64), stored["op"])(axis=tuple(stored["axes"]))
