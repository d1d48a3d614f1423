"""The methods that are compared: what each is called, which weights it needs, how it is opened. One line adds one."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.baselines.adain import AdaIN
from models.baselines.artflow import ArtFlow
from models.baselines.gatys import Gatys
from models.baselines.nnst import NNST
from models.baselines.pama import PAMA
from models.baselines.sae import SAE
from models.baselines.sanet import ContraAST, SANet
from pipeline import images, weights
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.weights.download import Package
from stages.apply.look import whole
from stages.apply.refine import Refinement
from stages.apply.stylist import Stylist
from stages.portraits.portrait import Portrait

Apply = Callable[..., np.ndarray]  # two portraits, and `strength` or `on_step` where the method has them
REFINEMENT_STEPS = 10
TRAINED = "baselines"  # folder of a run for the methods that it trained
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the strip that shows how a method interpolates


@dataclass(frozen=True)
class Method:
    """One method of the comparison.

    `open` gives a function of content and style, which returns an image. It also takes `strength` 0..1 if the method
    `interpolates`, and `on_step(done, total)` if it `optimises` each pair. `weights` of a run names what it reads; an
    `optional` method that cannot be opened is told in the table. A `trained` one also reads the run's checkpoint.
    `training` is how `train-baseline` calls a method that it can train. A `plain` one reads the images alone, not
    latents, maps, codes or profile. `version` rises when the same weights come to give other images.
    """

    title: str
    open: Callable[[Context], Apply]
    weights: Callable[[Context], Sequence[str]] = lambda ctx: ()
    interpolates: bool = False
    edits: bool = False
    optimises: bool = False
    optional: bool = True
    trained: bool = False
    training: str = ""
    note: str = ""
    plain: bool = False
    version: int = 0

    def description(self, ctx: Context) -> dict[str, Any]:
        """What the table says of it, besides numbers."""
        told = {key: getattr(self, key) for key in ("title", "interpolates", "edits")}
        return told | {"note": "; ".join(filter(None, (self.note, self.origin(ctx))))}

    def origin(self, ctx: Context) -> str:
        """What to know of weights that this run or this project trained; "" for published ones."""
        for name in self.weights(ctx) if self.training else ():
            run = name.startswith(f"{trained_folder(ctx, self.training)}/")
            if run or ("/" not in name and weights.find(name).source == "shipped"):
                made = json.loads(weights.metadata(name).get("meta", "{}"))
                by = "run" if run else "project"
                return f"trained by this {by}, {made.get('steps')} steps on {made.get('data')}"
        return ""


def baseline(
    title: str,
    load: Callable[..., Any],
    *names: str | tuple[str, ...],
    interpolates: bool = True,
    optimises: bool = False,
    training: str = "",
    note: str = "",
) -> Method:
    """A network of `models/baselines/`: `load` makes it from the tensors of the registered weights `names`, in order.

    Tuples are alternatives, published ones first: all names are the first of their tuple, or all the second, whichever
    are on this machine, else whichever can be fetched. Weights that the run made by `training` go before. The network
    takes content and style [1, 3, H, W] in [-1, 1] and gives an image like it; also `alpha`, the strength, if it
    `interpolates`, and `on_step` if it `optimises`.
    """

    def chosen(ctx: Context) -> list[str]:
        own = trained_folder(ctx, training)
        slots = [(name,) if isinstance(name, str) else name for name in names]
        return [_trained(slot, own) or name for slot, name in zip(slots, _together(slots), strict=True)]

    def open_(ctx: Context) -> Apply:
        try:
            net = load(*map(weights.tensors, chosen(ctx))).to(ctx.device)
        except ValueError as error:
            raise UserError(f"{' '.join(str(error).split())}; import the published file again") from error
        grad = torch.no_grad if optimises else torch.inference_mode

        def apply(content: Portrait, style: Portrait, strength: float = 1.0, **options: Any) -> np.ndarray:
            a, b = (images.to_tensor(p.image).to(ctx.device) for p in (content, style))
            if interpolates:
                options["alpha"] = strength
            with grad():
                return images.to_arrays(net(a, b, **options))[0]

        return apply

    return Method(title, open_, chosen, interpolates, optimises=optimises, training=training, note=note, plain=True)


def trained_folder(ctx: Context, method: str) -> Path:
    """Where a run keeps a method that it trained: checkpoint, log, and its weights by their registered names."""
    return ctx.run / TRAINED / method


def _trained(names: Sequence[str], own: Path) -> str | None:
    places = (own / f"{name}.safetensors" for name in names)
    return next((weights.as_name(place) for place in places if place.exists()), None)


def _together(slots: Sequence[Sequence[str]]) -> Sequence[str]:
    """One name of each slot; all from the same source, as parts of different trainings do not fit each other."""
    sets = [[slot[min(i, len(slot) - 1)] for slot in slots] for i in range(max(map(len, slots), default=1))]
    here = (names for names in sets if all(map(weights.local, names)))
    fetched = (names for names in sets if all(weights.local(n) or _packaged(n) for n in names))
    return next(here, None) or next(fetched, sets[0])


def _packaged(name: str) -> bool:
    return isinstance(weights.find(name).source, Package)


def hypernst_weights(ctx: Context) -> list[str]:
    """The weights of this project's network, besides the run's checkpoint."""
    generator, trained = ctx.profile.generator, ctx.profile.train.weights
    return [
        name
        for name in (generator.weights, generator.head, trained)
        if name and (name != trained or weights.local(name))
    ]


def refined(ctx: Context, stylist: Stylist | None = None) -> Apply:
    """HyperNST with some steps of refinement for each pair, by a stylist that is there or a new one."""
    refine = Refinement(ctx, stylist or Stylist(ctx))

    def apply(
        content: Portrait, style: Portrait, on_step: Callable[[int, int], None] = lambda done, total: None
    ) -> np.ndarray:
        refined = refine(content, whole(style), REFINEMENT_STEPS, lambda step, _: on_step(step, REFINEMENT_STEPS))
        return images.to_arrays(refined.image)[0]

    return apply


METHODS: Mapping[str, Method] = {
    "unstylised": Method(
        "Content, unstylised", lambda ctx: lambda content, style: content.image, optional=False, plain=True,
    ),
    "adain": baseline("AdaIN", AdaIN, "adain-vgg19", "adain-decoder"),
    "sae": baseline("Swapping Autoencoder", SAE.load, "sae", training="sae"),
    "gatys": baseline(
        "Gatys", Gatys.load, ("gatys-vgg19", "adain-vgg19"), interpolates=False, optimises=True,
        note="520 calls at the portraits' size; without gatys-vgg19 on the normalised VGG19, with weights of our own",
    ),
    "artflow": baseline(
        "ArtFlow (AdaIN)", ArtFlow.load, ("artflow-adain-portrait", "artflow-adain"), training="artflow",
    ),
    "artflow-wct": baseline("ArtFlow (WCT)", ArtFlow.load_wct, "artflow-wct", note="a defect of batches is repaired"),
    "pama": baseline(
        "PAMA", PAMA.load, "adain-vgg19", "pama-align1", "pama-align2", "pama-align3", "pama-decoder",
        training="pama",
    ),
    "sanet": baseline(
        "SANet", SANet.load, "adain-vgg19", ("sanet-decoder", "portable-sanet-decoder"),
        ("sanet-transformer", "portable-sanet-transformer"), training="sanet",
    ),
    "nnst": baseline(
        "NNST", NNST.load, "lpips-vgg", interpolates=False, optimises=True,
        note="NNST-Opt at the size of the portraits; its last pass is repaired: small feature maps are used whole",
    ),
    "contraast": baseline(
        "ContraAST", ContraAST.load, "adain-vgg19", "contraast-decoder", "contraast-transformer", training="contraast",
    ),
    "hypernst": Method(
        "HyperNST (ours)", lambda ctx: Stylist(ctx).stylize, hypernst_weights,
        interpolates=True, edits=True, optional=False, trained=True, version=5,
    ),
    "refined": Method(
        "HyperNST, refined (ours)", refined, lambda ctx: [*hypernst_weights(ctx), "lpips-vgg"], optimises=True,
        edits=True, trained=True, note=f"{REFINEMENT_STEPS} steps for each pair", version=10,
    ),
}  # fmt: skip
QUICK = ("unstylised", "adain", "hypernst")


def chosen(names: Sequence[str], methods: Mapping[str, Method] = METHODS) -> dict[str, Method]:
    """The methods of these names, in the table's order. Raises: UserError(2) when one is unknown."""
    if unknown := [name for name in names if name not in methods]:
        raise UserError(f"--methods: {unknown[0]!r} is no method; expected some of {', '.join(methods)}", 2)
    return {name: method for name, method in methods.items() if name in names}


def hindrance(ctx: Context, method: Method, budget: int, strength: float) -> str:
    """Why a method cannot be measured and what to do about it; "" when it can. Fetches weights out of packages."""
    if strength != 1 and not method.interpolates:
        return "it has no strength; measure it without --strength"
    if method.optimises and not budget:
        return "it optimises each pair, for minutes on a CPU; use `--budget N` to measure N pairs"
    missing = {}
    for name in method.weights(ctx) if method.optional else ():
        try:
            weights.path(name)
        except UserError as fault:
            missing[name] = str(fault)
    if not missing:
        return ""
    first, *others = missing.values()
    told = f"{first}; and likewise {', '.join(list(missing)[1:])}" if others else first
    return f"{told}; or `make train-baseline METHOD={method.training}`" if method.training else told
