"""Stylise one portrait in the style of one image, or of one image per region."""

from pathlib import Path

from models.regions import REGIONS
from pipeline import images
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.files import write_atomic
from pipeline.profile import NoFace
from pipeline.progress import say
from stages.apply.portrait import in_region
from stages.apply.reader import PortraitReader
from stages.apply.refine import Refinement
from stages.apply.stylist import Stylist
from stages.loaders import hypernetwork
from stages.preprocess import align

REFINE = 10  # steps of refinement unless others are asked for


def run(
    ctx: Context,
    *,
    content: Path,
    output: Path,
    style: Path | None = None,
    strength: float = 1.0,
    hair: Path | None = None,
    face: Path | None = None,
    background: Path | None = None,
    refine: int | None = None,
    no_face: NoFace | None = None,
    which: int | None = None,
) -> int:
    """Write the stylised portrait. `hair`, `face` and `background` override `style` in their region.

    `which` of several faces in the content is taken, counted from the left and from 1; None: the largest. `no_face`
    "keep" takes the central square of a content without a face.
    `refine` steps of refinement follow the prediction; None takes REFINE of them where refinement can be had.
    Raises: UserError when the options are wrong (2; checked before anything is loaded), or an image cannot be used (1).
    """
    if output.suffix.lower() not in images.SUFFIXES:
        raise UserError(f"{output}: expected an image's name, ending in {', '.join(images.SUFFIXES)}", 2)
    if not 0 <= strength <= 1:
        raise UserError(f"--strength is {strength:g}; expected 0 (the content's own style) to 1 (the full style)", 2)
    chosen = {name: path for name, path in zip(REGIONS, (hair, face, background), strict=True) if path is not None}
    if style is None and len(chosen) < len(REGIONS):
        missing = ", ".join(f"--{n}" for n in REGIONS if n not in chosen)
        raise UserError(
            f"there is no style for {missing}; name one with --style, or one for each of the three regions", 2
        )
    refinable = not chosen and strength == 1 and ctx.profile.train.refinement_iterations == 1
    if refine and not refinable:
        raise UserError(
            f"--refine is {refine}; refinement takes one style for all regions at full strength, and a profile with "
            "train.refinement_iterations = 1; leave --refine out, or the other options",
            2,
        )
    steps = REFINE if refine is None and refinable else refine or 0
    for path in filter(None, (content, style, *chosen.values())):
        if not path.is_file():
            raise UserError(f"{path}: is not a file; expected an image", 2)
    read = PortraitReader(align.with_no_face(ctx, no_face), which)
    portrait = read(content, "content")
    target = read(style, "style") if style else read(chosen["face"], "style")
    for name, path in chosen.items():
        target = in_region(target, REGIONS.index(name), read(path, "style"))
    stylist = Stylist(ctx)
    if steps:
        image = images.to_arrays(Refinement(ctx, stylist)(portrait, target, steps))[0]
    else:
        image = stylist.stylize(portrait, target, strength)
    write_atomic(output, images.encode(image, output.suffix.lower()))
    say(f"stylize: made with {hypernetwork.origin(ctx)}")
    print(output)
    return 0
