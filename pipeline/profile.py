"""Profiles say what is computed: a TOML file is read into frozen dataclasses and checked once.

`profiles/portable.toml` explains every key. The defaults here are its values; another profile holds what differs.
"""

import errno
import tomllib
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pipeline.errors import UserError
from pipeline.files import read_error, read_plain

FOLDER = Path(__file__).resolve().parent.parent / "profiles"
DEPTH = 8  # longest chain of profiles that extend one another
RENAMED = {
    "inverter.passes": "inverter.iterations",
    "train.refinements": "train.refinement_iterations",
    "train.stylisation_steps": "train.stylization_steps",
    "train.critic_learning_rate": "train.discriminator_learning_rate",
    "train.critics_every": "train.discriminators_every",
    "train.patch_critic_width": "train.patch_discriminator_width",
    "train.image_critic_base": "train.image_discriminator_base",
}


@dataclass(frozen=True)
class Range:
    """The range of a number: from `least` to `most`, both included."""

    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.least:g} to {self.most:g}"


Count = Annotated[int, Range(0, 1e9)]
Positive = Annotated[int, Range(1, 1e9)]
Times = Annotated[int, Range(1, 100)]  # of what is done again and again to one image
Side = Annotated[int, Range(1, 8192)]  # pixels
Weight = Annotated[float, Range(0, 1e9)]
Share = Annotated[float, Range(0, 1)]
NoFace = Literal["reject", "keep"]


@dataclass(frozen=True)
class Generator:
    """The frozen image generator; `head` names the fitted output head ("" for none), `size` is in pixels."""

    kind: str = "mobilestylegan"
    size: Literal[32, 64, 128, 256, 512, 1024] = 256
    weights: str = "mobilestylegan"
    head: str = "head256"


@dataclass(frozen=True)
class Align:
    """Face alignment; sizes are in pixels."""

    size: Side = 256
    source_size: Side = 512
    detector: str = "yunet"
    jpeg_quality: Annotated[int, Range(1, 100)] = 95
    no_face: NoFace = "reject"


@dataclass(frozen=True)
class Inverter:
    """The encoder from an image to the generator's latent, and the optimisation steps after it."""

    weights: str = "inverter"
    iterations: Times = 2
    steps: Annotated[int, Range(0, 10_000)] = 19


@dataclass(frozen=True)
class Parser:
    """Face parsing: the network, and which of its labels are hair and face; all other labels are background."""

    kind: str = "portrait"
    weights: str = "parser"
    hair: tuple[str, ...] = ("hair",)
    face: tuple[str, ...] = ("face",)


@dataclass(frozen=True)
class Aladin:
    """Style codes: the network, and the windows whose codes are averaged."""

    kind: str = "imagenet"
    weights: str = "aladin"
    patch: Side = 64
    patches: Times = 8
    coverage: Share = 0.7
    relaxed: Share = 0.5
    input_size: Annotated[int, Range(32, 1024)] = 64
    whole_size: Annotated[int, Range(32, 1024)] = 192


@dataclass(frozen=True)
class Shards:
    """Packing of samples into shards."""

    max_mb: Annotated[float, Range(0.001, 1e6)] = 128.0
    test_fraction: Share = 0.1


@dataclass(frozen=True)
class Train:
    """The hypernetwork and its training (section 3 of the paper)."""

    weights: str = "hypernet"
    heads: Literal["channel", "separable", "hyperstyle"] = "separable"
    trunk: str = ""
    project_content: bool = True
    width: Annotated[int, Range(1, 1024)] = 32
    rank: Annotated[int, Range(0, 512)] = 4
    refinement_iterations: Times = 1
    losses_at: Literal["each", "one"] = "one"
    start_layer: int | str = 5
    batch: Annotated[int, Range(1, 1024)] = 1
    micro_batch: Annotated[int, Range(0, 1024)] = 1
    reconstruction_steps: Count = 900
    stylization_steps: Count = 5900
    learning_rate: Weight = 3e-4
    discriminator_learning_rate: Weight = 1e-3
    discriminators_every: Positive = 4
    ema: Share = 0.99
    lambda1: Weight = 2.0
    lambda2: Weight = 0.05
    lpips: Weight = 0.8
    identity: Weight = 0.0
    identity_weights: str = ""
    style: Weight = 6.0
    content: Weight = 1.0
    mask_condition: bool = True
    mask_loss: bool = True
    region_deltas: bool = True
    patches: Times = 3
    patch: Literal[8, 16, 32, 64, 128, 256, 512, 1024] = 32
    patch_discriminator_width: Annotated[float, Range(0.01, 4)] = 0.25
    image_discriminator_base: Annotated[int, Range(1, 131_072)] = 2048
    reconstruction_every: Positive = 2
    reconstruct_styles: bool = False
    flips: bool = False
    warm_up: Count = 0
    cool_down: Count = 0
    discriminators_first: Count = 0
    image_discriminator: str = ""
    patch_discriminator: str = ""
    validate_every: Count = 200
    precision: Literal["float32", "bfloat16"] = "float32"
    checkpointing: bool = False


@dataclass(frozen=True)
class Render:
    """What is done to what the networks draw."""

    palette: bool = True
    details: Share = 0.7


@dataclass(frozen=True)
class Editing:
    """Semantic editing: the weights that hold directions of the generator's W."""

    directions: tuple[str, ...] = ("directions",)


@dataclass(frozen=True)
class Eval:
    """The grid's contents and styles at most, the pairs for methods that optimise each (`budget`), SIFID's network."""

    contents: Positive = 4
    styles: Positive = 4
    budget: Count = 0
    sifid: Literal["inception-fid", "inception-imagenet"] = "inception-fid"


