"""AdaIN style transfer (Huang & Belongie 2017): the feed-forward baseline, and augmentation for training data."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

# Index of each layer in the published `nn.Sequential`s: P reflection padding, R rectifier, M max-pool, U upsampling.
ENCODER = "1 P64 R P64 R M P128 R P128 R M P256 R P256 R P256 R P256 R M P512 R"
DECODER = "P256 R U P256 R P256 R P256 R P128 R U P128 R P64 R U P64 R P3"


def _stack(plan: str, channels: int) -> nn.Sequential:
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
    return nn.Sequential(*layers)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and std per channel of x [N, C, H, W], each [N, C, 1, 1]."""
    var, mean = torch.var_mean(x, (2, 3), keepdim=True)
    return mean, (var + 1e-5).sqrt()


class AdaIN(nn.Module):
    """The published encoder (VGG19 to relu4_1) and decoder, frozen.

    `encoder` and `decoder` are the state dicts of the original sequentials; the encoder's deeper layers are ignored.
    None leaves random weights, for tests.
    """

    def __init__(
        self, encoder: Mapping[str, Tensor] | None = None, decoder: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__()
        self.encoder, self.decoder = _stack(ENCODER, 3), _stack(DECODER, 512)
        if encoder is not None:
            self.encoder.load_state_dict({k: v for k, v in encoder.items() if int(k.split(".")[0]) < len(self.encoder)})
        if decoder is not None:
            self.decoder.load_state_dict(dict(decoder))
        self.requires_grad_(False).eval()

    def encode(self, images: Tensor) -> Tensor:
        """relu4_1 [N, 512, H / 8, W / 8] of images [N, 3, H, W] in [-1, 1]."""
        return self.encoder((images + 1) / 2)

    def decode(self, features: Tensor) -> Tensor:
        """Images [N, 3, H, W] in [-1, 1] of relu4_1 features."""
        return (self.decoder(features) * 2 - 1).clamp(-1, 1)

    def forward(self, content: Tensor, style: Tensor, *, alpha: float = 1.0) -> Tensor:
        """Give content [N, 3, H, W] the feature moments of style [N or 1, 3, h, w]; both in [-1, 1]; alpha 0..1."""
        return self.transfer(self.encode(content), moments(self.encode(style)), alpha=alpha)

    def transfer(self, features: Tensor, style: tuple[Tensor, Tensor], *, alpha: float = 1.0) -> Tensor:
        """`forward` on the content's `encode` and the style's `moments`, so that a grid of pairs computes each once."""
        mean, std = moments(features)
        moved = (features - mean) / std * style[1] + style[0]
        return self.decode(alpha * moved + (1 - alpha) * features)
