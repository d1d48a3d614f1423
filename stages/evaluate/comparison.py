"""Compare methods over content x style pairs, all through one code path: the paper's Table 1 for these weights.

A method is a function of two portraits that returns a picture; adding one is adding a line to METHODS.
"""

import dataclasses
import html
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch

from models.backbones.inception import InceptionStem
from models.baselines.adain import AdaIN
from models.metrics import sifid
from models.metrics.lpips import LPIPS
from pipeline import files, images, weights
from pipeline.context import Context
from pipeline.errors import Fault
from pipeline.progress import Progress, say
from stages.apply.portrait import Portrait, Stylist, cached

Method = Callable[[Portrait, Portrait], np.ndarray]

VERSION = 1
METRICS = ("lpips_alex", "lpips_vgg", "sifid_64", "sifid_192")
METRIC_WEIGHTS = ("lpips-alex", "lpips-vgg", "inception-fid")
SHOWN = 8  # contents and styles in the page's grid
TITLES = {"unstylised": "Content, unstylised", "adain": "AdaIN", "hypernst": "HyperNST (ours)"}
ABILITIES = {"adain": ("yes", "no"), "hypernst": ("yes", "no")}  # interpolation, editing


def unstylised(ctx: Context) -> Method:
    """The content as it is: what doing nothing scores."""
    return lambda content, style: content.image


def adain(ctx: Context) -> Method:
    """AdaIN (Huang & Belongie 2017)."""
    net = AdaIN(weights.tensors("adain-vgg19"), weights.tensors("adain-decoder")).to(ctx.device)

    @torch.inference_mode()
    def method(content: Portrait, style: Portrait) -> np.ndarray:
        a, b = (images.to_tensor(p.image).to(ctx.device) for p in (content, style))
        return images.to_arrays(net(a, b))[0]

    return method


def hypernst(ctx: Context) -> Method:
    """This project's network: the run's weights if it has any, else the shipped ones."""
    return Stylist(ctx).stylise


METHODS: Mapping[str, Callable[[Context], Method]] = {"unstylised": unstylised, "adain": adain, "hypernst": hypernst}


class Metrics:
    """The networks that pictures u8 [H, W, 3] are compared by."""

    def __init__(self, ctx: Context) -> None:
        self.device = ctx.device
        self.alex, self.vgg = (LPIPS(n, weights.tensors(f"lpips-{n}")).to(ctx.device) for n in ("alex", "vgg"))
        self.stem = InceptionStem(weights.tensors("inception-fid")).to(ctx.device)

    @torch.inference_mode()
    def summary(self, image: np.ndarray) -> dict[int, sifid.Gaussian]:
        """SIFID's mean and covariance at 64 and 192 channels."""
        maps = self.stem(images.to_tensor(image).to(self.device))
        return {channels: sifid.gaussian(features[0].cpu()) for channels, features in maps.items()}

    @torch.inference_mode()
    def lpips(self, a: np.ndarray, b: np.ndarray) -> float:
        """LPIPS-alex of two pictures."""
        x, y = (images.to_tensor(image).to(self.device) for image in (a, b))
        return float(self.alex(x, y))

    @torch.inference_mode()
    def features(self, image: np.ndarray) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """LPIPS features, AlexNet's and VGG's."""
        x = images.to_tensor(image).to(self.device)
        return self.alex.features(x), self.vgg.features(x)

    @torch.inference_mode()
    def compare(self, image: np.ndarray, content: Any, style: dict[int, sifid.Gaussian]) -> dict[str, float]:
        """All METRICS of a result, given `features` of its content and the `summary` of its style."""
        alex, vgg = self.features(image)
        ours = self.summary(image)
        return {
            "lpips_alex": float(self.alex.distance(alex, content[0])),
            "lpips_vgg": float(self.vgg.distance(vgg, content[1])),
            "sifid_64": sifid.frechet(ours[64], style[64]),
            "sifid_192": sifid.frechet(ours[192], style[192]),
        }


def folder(ctx: Context) -> Path:
    """Where the evaluation of this run lies: runs/eval/<name of the run>."""
    return ctx.run.parent / "eval" / ctx.run.name


