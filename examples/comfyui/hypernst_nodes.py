"""HyperNST as nodes of ComfyUI: put this file into ComfyUI/custom_nodes/, and `pip install hypernst` beside ComfyUI.

Load a portrait and styles, stylise by region, refine. Images go to and from other nodes as ComfyUI has them, float
[1, H, W, 3] in [0, 1]. Weights are for research use only.
"""

from functools import cache
from typing import Any

import numpy as np
import torch

import hypernst

CATEGORY = "HyperNST"
REGIONS = ("hair", "face", "background")
STRENGTH = ("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.01})


@cache
def studio(profile: str = "portable") -> hypernst.Studio:
    """One studio for all nodes: what it computed once is there for the next run of a graph."""
    return hypernst.load(profile)


def to_array(image: torch.Tensor) -> np.ndarray:
    """ComfyUI's image, the first of its batch, as RGB u8 [H, W, 3]."""
    return (image[0, ..., :3].clamp(0, 1) * 255).round().byte().cpu().numpy()


def to_image(picture: Any) -> torch.Tensor:
    """A PIL image as ComfyUI has them."""
    return torch.from_numpy(np.asarray(picture, np.float32) / 255)[None]


class LoadPortrait:
    """Finds the face in an image and prepares it; `face` 0 is the largest, others count from the left."""

    CATEGORY, FUNCTION, RETURN_TYPES = CATEGORY, "load", ("HYPERNST_PORTRAIT",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What ComfyUI asks for."""
        return {"required": {"image": ("IMAGE",), "face": ("INT", {"default": 0, "min": 0, "max": 99})}}

    def load(self, image: torch.Tensor, face: int) -> tuple[Any]:
        """The portrait."""
        return (studio().read(to_array(image), face=face or None, no_face="keep"),)


class LoadStyle:
    """Reads the style of an image, portrait or not."""

    CATEGORY, FUNCTION, RETURN_TYPES = CATEGORY, "load", ("HYPERNST_STYLE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What ComfyUI asks for."""
        return {"required": {"image": ("IMAGE",)}}

    def load(self, image: torch.Tensor) -> tuple[Any]:
        """The style."""
        return (studio().read(to_array(image), style=True),)


class StyliseByRegion:
    """Hair, face and background each in a style, at a strength; a region without a style stays as it is."""

    CATEGORY, FUNCTION, RETURN_TYPES = CATEGORY, "stylise", ("IMAGE", "HYPERNST_LOOK")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What ComfyUI asks for."""
        strengths = {f"{region}_strength": STRENGTH for region in REGIONS}
        styles = dict.fromkeys(REGIONS, ("HYPERNST_STYLE",))
        return {"required": {"portrait": ("HYPERNST_PORTRAIT",), **strengths}, "optional": styles}

    def stylise(self, portrait: Any, **given: Any) -> tuple[torch.Tensor, Any]:
        """The picture, and the look for further nodes."""
        styles = {region: given[region] for region in REGIONS if given.get(region) is not None}
        look = studio().look(styles, {region: given[f"{region}_strength"] for region in styles})
        return to_image(studio().render(portrait, look)), look


class Refine:
    """Optimises a stylised portrait for some steps: person and strokes come closer."""

    CATEGORY, FUNCTION, RETURN_TYPES = CATEGORY, "refine", ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """What ComfyUI asks for."""
        steps = ("INT", {"default": 10, "min": 0, "max": 100})
        return {"required": {"portrait": ("HYPERNST_PORTRAIT",), "look": ("HYPERNST_LOOK",), "steps": steps}}

    def refine(self, portrait: Any, look: Any, steps: int) -> tuple[torch.Tensor]:
        """The picture."""
        return (to_image(studio().render(portrait, look, studio().steps(steps))),)


NODE_CLASS_MAPPINGS = {f"HyperNST{node.__name__}": node for node in (LoadPortrait, LoadStyle, StyliseByRegion, Refine)}
NODE_DISPLAY_NAME_MAPPINGS = {
    "HyperNSTLoadPortrait": "Load portrait (HyperNST)",
    "HyperNSTLoadStyle": "Load style (HyperNST)",
    "HyperNSTStyliseByRegion": "Stylise by region (HyperNST)",
    "HyperNSTRefine": "Refine (HyperNST)",
}
