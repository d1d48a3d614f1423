"""Portrait face parsers with published weights, networks by facexlib: BiSeNet and ParseNet, 19 classes each."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.state_dicts import build, fill, needs_facexlib, width

SIDE = 512
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of images in [0, 1]


class FacexlibParser(nn.Module):
    """A frozen network and the normalisation it needs: RGB [N, 3, H, W] in [-1, 1] -> logits [N, C, H, W]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def prepare(self, images: Tensor) -> Tensor:
        """The network's input for images [N, 3, H, W] in [-1, 1]: the same, unless a subclass normalises them."""
        return images

    @torch.inference_mode()
    def logits(self, images: Tensor, size: int | None = None) -> Tensor:
        """Logits [N, C, H, W], or of side `size`, of RGB [N, 3, H, W] in [-1, 1]; the network reads 512 px."""
        shape = images.shape[-2:] if size is None else (size, size)
        x = F.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True) if images.shape[-1] != SIDE else images
        return F.interpolate(self.network(self.prepare(x))[0], shape, mode="bilinear", antialias=True)


class BiSeNet(FacexlibParser):
    """BiSeNet (Yu et al. 2018), trained on CelebAMask-HQ by zllrunning; the first of its three outputs is used."""

    def prepare(self, images: Tensor) -> Tensor:
        """ImageNet's normalisation."""
        mean, std = (images.new_tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
        return ((images + 1) / 2 - mean) / std

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> "BiSeNet":
        """Build from a published state dict with any number of classes.

        Raises: ValueError naming tensors that do not fit.
        """
        with needs_facexlib():
            from facexlib.parsing.bisenet import BiSeNet as Network

        classes = width(tensors, "conv_out.conv_out.weight", "a BiSeNet")
        return cls(fill(build(Network, classes), tensors, "a BiSeNet"))


class ParseNet(FacexlibParser):
    """GFPGAN's ParseNet, which gives logits and an image."""

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> "ParseNet":
        """Build from a published state dict with any number of classes.

        Raises: ValueError naming tensors that do not fit.
        """
        with needs_facexlib():
            from facexlib.parsing.parsenet import ParseNet as Network

        classes = width(tensors, "out_mask_conv.conv2d.weight", "a ParseNet")
        return cls(fill(build(Network, SIDE, SIDE, parsing_ch=classes), tensors, "a ParseNet"))