@dataclass(frozen=True)
class Baselines:
    """The training of the methods to compare with; `batch` 0 is the published size."""

    crop: Side = 128
    batch: Annotated[int, Range(0, 1024)] = 2
    steps: Positive = 3000
    warm_up: Count = 100
    decoder: str = "adain-decoder"
    transformer: str = ""
    precision: Literal["float32", "bfloat16"] = "float32"
    sae_capacity: Annotated[float, Range(0.02, 2)] = 0.25


@dataclass(frozen=True)
class Profile:
    """All settings that decide a result, besides the images and the weights."""

    name: str
    seed: Annotated[int, Range(0, 1e15)] = 0
    generator: Generator = field(default_factory=Generator)
    align: Align = field(default_factory=Align)
    inverter: Inverter = field(default_factory=Inverter)
    parser: Parser = field(default_factory=Parser)
    aladin: Aladin = field(default_factory=Aladin)
    shards: Shards = field(default_factory=Shards)
    train: Train = field(default_factory=Train)
    render: Render = field(default_factory=Render)
    editing: Editing = field(default_factory=Editing)
    eval: Eval = field(default_factory=Eval)
    baselines: Baselines = field(default_factory=Baselines)

    def section_dict(self, section: str) -> dict[str, Any]:
        """One section as plain values, for the `params` of a stage."""
        return asdict(getattr(self, section))


def load(name_or_path: str | Path) -> Profile:
    """Read a profile by name (a file in profiles/) or by path, and the profiles that it extends.

    Raises: UserError(2) when a file is missing, or a key is unknown or has a wrong type or value.
    """
    chain: list[tuple[Path, dict[str, Any]]] = []
    next_name: str | Path | None = name_or_path
    while next_name is not None:
        if len(chain) == DEPTH:
            raise UserError(f"{chain[0][0]}: extends more than {DEPTH} profiles, or itself; end the chain", 2)
        path, table = _read(next_name, chain[-1][0] if chain else None)
        next_name = table.pop("extends", None)
        if not isinstance(next_name, str | None):
            raise UserError(f"{path}: 'extends' is {next_name!r}; expected a profile's name or a .toml file", 2)
        chain.append((path, table))
    if not isinstance(chain[0][1].get("name"), str):
        raise UserError(f"{chain[0][0]}: missing key 'name'; give this profile its own name", 2)
    result = Profile(name="")
    for path, table in reversed(chain):
        result = _changed(result, table, "", path)
    return result


def _read(name_or_path: str | Path, extending: Path | None) -> tuple[Path, dict[str, Any]]:
    """The file of a profile, and its table; a path in `extends` is relative to the folder of the `extending` file."""
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = FOLDER / f"{name_or_path}.toml"
    elif extending is not None:
        path = extending.parent / path
    try:
        return path, tomllib.loads(read_plain(path).decode("utf-8-sig"))
    except (FileNotFoundError, IsADirectoryError):
        names = ", ".join(sorted(p.stem for p in FOLDER.glob("*.toml")))
        where = f"{extending}: extends " if extending else ""
        said = f"{where}no profile {str(name_or_path)!r}: expected a .toml file or one of {names}"
        raise UserError(said, 2) from None
    except UserError:
        raise UserError(f"{path}: is not a plain file; expected a .toml file", 2) from None
    except OSError as e:
        raise UserError(str(read_error(e.errno or errno.EIO, path)), 2) from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as e:
        raise UserError(f"{path}: not a TOML file ({e}); correct it", 2) from e


def _changed(section: Any, table: dict[str, Any], prefix: str, path: Path) -> Any:
    """The dataclass `section` with the values of `table`; `prefix` is the name of the section with a dot."""
    types, values = {f.name: f.type for f in fields(section)}, dict[str, Any]()
    for key, value in table.items():
        name = prefix + key
        if key not in types:
            known = f"expected one of {', '.join(types)}"
            way_out = f"it is called {RENAMED[name]!r} now" if name in RENAMED else known
            raise UserError(f"{path}: unknown key {name!r}; {way_out}", 2)
        if is_dataclass(types[key]):
            if not isinstance(value, dict):
                raise UserError(f"{path}: {name!r} is {value!r}; expected a [{name}] section", 2)
            values[key] = _changed(getattr(section, key), value, f"{name}.", path)
        else:
            values[key] = _checked(types[key], value, name, path)
    return replace(section, **values)


def _checked(kind: Any, value: Any, key: str, path: Path) -> Any:
    """The value as the annotated type `kind`. Raises: UserError(2) when it has another type, or is out of range."""
    kind, *limits = get_args(kind) if get_origin(kind) is Annotated else (kind,)
    allowed: Any = getattr(kind, "__name__", str(kind).replace(" | ", " or "))
    if kind == tuple[str, ...]:
        fits, allowed = isinstance(value, list) and all(isinstance(entry, str) for entry in value), "a list of names"
        value = tuple(value) if fits else value
    elif get_origin(kind) is Literal:
        names = [repr(choice) for choice in get_args(kind)]
        fits, allowed = repr(value) in names, " or ".join(names)
    else:
        value = float(value) if kind is float and type(value) is int else value
        fits = type(value) in (get_args(kind) or (kind,))
        for limit in limits:
            fits, allowed = fits and limit.least <= value <= limit.most, f"{allowed}, {limit}"
    if not fits:
        raise UserError(f"{path}: {key!r} is {value!r}; expected {allowed}", 2)
    return value