def run(ctx: Context, *, methods: Mapping[str, Callable[[Context], Method]] = METHODS) -> int:
    """Measure every method on the profile's grid of cached portraits; write results.json, table.md and index.html.

    Does nothing when the same weights, pictures and profile were measured before; killed, it goes on where it was.
    Raises: Fault when a cache is missing or holds nothing.
    """
    faces, styles = (list(cached(ctx, name, _limit(ctx, name))) for name in ("content", "style"))
    if not faces or not styles:
        raise Fault(f"eval: {len(faces)} contents and {len(styles)} styles in {ctx.cache}; expected some of both")
    recipe = describe(ctx, list(methods), faces, styles)
    stamp = stamp_of(recipe)
    out = folder(ctx)
    if (out / "results.json").exists() and json.loads((out / "results.json").read_text()).get("stamp") == stamp:
        say(f"eval: up to date, {out / 'table.md'}")
        return 0
    pairs = measure(ctx, methods, faces, styles, out, stamp)
    results = {name: _mean([p for p in pairs if p["method"] == name]) for name in methods}
    (out / "cells").mkdir(parents=True, exist_ok=True)
    files.write_atomic(out / "table.md", table(results).encode())
    files.write_atomic(out / "index.html", page(ctx, results, list(methods), faces, styles, out).encode())
    report = {"stamp": stamp, "methods": results} | recipe
    files.write_atomic(out / "results.json", json.dumps(report, indent=1).encode())
    say(f"eval: {out / 'index.html'}\n{table(results)}")
    return 0


def stamp_of(recipe: Mapping[str, Any]) -> str:
    """What a result is recognised by: a hash of all that decided it."""
    return files.short_hash(json.dumps(recipe, sort_keys=True))


def describe(ctx: Context, methods: list[str], faces: list[Portrait], styles: list[Portrait]) -> dict[str, Any]:
    """All that decides the numbers: metrics and their weights, the methods' weights, the pictures, the profile."""
    profile = ctx.profile
    generator = profile.generator
    names = [name for name in ("adain-vgg19", "adain-decoder", generator.weights, generator.head) if name]
    if profile.train.weights and weights.local(profile.train.weights):
        names.append(profile.train.weights)
    checkpoint = ctx.run / "checkpoint.safetensors"
    digest = files.short_hash("".join(_digest(p) for p in (*faces, *styles)))
    return {
        "version": VERSION,
        "metrics": {
            "weights": {name: weights.sha256(name) for name in METRIC_WEIGHTS},
            "lpips": "v0.1, stylised against content",
            "sifid": "stylised against style; Inception after Conv2d_2b (64) and Conv2d_4a (192), a sample a position",
            "size": profile.align.size,
            "seconds": f"core forward on {ctx.device}, inputs cached, median after one warm-up",
        },
        "weights": {name: weights.sha256(name) for name in names}
        | ({"checkpoint": files.sha256(checkpoint)} if checkpoint.exists() else {}),
        "pictures": {"contents": [p.key for p in faces], "styles": [p.key for p in styles], "digest": digest},
        "compared": methods,
        "profile": dataclasses.asdict(profile),
    }


def measure(ctx: Context, methods: Mapping[str, Callable[[Context], Method]], faces: list[Portrait],
            styles: list[Portrait], out: Path, stamp: str) -> list[dict[str, Any]]:
    """Measure each pair by each method; lines of pairs-<stamp>.jsonl that an earlier run left are not done again."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "cells").mkdir(exist_ok=True)
    log = out / f"pairs-{stamp}.jsonl"
    done = {(p["method"], p["content"], p["style"]): p for p in _lines(log)}
    metrics = Metrics(ctx)
    summaries = [metrics.summary(s.image) for s in styles]
    progress = Progress("eval", len(methods) * len(faces) * len(styles), "pair")
    with log.open("a") as lines:
        if log.stat().st_size:
            lines.write("\n")  # ends a line that a kill cut short
        for name, opened in methods.items():
            method = None
            for i, face in enumerate(faces):
                todo = [j for j, s in enumerate(styles) if (name, face.key, s.key) not in done]
                features = metrics.features(face.image) if todo else None
                for j in todo:
                    if method is None:
                        method = opened(ctx)
                        method(face, styles[j])  # warm-up
                    image, seconds = _timed(ctx, method, face, styles[j])
                    if i < SHOWN and j < SHOWN:
                        files.write_atomic(out / "cells" / f"{name}-{i}-{j}.jpg", images.encode(image, ".jpg"))
                    row = {"method": name, "content": face.key, "style": styles[j].key, "seconds": seconds}
                    row |= metrics.compare(image, features, summaries[j])
                    done[name, face.key, styles[j].key] = row
                    lines.write(json.dumps(row) + "\n")
                    lines.flush()
                progress.add(len(styles))
    progress.close()
    return [done[name, f.key, s.key] for name in methods for f in faces for s in styles]


def table(results: Mapping[str, Mapping[str, float]]) -> str:
    """The paper's Table 1 as Markdown; lower is better in every number."""
    columns = ("Model", "LPIPS (Alexnet)", "LPIPS (VGG)", "SIFID (64)", "SIFID (192)", "Time (s/img)", "Interpolation",
               "Editing")
    rows = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, r in results.items():
        numbers = [f"{r['lpips_alex']:.4f}", f"{r['lpips_vgg']:.4f}", f"{r['sifid_64']:.3f}", f"{r['sifid_192']:.3f}",
                   f"{r['seconds_per_image']:.3f}"]
        rows.append(" | ".join([f"| {TITLES.get(name, name)}", *numbers, *ABILITIES.get(name, ("no", "no"))]) + " |")
    return "\n".join(rows) + "\n"


