"""Image style transfer by optimisation (Gatys et al. 2016), as in the authors' notebook.

The image starts as the content and is optimised by L-BFGS, so that its VGG19 features stay near the content's at
relu4_2 and their Gram matrices come near the style's at relu1_1 … relu5_1.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import state_dicts

BLOCKS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))  # channels and convolutions of VGG19's blocks
STYLE = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")
CONTENT = "conv4_2"
MEAN = (0.40760392, 0.45795686, 0.48501961)  # BGR, of images in [0, 1]
CALLS, PER_STEP = 500, 20  # calls of the loss: the notebook ends with the first step after CALLS, so at 520
PUBLISHED = (*(1e3 / BLOCKS[i][0] ** 2 for i in range(5)), 1.0)  # the notebook's weights: STYLE's terms, then content
# The same for the normalised VGG19, found by eye at 128 and 160 px: the style terms of a photo and a drawing start
# about equal, and the sum is large enough for the tolerances of L-BFGS.
NORMALISED = (1e5, 1e5, 1e5, 1e5, 2e3, 1e4)
# Children of AdaIN's normalised VGG19 that are VGG19's convolutions, in order; child 0 only prepares the image.
CHILDREN = (2, 5, 9, 12, 16, 19, 22, 25, 29, 32, 35, 38, 42, 45, 48, 51)


def prepare(images: Tensor) -> Tensor:
    """What VGG19 of Caffe reads, BGR about 0 on a scale of 255, of RGB images [N, 3, H, W] in [0, 1]."""
    return (images.flip(1) - images.new_tensor(MEAN)[:, None, None]) * 255


def shown(prepared: Tensor) -> Tensor:
    """The RGB images in [0, 1] of `prepare`'s values, clamped."""
    return (prepared / 255 + prepared.new_tensor(MEAN)[:, None, None]).flip(1).clamp(0, 1)


def gram(features: Tensor) -> Tensor:
    """Mean products of channels [N, C, C] of features [N, C, H, W]."""
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / flat.shape[2]


class VGG19(nn.Module):
    """Simonyan's VGG19 with zero padding, up to relu5_1; reads `prepare`d images. `pool` is "max" or "avg"."""

    def __init__(self, pool: str = "max") -> None:
        super().__init__()
        if pool not in ("max", "avg"):
            raise ValueError(f"pool is {pool!r}; expected max or avg")
        self.pool, channels = F.max_pool2d if pool == "max" else F.avg_pool2d, 3
        for block, (width, depth) in enumerate(BLOCKS, 1):
            for i in range(1, depth + 1):
                self.add_module(f"conv{block}_{i}", nn.Conv2d(channels, width, 3, padding=1))
                channels = width

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """The activations of the convolutions named in STYLE and CONTENT, after their ReLU."""
        found: dict[str, Tensor] = {}
        for name, conv in self.named_children():
            if name.endswith("_1") and name != "conv1_1":
                x = self.pool(x, 2, 2)
            x = F.relu(conv(x))
            if name in (*STYLE, CONTENT):
                found[name] = x
            if name == STYLE[-1]:
                break
        return found


class Gatys(nn.Module):
    """Optimises an image for one content and one style; `weights` are PUBLISHED or NORMALISED, as `net` is."""

    def __init__(self, net: VGG19, weights: Sequence[float] = PUBLISHED) -> None:
        super().__init__()
        self.net, self.weights = net.requires_grad_(False).eval(), weights

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor], pool: str = "max") -> "Gatys":
        """From the published `vgg_conv.pth` (`conv1_1.weight` …), or from AdaIN's normalised VGG19 (`0.weight` …).

        Raises: ValueError naming the tensors that do not fit.
        """
        what = "VGG19"
        if normalised := "0.weight" in tensors:
            what = "the normalised VGG19"
            names = {f"{child}": name for child, name in zip(CHILDREN, state_dicts.build(VGG19)._modules, strict=True)}
            split = {name: name.rpartition(".") for name in tensors if not name.startswith("0.")}
            tensors = {f"{names.get(i, i)}.{leaf}": tensors[name] for name, (i, _, leaf) in split.items()}
        net = state_dicts.fill(state_dicts.build(VGG19, pool), tensors, what)
        return cls(net, NORMALISED if normalised else PUBLISHED)

    def targets(self, content: Tensor, style: Tensor) -> tuple[list[Tensor], Tensor]:
        """The Gram matrices of a prepared style, and the features at relu4_2 of a prepared content."""
        with torch.no_grad():
            features = self.net(style)
            return [gram(features[name]) for name in STYLE], self.net(content)[CONTENT]

    def losses(self, image: Tensor, grams: Sequence[Tensor], features: Tensor) -> Tensor:
        """The weighted terms [6] of a prepared image: style at STYLE's five layers, then content."""
        own = self.net(image)
        terms = [F.mse_loss(gram(own[name]), target) for name, target in zip(STYLE, grams, strict=True)]
        terms.append(F.mse_loss(own[CONTENT], features))
        return torch.stack(terms) * features.new_tensor(self.weights)

    def forward(
        self,
        content: Tensor,
        style: Tensor,
        *,
        calls: int = CALLS,
        on_step: Callable[[int, int], None] = lambda done, total: None,
    ) -> Tensor:
        """The content [1, 3, H, W] in the style [1, 3, h, w], all in [-1, 1].

        `calls` of the loss, rounded up to whole steps as in the notebook; `on_step(done, total)` follows each.
        """
        with torch.enable_grad():
            start, style = (prepare((x + 1) / 2) for x in (content, style))
            grams, features = self.targets(start, style)
            image = start.clone(memory_format=torch.contiguous_format).requires_grad_()  # L-BFGS needs it flat
            optimiser = torch.optim.LBFGS([image], lr=1, max_iter=min(PER_STEP, calls))
            total = PER_STEP * (calls // PER_STEP + 1) if calls >= PER_STEP else calls
            made = itertools.count(1)

            def closure() -> float:
                optimiser.zero_grad()
                loss = self.losses(image, grams, features).sum()
                loss.backward()
                on_step(next(made), total)
                return float(loss.detach())

            for _ in range(max(1, total // PER_STEP)):
                optimiser.step(closure)
        return shown(image.detach()) * 2 - 1
