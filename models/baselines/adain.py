"""AdaIN style transfer (Huang & Belongie 2017): the feed-forward baseline, and augmentation for training data."""

from collections.abc import Mapping

from torch import Tensor, nn

from models.baselines.vgg19 import Decoder, Encoder, moments, normalised, symmetric, unit


class AdaIN(nn.Module):
    """The published encoder (VGG19 to relu4_1) and decoder, frozen.

    `encoder` and `decoder` are the state dicts of the original sequentials; the encoder's deeper layers are ignored.
    None leaves random weights, for tests. Raises: ValueError naming the tensors that do not fit.
    """

    def __init__(
        self, encoder: Mapping[str, Tensor] | None = None, decoder: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__()
        self.encoder = Encoder() if encoder is None else Encoder.load(encoder, 4)
        self.decoder = Decoder() if decoder is None else Decoder.load(decoder)
        self.requires_grad_(False).eval()

    def encode(self, images: Tensor) -> Tensor:
        """relu4_1 [N, 512, H / 8, W / 8] of images [N, 3, H, W] in [-1, 1]."""
        return self.encoder(unit(images))

    def decode(self, features: Tensor) -> Tensor:
        """Images [N, 3, H, W] in [-1, 1] of relu4_1 features."""
        images = self.decoder(features)
        return symmetric(images, images)

    def forward(self, content: Tensor, style: Tensor, *, alpha: float = 1.0) -> Tensor:
        """Give content [N, 3, H, W] the feature moments of style [N or 1, 3, h, w]; both in [-1, 1]; alpha 0..1."""
        return self.transfer(self.encode(content), moments(self.encode(style)), alpha=alpha)

    def transfer(self, features: Tensor, style: tuple[Tensor, Tensor], *, alpha: float = 1.0) -> Tensor:
        """`forward` on the content's `encode` and the style's `moments`, so that a grid of pairs computes each once."""
        moved = normalised(features) * style[1] + style[0]
        return self.decode(alpha * moved + (1 - alpha) * features)