def page(ctx: Context, results: Mapping[str, Mapping[str, float]], methods: list[str], faces: list[Portrait],
         styles: list[Portrait], out: Path) -> str:
    """The page: the table, then for each shown content a row a method, a column a style."""
    for kind, portraits in (("content", faces), ("style", styles)):
        for i, portrait in enumerate(portraits[:SHOWN]):
            files.write_atomic(out / "cells" / f"{kind}-{i}.jpg", images.encode(portrait.image, ".jpg"))

    def image(name: str, title: str) -> str:
        return f'<td><img src="cells/{name}.jpg" title="{html.escape(title)}"></td>'

    top = "<tr><td></td><td></td>" + "".join(image(f"style-{j}", s.key) for j, s in enumerate(styles[:SHOWN])) + "</tr>"
    body = [top]
    for i, face in enumerate(faces[:SHOWN]):
        for name in (m for m in methods if m != "unstylised"):
            cells = "".join(image(f"{name}-{i}-{j}", f"{face.key} in {s.key}") for j, s in enumerate(styles[:SHOWN]))
            body.append(f"<tr><th>{TITLES.get(name, name)}</th>{image(f'content-{i}', face.key)}{cells}</tr>")
    return f"""<!doctype html><meta charset="utf-8"><title>Evaluation: {html.escape(ctx.run.name)}</title>
<style>body{{font:14px system-ui;margin:2em}}img{{width:128px;display:block}}th{{font-weight:normal;color:#555}}</style>
<h1>Evaluation of {html.escape(ctx.run.name)}</h1><p>{len(faces)} contents x {len(styles)} styles, profile
{html.escape(ctx.profile.name)}; means over all pairs, lower is better. LPIPS is to the content, SIFID to the style.</p>
<pre>{html.escape(table(results))}</pre><table>{"".join(body)}</table>
"""


def _limit(ctx: Context, collection: str) -> int:
    wanted = ctx.profile.eval.contents if collection == "content" else ctx.profile.eval.styles
    return wanted if ctx.limit is None else min(wanted, ctx.limit)


def _digest(portrait: Portrait) -> str:
    parts = (portrait.image, portrait.region, portrait.latent, portrait.codes)
    return portrait.key + files.short_hash("".join(np.ascontiguousarray(p).tobytes().hex() for p in parts))


def _timed(ctx: Context, method: Method, content: Portrait, style: Portrait) -> tuple[np.ndarray, float]:
    start = time.perf_counter()
    image = method(content, style)
    if ctx.device.startswith("cuda"):
        torch.cuda.synchronize()
    return image, time.perf_counter() - start


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a JSON log; the one that a kill cut short is skipped."""
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            yield json.loads(line)
        except ValueError:
            continue


def _mean(pairs: list[dict[str, Any]]) -> dict[str, float]:
    means = {name: round(mean(p[name] for p in pairs), 6) for name in METRICS}
    return means | {"seconds_per_image": round(median(p["seconds"] for p in pairs), 4), "pairs": len(pairs)}
