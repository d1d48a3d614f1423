"""Portrait face parsers with published weights, networks by facexlib: BiSeNet and ParseNet, 19 classes each."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.state_dicts import build, fill, width

SIDE = 512
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of [0, 1] pictures


class Segmenter(nn.Module):
    """A frozen network with its own way to see a picture: RGB [N,3,H,W] in [-1,1] -> logits [N,C,H,W]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def prepare(self, images: Tensor) -> Tensor:
        """What the network wants for images in [-1, 1]: the same, unless a subclass says otherwise."""
        return images

    @torch.inference_mode()
    def logits(self, images: Tensor, size: int | None = None) -> Tensor:
        """Logits [N,C,H,W], or of side `size`, of RGB [N,3,H,W] in [-1,1], which the network sees at 512 px."""
        shape = images.shape[-2:] if size is None else (size, size)
        x = F.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True) if images.shape[-1] != SIDE else images
        found: Tensor = self.network(self.prepare(x))[0]
        return F.interpolate(found, shape, mode="bilinear", antialias=True)


class BiSeNet(Segmenter):
    """BiSeNet (Yu et al. 2018), trained on CelebAMask-HQ by zllrunning; the network's three outputs, main one first."""

    def prepare(self, images: Tensor) -> Tensor:
        """ImageNet's normalisation."""
        mean, deviation = (images.new_tensor(v).view(1, 3, 1, 1) for v in (MEAN, DEVIATION))
        return ((images + 1) / 2 - mean) / deviation

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> "BiSeNet":
        """From a published state dict, any number of classes. Raises: ValueError naming tensors that do not fit."""
        from facexlib.parsing.bisenet import BiSeNet as Network

        classes = width(tensors, "conv_out.conv_out.weight", "a BiSeNet")
        return cls(fill(build(Network, classes), tensors, "a BiSeNet"))


class ParseNet(Segmenter):
    """GFPGAN's ParseNet; the network answers with logits and a picture."""

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> "ParseNet":
        """From a published state dict, any number of classes. Raises: ValueError naming tensors that do not fit."""
        from facexlib.parsing.parsenet import ParseNet as Network

        classes = width(tensors, "out_mask_conv.conv2d.weight", "a ParseNet")
        return cls(fill(build(Network, SIDE, SIDE, parsing_ch=classes), tensors, "a ParseNet"))
