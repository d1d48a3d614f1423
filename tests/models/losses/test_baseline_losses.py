"""The losses that the compared methods are trained with, against the published codes' numbers."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from models.baselines import sae as saes
from models.baselines.pama import PAMA
from models.baselines.sanet import ContraAST, SANet
from models.baselines.vgg19 import Encoder
from models.discriminators.image import ImageDiscriminator
from models.discriminators.multiscale import MultiscaleDiscriminator
from models.discriminators.patch import PatchDiscriminator
from models.losses import contraast, feature_statistics, pama, swapping
from models.losses.feature_statistics import Seen
from tests.models.baselines.test_attention import files, images
from tests.support.goldens import Case


def seen(encoder: Encoder) -> Callable[[Tensor], Seen]:
    return lambda image: Seen(image, encoder.taps(image))


@torch.no_grad()
def test_sanet() -> None:
    case = Case("sanet")
    parts = files(case)
    net = SANet.load(parts["vgg"], parts["decoder"], parts["transformer"])
    see = seen(net.encoder)
    content, style = map(see, images(case))

    def drawn(a: Seen, b: Seen) -> Seen:
        return see(net.decoder(net.transformer(tuple(a.taps[3:]), tuple(b.taps[3:]))))

    terms = feature_statistics.sanet_terms(
        drawn(content, style), content, style, drawn(content, content), drawn(style, style)
    )
    for name, value in (terms | {"total": feature_statistics.total(terms, feature_statistics.SANET)}).items():
        case.check(f"loss_{name}", value)


@torch.no_grad()
def test_contraast() -> None:
    case = Case("contraast_train")
    parts = files(case)
    net = ContraAST.load(parts["vgg"], parts["decoder"], parts["transformer"])
    see = seen(net.encoder)
    contents, styles = images(case)
    content_of, style_of = contraast.rows(len(contents))
    content, style = see(contents[content_of]), see(styles[style_of])

    def drawn(a: Seen, b: Seen) -> Seen:
        return see(net.decoder(net.transformer(tuple(a.taps[3:]), tuple(b.taps[3:]))))

    out = drawn(content, style)
    case.check("stylized", out.image)
    terms = feature_statistics.sanet_terms(out, content, style, drawn(content, content), drawn(style, style))
    heads = contraast.projection(256, 128), contraast.projection(512, 256)
    for head, tag in zip(heads, ("proj_style", "proj_content"), strict=True):
        head.load_state_dict(parts[tag])
    codes = [contraast.embed(head, out.taps[i]) for head, i in zip(heads, (2, 3), strict=True)]
    case.check("style_embedding", codes[0])
    case.check("content_embedding", codes[1])
    found = contraast.contrastive_terms(*codes)
    case.check("loss_contrastive_content", found["contrast_content"])
    case.check("loss_contrastive_style", found["contrast_style"])
    terms |= found
    for name in ("content", "style", "identity1", "identity2"):
        case.check(f"loss_{name}", terms[name])
    without = {name: weight for name, weight in contraast.WEIGHTS.items() if name != "adversarial"}
    case.check("loss_total_without_gan", feature_statistics.total(terms, without))

    given = contraast.contrastive_terms(
        *(torch.nn.functional.normalize(torch.from_numpy(case.input(f"emb_{n}"))) for n in ("style", "content"))
    )
    case.check("contrastive_style_given", given["contrast_style"])
    case.check("contrastive_content_given", given["contrast_content"])
    judge = MultiscaleDiscriminator()
    judge.load_state_dict(parts["discriminator"])
    image = torch.from_numpy(case.input("disc"))
    for i, scores in enumerate(judge(image)):
        case.check(f"disc.{i}", scores)
    case.check("disc_loss_valid", judge.loss(image, 1))
    case.check("disc_loss_fake", judge.loss(image, 0))


@torch.no_grad()
def test_pama() -> None:
    case = Case("pama_train")
    parts = files(case)
    net = PAMA.load(*(parts[tag] for tag in ("encoder", "align1", "align2", "align3", "decoder")))
    see = seen(Encoder.load(parts["encoder"]))
    content, style = map(see, images(case))
    features, losses = content.taps[3], []
    target = pama.histogram(style.image)
    case.check("histogram", target)
    for k, (align, weights) in enumerate(zip(net.alignments, pama.STAGES, strict=True), 1):
        features = align(features, style.taps[3])
        out = see(net.decoder(features))
        case.check(f"stylized{k}", out.image)
        terms = pama.stage_terms(out, content, style, target)
        for layer, of_layer in enumerate(terms[:3], 3):
            for name, value in of_layer.items():
                case.check(f"stage{k}.relu{layer}_1.{name}", value)
        case.check(f"stage{k}.color", terms[3]["colour"])
        losses.append(pama.stage_loss(terms, *weights))
        case.check(f"stage{k}.loss", losses[-1])
    losses.append(pama.reconstruction([(see(net.decoder(x.taps[3])), x) for x in (content, style)]))
    case.check("loss_reconstruction", losses[-1])
    case.check("loss_total", torch.stack(losses).sum())
    a, b = (torch.from_numpy(case.input(f"feat_{n}")) for n in "ab")
    case.check("remd_given", pama.remd(a, b))
    case.check("cosine_distance_given", pama.cosine_distances(a, b))


@torch.no_grad()
def test_artflow() -> None:
    case = Case("artflow_train")
    encoder = Encoder.load(files(case)["vgg"], 4)
    out, content, style = (encoder.taps(torch.from_numpy(case.input(n))) for n in ("stylized", "content", "style"))
    case.check("stylized.relu4_1", out[3])
    terms = feature_statistics.artflow_terms(out, content, style)
    case.check("loss_content", terms["content"])
    case.check("loss_style", terms["style"])
    case.check("loss_total", feature_statistics.total(terms, feature_statistics.ARTFLOW))


def test_the_patches_of_the_swapping_autoencoder() -> None:
    case = Case("sae_crops")
    draws = torch.cat([torch.from_numpy(case.input(f"{name}_draw")) for name in ("flip", "scale", "offset")], -1)
    case.check("crops", swapping.crops(torch.from_numpy(case.input("image")), draws.flatten(1), 16))


def test_one_step_of_the_swapping_autoencoder() -> None:
    case = Case("sae_losses")
    tensors = case.tensors()
    model = saes.SAE.load({n: t for n, t in tensors.items() if n.startswith(("E.", "G."))}).requires_grad_(True)
    judge = ImageDiscriminator.load({n: t for n, t in tensors.items() if n.startswith("D.")}).requires_grad_(True)
    patch_judge = PatchDiscriminator.load({n: t for n, t in tensors.items() if n.startswith("Dpatch.")})
    patch_judge.requires_grad_(True)
    real = torch.from_numpy(case.input("real"))
    noise = [torch.from_numpy(case.input(f"noise_{i}")) for i in range(12)]

    def cut(source: Tensor, name: str) -> Tensor:
        return swapping.crops(source, torch.from_numpy(case.input(f"draw_{name}")).flatten(1), patch_judge.size)

    def gradient(name: str, parameter: Tensor) -> None:
        assert parameter.grad is not None
        case.check(name, parameter.grad.flatten())
        parameter.grad = None

    structure, texture = model.encoder(real)
    rec = model.generator(structure[:1], texture[:1], noise)
    mix = model.generator(swapping.swapped(structure), texture, noise)
    patches = (cut(real, "D_ref"), cut(real, "D_target"), cut(mix.detach(), "D_mix"))
    terms = swapping.discriminator_terms(judge, patch_judge, real, rec.detach(), mix.detach(), patches)
    for name, value in terms.items():
        case.check(name, value)
    swapping.summed(terms).backward()
    case.check("discriminator_total", swapping.summed(terms)[None])
    last = judge.final_linear[1].weight, patch_judge.pairlinear[3].weight
    gradient("grad_D_last", last[0])
    gradient("grad_Dpatch_last", last[1])

    terms = swapping.generator_terms(judge, patch_judge, real, rec, mix, (cut(real, "G_ref"), cut(mix, "G_mix")))
    for name, value in terms.items():
        case.check(name, value)
    swapping.summed(terms).backward()
    case.check("generator_total", swapping.summed(terms)[None])
    gradient("grad_torgb_bias", model.generator.ToRGB.bias)
    gradient("grad_sp_bias", model.encoder.ToSpatialCode[1].Conv.bias)
    gradient("grad_gl_bias", model.encoder.ToGlobalCode[0].bias)
    gradient("grad_mod_bias", model.generator.SpatialCodeModulation.scale.bias)

    for net in (judge, patch_judge):
        net.zero_grad()
    penalty = swapping.r1_term(judge, patch_judge, real, (cut(real, "R1_ref"), cut(real, "R1_target")))
    case.check("D_R1", penalty)
    whole = swapping.R1_EVERY * penalty.mean()
    case.check("r1_total", whole[None])
    whole.backward()
    gradient("grad_R1_D_last", last[0])
    gradient("grad_R1_Dpatch_last", last[1])


def test_a_batch_of_two_has_one_negative() -> None:
    """Contents 0, 1, 1, 0 in styles 0, 1, 0, 1: by style row 0 has row 2 as its positive and row 1 as its negative."""
    codes = torch.eye(4)
    loss = contraast.contrastive_terms(codes, codes)
    assert float(loss["contrast_style"]) == pytest.approx(4 * torch.log(torch.tensor(2.0)).item())
    assert torch.equal(loss["contrast_style"], loss["contrast_content"])
