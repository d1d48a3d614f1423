"""Find the face in each of the user's images and cut the FFHQ square around it."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline import weights
from pipeline.caches.schema import Column, Row
from pipeline.context import COLLECTIONS, Context
from pipeline.errors import UserError
from pipeline.profile import Align, NoFace
from pipeline.runner.run import run_stage
from pipeline.runner.spec import Fallback, Item, Reject, StageSpec, Worker
from stages.loaders.face_detector import open_detector

if TYPE_CHECKING:
    from models.faces.detector import Face, FaceDetector

# A style image need not be a portrait: without a face its whole-image code is used, so it is kept.
NO_FACE = {"content": "", "style": "keep"}  # "": as the profile says
NOTHING = "no face found"  # how the reason of a reject begins that `no_face` decides
# Mean distances of the corners, in sides: to the first a square image is taken as it is, to the second moved in part.
ALREADY_ALIGNED, NEARLY_ALIGNED = 0.08, 0.14
MIN_COVERAGE, MIN_LEANING = 0.4, 0.3  # the least share of a face's square in the picture; of one that leans or lies
MIN_QUAD = 64  # pixels of the source across the square: a smaller face has too little detail
NEARBY = 0.3  # sides by which another look in the square may move its centre; beyond that it is another face
TURNED = 30.0  # degrees of turning from which on it is noted, and there are more looks
FILLED, FITTING = 2.0, 20.0  # degrees from which on the edges of a turned photo are looked for, so and so
AGREE = 25.0  # degrees by which these may be turned otherwise than the face


@dataclass(frozen=True)
class Aligned:
    """An aligned square. quad [4, 2] is in pixels of the upright source; without a face score is 0 and note says so."""

    image: NDArray[np.uint8]
    quad: NDArray[np.float64]
    score: float
    note: str


def spec(ctx: Context, collection: str = "content") -> StageSpec:
    """The align stage. The collections differ in what happens to an image without a face."""
    settings = ctx.profile.align
    no_face = NO_FACE[collection] or settings.no_face
    if settings.no_face not in ("reject", "keep"):
        wrong = f"align.no_face is {settings.no_face!r}"
        raise UserError(f"profile {ctx.profile.name}: {wrong}; expected 'reject' or 'keep'", 2)
    return StageSpec(
        name="align",
        output="images",
        columns={
            "image": Column("bytes"),
            "path": Column("label"),
            "note": Column("text"),
            "quad": Column("f4", (4, 2)),
            "score": Column("f4"),
        },
        params={
            "source_size": settings.source_size,
            "detector": settings.detector,
            "jpeg_quality": settings.jpeg_quality,
            "no_face": no_face,
        },
        weights={} if settings.detector == "none" else {settings.detector: weights.sha256(settings.detector)},
        fallback=Fallback("no_face", "score", NOTHING),
        version=10,
        news="turned and leaning faces stand upright more exactly; colour profiles and odd depths count",
        batch=4,
        open=lambda ctx: open_worker(ctx, keep=no_face == "keep"),
    )


def run(ctx: Context, *, no_face: NoFace | None = None) -> int:
    """Align both collections; `no_face` ("keep" or "reject") overrides the profile for content images."""
    ctx = with_no_face(ctx, no_face)
    return max(run_stage(spec(ctx, name), name, ctx).status(ctx.max_rejects) for name in COLLECTIONS)


def with_no_face(ctx: Context, no_face: NoFace | None) -> Context:
    """The context with this align.no_face, or as it is for None."""
    if no_face is None:
        return ctx
    profile = dataclasses.replace(ctx.profile, align=dataclasses.replace(ctx.profile.align, no_face=no_face))
    return dataclasses.replace(ctx, profile=profile)


def open_worker(ctx: Context, keep: bool, which: int | None = None) -> Worker:
    """The worker that turns a file's bytes into an aligned image or a reject.

    `keep` keeps images without a face; `which` takes this face, counted from the left and from 1, not the largest.
    """
    settings = ctx.profile.align
    detector = open_detector(ctx)

    def work(items: Sequence[Item]) -> list[Row | Reject]:
        return [_row(item, detector, settings, keep, which) for item in items]

    return work


def align_picture(
    rgb: NDArray[np.uint8], detector: "FaceDetector", settings: Align, keep: bool, which: int | None = None
) -> Aligned | None:
    """The square of the largest face in RGB [H, W, 3] u8. Without a face the central square with `keep`, else None.

    A face that lies on its side or upside down, or leans by any angle, comes out upright. Where it leans because its
    whole photo was turned, and that shows, the square is that of the photo set straight.
    Raises: ValueError when there is no face of the number `which`, counted from the left of the upright image, from 1.
    """
    from models.faces.alignment import centre_quad, crop, quad_of_face, tilt
    from models.faces.detector import largest
    from models.faces.upright import upright_faces

    faces, turn = upright_faces(rgb, detector, _usable)
    face = largest(faces) if faces else None
    turned = np.ascontiguousarray(np.rot90(rgb, turn))
    height, width = turned.shape[:2]
    whole = centre_quad(width, height)
    if face is None:
        return Aligned(crop(rgb, whole, settings.source_size), whole, 0.0, "no face: central square") if keep else None
    notes = [f"{len(faces)} faces: the largest kept"] if len(faces) > 1 else []
    if which is not None:
        if not 1 <= which <= len(faces):
            raise ValueError(f"{len(faces)} faces, so there is no face {which}, counted from the left")
        face = _from_left(faces)[which - 1]
        notes = [f"{len(faces)} faces: face {which} from the left kept"]
    quad = _looked_again(turned, quad_of_face(face), detector, settings.source_size)
    if abs(tilt(quad)) >= FILLED:
        quad = _leaning(turned, quad, detector, settings)
    off = np.hypot(*(quad - whole).T).mean() / width
    if width == height and off < NEARLY_ALIGNED:
        # Cutting an aligned square again would only blur it and move it by the error of the detector. What is nearly
        # one moves in part, so that no error decides.
        part = max(off - ALREADY_ALIGNED, 0) / (NEARLY_ALIGNED - ALREADY_ALIGNED)
        quad = whole + part * (quad - whole)
        notes.append("nearly aligned: moved in part" if part else "already aligned")
    source = _unturned(quad, turn, width, height)
    if abs(lean := tilt(source)) > TURNED:
        notes.append(f"turned {abs(lean):.0f} degrees {'counterclockwise' if lean > 0 else 'clockwise'}")
    return Aligned(crop(turned, quad, settings.source_size), source, face.score, "; ".join(notes))


def faces_of(rgb: NDArray[np.uint8], ctx: Context) -> tuple[NDArray[np.uint8], list["Face"]]:
    """The image turned upright, and its usable faces from the left, as their numbers count them."""
    from models.faces.upright import upright_faces

    faces, turn = upright_faces(rgb, open_detector(ctx), _usable)
    return np.ascontiguousarray(np.rot90(rgb, turn)), _from_left(faces)


def _from_left(faces: list["Face"]) -> list["Face"]:
    return sorted(faces, key=lambda face: face.box[0] + face.box[2] / 2)


def _looked_again(
    rgb: NDArray[np.uint8], quad: NDArray[np.float64], detector: "FaceDetector", size: int
) -> NDArray[np.float64]:
    """The quad after another look at the face in its square.

    Detectors move the points of a turned or small face towards an upright one, so the second look comes closer.
    """
    from models.faces.alignment import crop, quad_of_face
    from models.faces.detector import largest

    again = detector.detect(crop(rgb, quad, size))
    return _within(quad, quad_of_face(largest(again)) / size) if again else quad


def _leaning(
    rgb: NDArray[np.uint8], quad: NDArray[np.float64], detector: "FaceDetector", settings: Align
) -> NDArray[np.float64]:
    """The quad of a face that leans: that of its photo set straight, where one shows, else the mean of more looks.

    There are more looks only where it leans as no upright face does.
    """
    from models.faces.alignment import quad_of, tilt
    from models.faces.filled import inside, photo_in, straight
    from models.faces.fitting import fitting_photo
    from models.faces.upright import looks_around

    photo = photo_in(rgb)
    if photo is None and abs(tilt(quad)) >= FITTING:
        photo = fitting_photo(rgb, tilt(quad))
    if photo is not None and abs((tilt(quad) - tilt(photo) + 45) % 90 - 45) <= AGREE:
        upright = straight(rgb, photo)
        if inner := align_picture(upright, detector, settings, keep=False):
            exact = _in_sides_of(inside(photo), inner.quad / upright.shape[1::-1])
            if np.abs(exact.mean(0) - quad.mean(0)).max() < NEARBY * np.hypot(*(quad[3] - quad[0])):
                return exact
    if abs(tilt(quad)) < TURNED:
        return quad
    found = [(view, _within(view, quad_of(points))) for view, points in looks_around(rgb, quad, detector)]
    return np.mean([inner for view, inner in found if inner is not view] or [quad], 0)


def _within(quad: NDArray[np.float64], inner: NDArray[np.float64]) -> NDArray[np.float64]:
    """A quad that is given in sides of another one; the latter where it is that of another face."""
    if np.abs(inner.mean(0) - 0.5).max() >= NEARBY or not 0.5 < np.hypot(*(inner[3] - inner[0])) < 2:
        return quad
    return _in_sides_of(quad, inner)


def _in_sides_of(quad: NDArray[np.float64], inner: NDArray[np.float64]) -> NDArray[np.float64]:
    return quad[0] + inner[:, :1] * (quad[3] - quad[0]) + inner[:, 1:] * (quad[1] - quad[0])


def _unturned(quad: NDArray[np.float64], turn: int, width: int, height: int) -> NDArray[np.float64]:
    """A quad of an image that was turned by `turn` quarters counterclockwise, to this size, in the image before."""
    for _ in range(turn):
        quad = np.stack([height - quad[:, 1], quad[:, 0]], 1)
        width, height = height, width
    return quad


def _usable(face: "Face", width: int, height: int) -> bool:
    from models.faces.alignment import coverage, quad_of_face, tilt

    quad = quad_of_face(face)
    least = MIN_COVERAGE if abs(tilt(quad)) < TURNED else MIN_LEANING
    return bool(np.hypot(*(quad[3] - quad[0])) >= MIN_QUAD and coverage(quad, width, height) >= least)


def _row(item: Item, detector: "FaceDetector", settings: Align, keep: bool, which: int | None = None) -> Row | Reject:
    from pipeline import images
    from pipeline.sources import decode, jpeg

    try:
        rgb, notes = decode.picture(item["source"])
    except decode.UnusableError as error:
        return Reject(str(error))
    try:
        aligned = align_picture(rgb, detector, settings, keep, which)
    except ValueError as error:
        return Reject(str(error))
    if aligned is None:
        small = f"{NOTHING} (of at least {MIN_QUAD} px, mostly inside the picture)"
        return Reject(f"{small}; --no-face keep takes the central square")
    if (times := decode.reduction(item["source"])) > 1:
        notes.append(f"read at 1/{round(times)} of its size")
    if jpeg.lacks_end(item["source"]):
        notes.append("its end marker is missing")
    return {
        "image": images.encode(aligned.image, ".jpg", settings.jpeg_quality),
        "path": item.path,
        "note": "; ".join(filter(None, (aligned.note, *notes))),
        "quad": aligned.quad * times,
        "score": aligned.score,
    }
