"""Portraits read, stylised and kept, from Python: what the command line and pages use, and nothing else.

`hypernst.load` makes a `Studio`. It computes a thing once: what belongs to a portrait alone, and the deltas of a
portrait's region in a style, are kept in memory up to a limit, and rows of portraits in CACHE/portraits/.
"""

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline import images
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.profile import NoFace
from pipeline.progress import say
from pipeline.runner.spec import Worker
from stages.apply import edit, large, reproduce
from stages.apply.look import Look, Mix, compose
from stages.apply.memory import LIMIT, Memory
from stages.apply.recipe import MOST_STEPS, Recipe
from stages.apply.refine import Refined, Refinement
from stages.apply.stylist import Stylist
from stages.apply.walk import MOST_FRAMES, Walk
from stages.loaders import hypernetwork
from stages.portraits.kept import KeptPortraits
from stages.portraits.portrait import Portrait, identity
from stages.portraits.reader import PortraitReader, Progress, file_of, quiet
from stages.preprocess import align
from stages.styles.blocks import WHOLE, Found
from stages.styles.collection import Styles, code_of

REFINE = 10  # steps of refinement unless others are asked for
OnStep = Callable[[int, Image.Image], bool | None]


class Studio:
    """Reads portraits and renders them in styles; networks are loaded when something needs them first.

    `memory` is the most bytes that it keeps of what it computed (beside networks), `progress(what, done, of)` is told
    every step before it begins, its `note` what was chosen in an image. `keep` False writes nothing to the cache
    folder. Any thread may call it: one works at a time. The same input gives the same pixels, whatever was computed
    before.
    """

    def __init__(self, ctx: Context, *, memory: int = LIMIT, progress: Progress = quiet, keep: bool = True) -> None:
        self.ctx, self.progress, self.memory = ctx, progress, Memory(memory)
        self.note: Callable[[str], None] = say
        self.styles = Styles(ctx, keep=True)
        self._kept = KeptPortraits(ctx) if keep else None
        self._readers: dict[tuple[NoFace | None, bool], PortraitReader] = {}
        self._workers: dict[str, Worker] = {}
        self._stylist: Stylist | None = None
        self._refinement: Refinement | None = None
        self._editor: edit.Editor | None = None
        self._large: large.LargeRenderer | None = None
        self._lock = threading.RLock()

    def read(
        self,
        image: Any,
        *,
        face: int | None = None,
        no_face: NoFace | None = None,
        style: bool = False,
        name: str | None = None,
        draft: bool = False,
    ) -> Portrait:
        """The portrait in a file (a path, or its bytes), a PIL image, or an array u8 [H, W], [H, W, 3] or [H, W, 4].

        `name` is what it is called, by default its file's name.

        `face` takes this one of several faces, counted from the left and from 1; else it is the largest. `no_face`
        "keep" takes the central square where there is none, "reject" refuses; else the profile decides. With `style` it
        is read as a style: portrait or not, and only as that can it be used. A portrait is given back as it is. A
        `draft` is there seconds earlier: its latent is the encoder's, not optimised, and its codes are rough.
        Raises: UserError (2) when it cannot be read, (1) when it cannot be used; it says why.
        """
        if isinstance(image, Portrait):
            return image
        data, own_name = file_of(image)
        name = name or own_name
        collection = "style" if style else "content"
        key = "read", hashlib.sha256(data).digest(), name, collection, face, no_face, draft
        with self._lock:
            reader = self._reader(no_face, draft)
            portrait = self.memory.get(key, lambda: reader(data, name, collection, face))
        if no_face is None or portrait.origin is None:
            return portrait
        return replace(portrait, origin=replace(portrait.origin, no_face=no_face))

    def _reader(self, no_face: NoFace | None, draft: bool = False) -> PortraitReader:
        if (no_face, draft) not in self._readers:
            ctx = align.with_no_face(self.ctx, no_face)
            self._readers[no_face, draft] = PortraitReader(
                ctx, self._kept, lambda *told: self.progress(*told), draft, self._workers, lambda text: self.note(text)
            )
        return self._readers[no_face, draft]

    def forget(self, sha256: str = "") -> None:
        """Forget what was computed, and remove what is kept of the file with this sha256."""
        with self._lock:
            self.memory.clear()
            if self._kept and sha256:
                self._kept.forget(sha256)

    def look(self, style: Any, strength: float | Mapping[str, float] = 1.0, mix: Mix = "mean") -> Look:
        """What `stylize` is to make: `style`, `strength` and `mix` as there, read and checked."""
        return compose(style, strength, lambda image: self.read(image, style=True), mix)

    def edit(self, portrait: Any, edits: Mapping[str, float]) -> Portrait:
        """The portrait moved along semantic directions: `studio.edit(me, {"age": 2, "smile": -1})`.

        A step is the std of generated faces along a direction: +-2 is rare among them, +-5 the most that is taken.
        `edit.checked` says which directions there are. Region map and refinement follow the edit, codes stay.
        Raises: UserError as `read`; (2) for other directions or steps, or directions of another generator.
        """
        with self._lock:
            wanted = edit.checked(self.ctx, edits)
            content = self._content(portrait)
            if not wanted:
                return content
            return self.memory.get(("edited", identity(content), *wanted.items()), lambda: self._edit(content, wanted))

    def _edit(self, content: Portrait, edits: Mapping[str, float]) -> Portrait:
        if self._editor is None:
            self._editor = edit.Editor(self.ctx, self.stylist().generator, self._reader(None).regions)
        self.progress("edit", 0, 1)
        return self._editor(content, edits)

    def stylize(
        self,
        portrait: Any,
        style: Any,
        strength: float | Mapping[str, float] = 1.0,
        refine: int | None = None,
        on_step: OnStep | None = None,
        mix: Mix = "mean",
        *,
        edits: Mapping[str, float] | None = None,
        size: int | None = None,
    ) -> Image.Image:
        """The portrait in a style, RGB of 256 x 256 pixels, or of `size`.

        `portrait` and styles are what `read` takes or gives. `style` is one; or a list of them, or of (style, weight),
        that are mixed; or a mapping from "hair", "face", "background" to these, where a region that it does not name
        stays as it is. `strength` 0 keeps the portrait's own style, 1 takes all of the other; one number, or a mapping
        from regions. `refine` steps of optimisation follow the prediction (None: 10 where the profile allows it);
        `on_step` gets their numbers and the best image so far, and ends them by returning True. The `mix` "robust" of
        three styles or more gives less weight to one that is unlike the others. `edits` are as in `edit`; `size` is the
        profile's or the generator's own, such as 1024.
        Raises: UserError when an image cannot be used (1), or something is asked for that there is not (2).
        """
        with self._lock:
            steps, size = self.steps(refine), large.checked(self.ctx, size)
            content = self.edit(portrait, edits or {})
            return self.render(content, self.look(style, strength, mix), steps, on_step, size)

    def render(
        self, content: Portrait, look: Look, refine: int = 0, on_step: OnStep | None = None, size: int | None = None
    ) -> Image.Image:
        """The portrait as `look` says, after `refine` steps of refinement; `size` as in `stylize`."""
        with self._lock:
            size, stylist, content = large.checked(self.ctx, size), self.stylist(), self._content(content)
            refined = self._refined(content, look, refine, on_step) if refine else None
            if refined and not size:
                return Image.fromarray(images.to_arrays(refined.image)[0])
            self.progress("render", 0, 1)
            if not size:
                return Image.fromarray(stylist.render(content, look.target(content)))
            if self._large is None:
                self._large = large.LargeRenderer(self.ctx, stylist.generator)
            prepared = stylist.prepare(content)
            deltas = refined.deltas if refined else stylist.deltas(prepared, look.codes(content))
            y, tone = self._large(prepared, deltas), refined.tone if refined else look.palette(content)
            return Image.fromarray(images.to_arrays(stylist.toned(prepared, y, tone))[0])

    def _refined(self, content: Portrait, look: Look, steps: int, on_step: OnStep | None = None) -> Refined:
        if self._refinement is None:
            self._refinement = Refinement(self.ctx, self.stylist())
        refinement, reached = self._refinement, steps

        def stepped(step: int, best: Any) -> bool | None:
            nonlocal reached
            self.progress("refine", step, steps)
            reached = step
            return on_step(step, Image.fromarray(images.to_arrays(best)[0])) if on_step else None

        key = "refined", identity(content), *look.key
        if on_step and (*key, steps) not in self.memory:  # `on_step` sees all steps, and may end them
            refined = refinement(content, look, steps, stepped)
            return self.memory.get((*key, reached), lambda: refined)
        refined = self.memory.get((*key, steps), lambda: refinement(content, look, steps, stepped))
        if on_step:
            on_step(steps, Image.fromarray(images.to_arrays(refined.image)[0]))
        return refined

    def recipe(self, content: Portrait, look: Look, refine: int = 0, size: int | None = None) -> Recipe:
        """How `render` makes this picture, for a file. Raises: UserError(2) for portraits that no file was read for."""
        return reproduce.recipe(self.ctx, content, look, refine, large.checked(self.ctx, size))

    def cook(self, recipe: Recipe, styles: Sequence[Any] = ()) -> Look:
        """The look of a recipe; `styles` are images among which its own are known by their sha256.

        Images that were read before are found in the cache folder. `differs` says whether networks are others.
        Raises: UserError(2) when a style is nowhere.
        """
        with self._lock:
            given = [self.read(image, style=True) for image in styles]
            return reproduce.look(recipe, given, self._reader(None).kept_style)

    def differs(self, recipe: Recipe) -> str:
        """How this studio differs from the one that the recipe is of, in a line; "" if the bytes are the same."""
        return reproduce.differs(self.ctx, recipe)

    def networks(self) -> dict[str, str]:
        """The sha256 of the weights that a picture depends on, by what they are for."""
        return reproduce.networks(self.ctx)

    def search(self, like: Any = None, region: str = WHOLE, k: int = 12, text: str = "") -> list[Found]:
        """The k styles likest to an image, or to the style with this key, by the cosine of their codes.

        They are the paintings that ship with the program and the styles of the cache folder. `region` compares "hair",
        "face" or "background" alone. Only those with every word of `text` in their name; without `like` by name.
        Raises: UserError when there is no such style or region (2), or the image cannot be used or lacks it (1).
        """
        with self._lock:
            if like is None:
                return self.styles.search(None, region, k, text)
            if isinstance(like, str) and not Path(like).is_file():
                return self.styles.search(self.styles.code(like, region), region, k, text, like)
            return self.styles.search(code_of(self.read(like, style=True), region), region, k, text)

    def interpolate(self, portrait: Any, styles: Sequence[Any], frames: int = 48, refine: int = 0) -> list[Image.Image]:
        """A walk of a portrait from style to style, RGB of 256 x 256 pixels; with one style from the portrait's own.

        Frames lie at equal steps of what is seen (`walk.even`). The ends of each leg are refined by `refine` steps, and
        frames between them cost one pass each.
        Raises: UserError as `stylize`.
        """
        if isinstance(frames, bool) or not isinstance(frames, int) or not 2 <= frames <= MOST_FRAMES:
            raise UserError(f"frames is {frames!r}; expected a number from 2 to {MOST_FRAMES}", 2)
        if not isinstance(styles, list | tuple) or not styles:
            raise UserError("no style to walk to; expected a list of images", 2)
        with self._lock:
            looks = [self.look(style) for style in styles]
            return self.walk(self._content(portrait), looks, frames, self.steps(refine))

    def walk(self, content: Portrait, looks: Sequence[Look], frames: int, steps: int = 0) -> list[Image.Image]:
        """`interpolate` from look to look; with one from the portrait's own style."""
        with self._lock:
            if len(looks) == 1:
                looks = [looks[0].own(), *looks]
            ends = [self._refined(content, look, steps) for look in looks] if steps else None
            path = Walk(self.ctx, self.stylist(), content, looks, ends)
            found = []
            for number, place in enumerate(path.even(frames)):
                self.progress("frame", number, frames)
                found.append(Image.fromarray(path.render(place)))
            return found

    def steps(self, refine: int | None) -> int:
        """The steps of refinement that are meant; None: as many as usual, none where the profile allows none.

        Raises: UserError(2) when there cannot be so many.
        """
        able = self.ctx.profile.train.refinement_iterations == 1
        if refine is None:
            return REFINE if able else 0
        if isinstance(refine, bool) or not isinstance(refine, int) or not 0 <= refine <= MOST_STEPS:
            raise UserError(f"refine is {refine!r}; expected a number of steps from 0 to {MOST_STEPS}", 2)
        if refine and not able:
            raise UserError(
                f"refine is {refine}; refinement takes a profile with train.refinement_iterations = 1, "
                f"{self.ctx.profile.name} has {self.ctx.profile.train.refinement_iterations}; leave it out",
                2,
            )
        return refine

    def stylist(self) -> Stylist:
        """The networks that render, loaded at the first call."""
        with self._lock:
            if self._stylist is None:
                self.progress("load the networks", 0, 1)
                self._stylist = Stylist(self.ctx, memory=self.memory)
            return self._stylist

    def origin(self) -> str:
        """Which hypernetwork it renders with, in a few words: its file or name, sha256 and profile."""
        return hypernetwork.origin(self.ctx)

    def _content(self, portrait: Any) -> Portrait:
        content = self.read(portrait)
        if not len(content.latent):
            raise UserError(f"{content.key}: was read as a style; read it as a portrait, without style=True", 2)
        return content
