"""The paintings whose codes ship with the program, so that there are styles to search before anything is computed.

Their codes are in weights/portable/painting-codes.safetensors; `hypernst styles codes` computes them. They count only
for the pictures they were computed of, by sha256, and for the stages and weights that they were computed by.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.regions import REGIONS
from pipeline import weights
from pipeline.context import Context
from pipeline.files import write_atomic
from pipeline.hashing import digest, short_hash
from pipeline.progress import Progress, say
from stages.portraits.kept import KeptPortraits
from stages.portraits.reader import PortraitReader
from stages.preprocess.samples import paintings, slug
from stages.styles.blocks import WHOLE, Block, unit

CODES, PICTURES = "painting-codes", "paintings"  # names of weights
OUTPUT = weights.SHIPPED / f"{CODES}.safetensors"


@dataclass(frozen=True)
class Painting:
    """A picture of the library: its file in the package, and the sha256 and the cache's digest of what is in it."""

    key: str
    title: str
    file: str
    sha256: str
    digest: str

    def read(self) -> bytes:
        """The picture's file. Raises: UserError when it cannot be had."""
        return (weights.path(PICTURES) / self.file).read_bytes()


@dataclass(frozen=True)
class Library:
    """Paintings, their codes f16 [N, 4, 256] and palettes f16 [N, 4, 4] of hair, face, background and the whole image.

    `valid` bool [N, 3] says which regions they have. `recipe` stands for the stages and weights that made them.
    """

    recipe: str
    paintings: Sequence[Painting]
    codes: np.ndarray
    palettes: np.ndarray
    valid: np.ndarray

    def write(self, output: Path) -> None:
        """Write it as the weights that `shipped` reads."""
        from safetensors.numpy import save

        about = {"name": CODES, "recipe": self.recipe, "paintings": [vars(painting) for painting in self.paintings]}
        arrays = {"codes": self.codes, "palettes": self.palettes, "valid": self.valid.astype(np.uint8)}
        write_atomic(output, save(arrays, {"about": json.dumps(about)}))

    def is_current(self, ctx: Context) -> bool:
        """Whether the profile's stages and weights would give these codes."""
        return self.recipe == recipe(ctx)

    def block(self, region: str = WHOLE, without: frozenset[str] = frozenset()) -> Block:
        """The paintings that have the region, less those whose file has a digest of `without`."""
        index = len(REGIONS) if region == WHOLE else REGIONS.index(region)
        has = np.ones(len(self.paintings), bool) if region == WHOLE else self.valid[:, index]
        rows = [i for i, painting in enumerate(self.paintings) if has[i] and painting.digest not in without]
        chosen = [self.paintings[i] for i in rows]
        return Block([p.key for p in chosen], [p.title for p in chosen], unit(self.codes[rows, index]))


def shipped() -> Library:
    """The library that ships with the program. Raises: UserError when its file is not there."""
    about, stored = weights.about(CODES), weights.arrays(CODES)
    paintings = [Painting(**told) for told in about["paintings"]]
    return Library(about["recipe"], paintings, stored["codes"], stored["palettes"], stored["valid"].astype(bool))


def recipe(ctx: Context) -> str:
    """What stands for the stages and weights that codes of style images are computed by."""
    return short_hash(json.dumps([step.recipe() for step in PortraitReader(ctx).steps("style")]))


def compute(ctx: Context, output: Path = OUTPUT) -> int:
    """Compute the codes of all paintings and write them; those that were read before are kept in CACHE/portraits.

    Raises: UserError when the paintings or the networks cannot be had.
    """
    reader = PortraitReader(ctx, KeptPortraits(ctx))
    titles = _titles()
    progress = Progress("paintings", len(titles))
    read = []
    for file, title in titles.items():
        read.append(embed(reader, file, title))
        progress.add(1)
    progress.close()
    paintings, codes, palettes, valid = zip(*read, strict=True)
    Library(recipe(ctx), paintings, np.stack(codes), np.stack(palettes), np.stack(valid)).write(output)
    say(f"styles codes: {len(paintings)} paintings in {output}")
    return 0


def embed(reader: PortraitReader, file: str, title: str) -> tuple[Painting, np.ndarray, np.ndarray, np.ndarray]:
    """A painting, its codes f16 [4, 256], its palette f16 [4, 4] and which regions it has, bool [3]."""
    data = (weights.path(PICTURES) / file).read_bytes()
    style = reader(data, file, "style")
    key = f"{slug(title)}-{Path(file).stem}"
    painting = Painting(key, title, file, hashlib.sha256(data).hexdigest(), digest(data).hex())
    palette = np.asarray(style.palette, np.float16)
    return painting, style.codes.astype(np.float16), palette, style.valid


def _titles() -> dict[str, str]:
    """Each painting's file and what it is called, in order of the file's name."""
    return {file: _title(entry) for file, entry in paintings(weights.path(PICTURES)).items()}


def _title(entry: dict[str, str]) -> str:
    parts = (entry["artistDisplayName"], entry["title"], entry["objectDate"])
    return ", ".join(" ".join(part.split()) for part in parts if part)
