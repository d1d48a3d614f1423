"""A profile says what is computed: a TOML file read into frozen dataclasses, validated once, kept in every artefact."""

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pipeline.errors import Fault

FOLDER = Path(__file__).resolve().parent.parent / "profiles"


@dataclass(frozen=True)
class Generator:
    """The frozen image generator; `size` is the working resolution, `head` the fitted output cut ("" for none)."""

    kind: str
    size: int
    weights: str
    head: str


@dataclass(frozen=True)
class Align:
    """Face alignment; `source_size` is the resolution kept in the cache, `size` the one models see."""

    size: int
    source_size: int
    detector: str
    jpeg_quality: int
    no_face: str


@dataclass(frozen=True)
class Inverter:
    """The encoder from an image to the generator's latent, refined in `passes`, then by `steps` of gradient descent."""

    weights: str
    passes: int
    steps: int


@dataclass(frozen=True)
class Parser:
    """The segmenter: `kind` of network, and which of its labels, by name, are hair and face; the rest is background."""

    kind: str
    weights: str
    hair: tuple[str, ...]
    face: tuple[str, ...]


@dataclass(frozen=True)
class Aladin:
    """Style codes: `patches` windows of `patch` px a region whose coverage is at least `coverage`, else `relaxed`.

    The network sees a window at `input_size` px and the whole picture at `whole_size`; its `kind` is "imagenet" (a head
    on the VGG16 that LPIPS reads), "vgg16" or "vit", the published ones.
    """

    kind: str
    weights: str
    patch: int
    patches: int
    coverage: float
    relaxed: float
    input_size: int
    whole_size: int


@dataclass(frozen=True)
class Shards:
    """Packing: a tar is closed before it would pass `max_mb`; `test_fraction` of the keys, by hash, is held out."""

    max_mb: float
    test_fraction: float


@dataclass(frozen=True)
class Train:
    """The hypernetwork and its training (paper section 3).

    `heads` are "channel" (a shift a channel, the paper's), "separable" (that and `rank` separable terms) or
    "hyperstyle" (HyperStyle's trunk and heads, without `width` and `rank`; its published `weights` are a start).
    `losses_at` "each" takes the losses after every refinement (the paper's), "one" after one drawn a step.
    `reconstruct_styles` False has reconstruction see contents alone: for styles whose latents are too rough a start.
    `start_layer` is the row of the generator's layer table from which stylisation trains, or the resolution of the
    first such row ("32px"). `micro_batch` samples go through the networks at once; the rates rise over `warm_up` steps.
    The critics act in every `critics_every`-th step, with so many times the weight lambda2. `identity` weights the
    distance in reconstruction by ArcFace; `style` and `content` the auxiliary VGG16 term (0: off, the paper's).
    `mask_condition` and `mask_loss` are Table 4's switches: codes arranged by region, patches matched by region.
    `region_deltas` gives every region deltas of its own that act where it lies (false: everywhere, the paper's).
    `precision` "bfloat16" runs hypernetwork and generator in it; `checkpointing` recomputes their activations.
    Every `validate_every` steps (0: never) a fixed grid is drawn and measured.
    """

    weights: str
    heads: str
    width: int
    rank: int
    refinements: int
    losses_at: str
    start_layer: int | str
    batch: int
    micro_batch: int
    reconstruction_steps: int
    stylisation_steps: int
    learning_rate: float
    critic_learning_rate: float
    critics_every: int
    ema: float
    lambda1: float
    lambda2: float
    lpips: float
    identity: float
    identity_weights: str
    style: float
    content: float
    mask_condition: bool
    mask_loss: bool
    region_deltas: bool
    patches: int
    patch: int
    patch_critic_width: float
    image_critic_base: int
    reconstruction_every: int
    reconstruct_styles: bool
    warm_up: int
    validate_every: int
    precision: str
    checkpointing: bool


@dataclass(frozen=True)
class Eval:
    """The evaluation grid: at most so many contents and styles."""

    contents: int
    styles: int


@dataclass(frozen=True)
class Profile:
    """Everything that decides a result besides the pictures and the weights."""

    name: str
    seed: int
    generator: Generator
    align: Align
    inverter: Inverter
    parser: Parser
    aladin: Aladin
    shards: Shards
    train: Train
    eval: Eval

    def section_dict(self, section: str) -> dict[str, Any]:
        """One section as plain values, for a stage's `params`."""
        return dataclasses.asdict(getattr(self, section))


def load(name_or_path: str | Path) -> Profile:
    """Read a profile by name (a file in profiles/) or path.

    Raises: Fault(status 2) naming the key that is unknown, missing or of the wrong type.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = FOLDER / f"{name_or_path}.toml"
    try:
        table = tomllib.loads(path.read_text())
    except FileNotFoundError:
        known = ", ".join(sorted(p.stem for p in FOLDER.glob("*.toml")))
        raise Fault(f"no profile {str(name_or_path)!r}: expected a .toml file or one of {known}", 2) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise Fault(f"{path}: not a TOML file ({e})", 2) from e
    return _build(Profile, table, "", path)


def _build(cls: type, table: dict[str, Any], prefix: str, path: Path) -> Any:
    """Fill the dataclass `cls` from `table`, strictly; `prefix` is the section's name with a dot."""
    fields = {f.name: f.type for f in dataclasses.fields(cls)}
    for key in table:
        if key not in fields:
            raise Fault(f"{path}: unknown key {prefix + key!r}; expected one of {', '.join(fields)}", 2)
    values = {}
    for key, kind in fields.items():
        if key not in table:
            raise Fault(f"{path}: missing key {prefix + key!r}; add it", 2)
        values[key] = _convert(kind, table[key], prefix + key, path)
    return cls(**values)


def _convert(kind: Any, value: Any, key: str, path: Path) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, dict):
            raise Fault(f"{path}: {key!r} is {value!r}; expected a [{key}] section", 2)
        return _build(kind, value, f"{key}.", path)
    if kind == tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            raise Fault(f"{path}: {key!r} is {value!r}; expected a list of names", 2)
        return tuple(value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) not in (get_args(kind) or (kind,)):
        raise Fault(f"{path}: {key!r} is {value!r}; expected {getattr(kind, '__name__', kind)}", 2)
    return value
