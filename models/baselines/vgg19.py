"""What the methods on VGG19 share: AdaIN's normalised encoder, its mirrored decoder, and statistics of features.

`vgg_normalised.pth` is Simonyan's VGG19, scaled so that each channel's mean activation is 1, with reflection padding
and a first 1x1 convolution that takes RGB in [0, 1] to what Caffe's networks read.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models import recompute, state_dicts

# Children of the published `nn.Sequential`s: P reflection padding and convolution, R ReLU, M max-pool, U upsampling.
ENCODER = (
    "1 P64 R P64 R M P128 R P128 R M P256 R P256 R P256 R P256 R M "
    "P512 R P512 R P512 R P512 R M P512 R P512 R P512 R P512 R"
)
DECODER = "P256 R U P256 R P256 R P256 R P128 R U P128 R P64 R U P64 R P3"
TAPS = (3, 10, 17, 30, 43)  # children that give relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1
EPSILON = 1e-5


def _stack(plan: str, channels: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for word in plan.split():
        if word == "1":
            layers.append(nn.Conv2d(channels, channels, 1))
        elif word == "R":
            layers.append(nn.ReLU())
        elif word == "M":
            layers.append(nn.MaxPool2d(2, 2, ceil_mode=True))
        elif word == "U":
            layers.append(nn.Upsample(scale_factor=2, mode="nearest"))
        else:
            width = int(word[1:])
            layers += [nn.ReflectionPad2d(1), nn.Conv2d(channels, width, 3)]
            channels = width
    return layers


class Encoder(nn.Sequential):
    """The normalised VGG19 up to relu{depth}_1: images [N, 3, H, W] in [0, 1] to features [N, C, h, w].

    A side n becomes ceil(n / 2) at each of the depth - 1 poolings.
    """

    def __init__(self, depth: int = 4) -> None:
        super().__init__(*_stack(ENCODER, 3)[: TAPS[depth - 1] + 1])

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor], depth: int = 5) -> "Encoder":
        """The published encoder, frozen; layers beyond relu{depth}_1 may be missing, others may not.

        Raises: ValueError naming the tensors that do not fit.
        """
        net = state_dicts.build(cls, depth)
        with torch.device("meta"):
            whole = nn.Sequential(*_stack(ENCODER, 3))
        deeper = state_dicts.shapes(whole).keys() - state_dicts.shapes(net).keys()
        kept = {name: tensor for name, tensor in tensors.items() if name not in deeper}
        return state_dicts.fill(net, kept, "the normalised VGG19")

    def taps(self, images: Tensor) -> list[Tensor]:
        """relu1_1, relu2_1, … as deep as this encoder goes, of images [N, 3, H, W] in [0, 1]."""
        found = []
        for i, layer in enumerate(self):
            images = layer(images)
            if i in TAPS:
                found.append(images)
        return found


class Decoder(nn.Sequential):
    """The mirror of the encoder: relu4_1 features [N, 512, h, w] to images [N, 3, 8 h, 8 w], not clamped to [0, 1]."""

    def __init__(self) -> None:
        super().__init__(*_stack(DECODER, 512))

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> "Decoder":
        """A published decoder, frozen. Raises: ValueError naming the tensors that do not fit."""
        return state_dicts.fill(state_dicts.build(cls), tensors, "a decoder of VGG19 features")


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and std (unbiased) per channel of x [N, C, H, W], each [N, C, 1, 1]."""
    var, mean = torch.var_mean(x, (2, 3), keepdim=True)
    return mean, (var + EPSILON).sqrt()


def normalised(x: Tensor) -> Tensor:
    """x [N, C, H, W] with mean 0 and std 1 per channel."""
    mean, std = moments(x)
    return (x - mean) / std


def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """For each position of queries [N, D, H, W] the values [N, C, h, w] averaged by a softmax over their keys.

    keys [N, D, h, w]; the products are not scaled. Returns [N, C, H, W].
    """
    with recompute.full_precision(queries):  # rounded to 8 bits, large products would choose other positions
        queries, keys, values = (x.float() for x in (queries, keys, values))
        weights = (queries.flatten(2).transpose(1, 2) @ keys.flatten(2)).softmax(-1)
        mixed = values.flatten(2) @ weights.transpose(1, 2)
    return mixed.unflatten(2, queries.shape[2:])


def unit(images: Tensor) -> Tensor:
    """Images from [-1, 1], the project's range, to [0, 1], that of these networks."""
    return (images + 1) / 2


def symmetric(images: Tensor, like: Tensor) -> Tensor:
    """Images from [0, 1] to [-1, 1], clamped, and cropped to the height and width of `like`."""
    return (images[..., : like.shape[-2], : like.shape[-1]] * 2 - 1).clamp(-1, 1)
