"""The profile's networks: every profile's choice loads, pairs that do not belong together are refused, by name."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models import state_dicts
from models.encoders.e4e import WEncoder
from models.generators.stylegan2 import StyleGAN2, layer_table
from models.hypernetworks.hypernetwork import HyperNetwork
from models.hypernetworks.hyperstyle import HyperStyle
from models.hypernetworks.region_hyperstyle import RegionHyperStyle
from pipeline import profile, weights
from pipeline.context import Context
from pipeline.errors import UserError
from pipeline.training import checkpoint
from stages.baselines import training
from stages.baselines.attention import SANet
from stages.loaders import discriminators, face_parser
from stages.loaders import generator as generators
from stages.loaders import hypernetwork as hypernetworks
from stages.loaders import inversion as inversions
from stages.preprocess import compatibility, latents

SIZE = 8


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A W-encoder of 4 num_ws."""
    place = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    zeros = {n: torch.zeros(t.shape, dtype=t.dtype) for n, t in state_dicts.build(WEncoder, 4).state_dict().items()}
    save_file(zeros | {"latent_avg": torch.ones(4, 512)}, place)
    return place


@pytest.fixture
def ctx(tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    """The paper256 profile with an 8 px generator and an encoder for it, by path."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    torch.manual_seed(0)
    save_file(StyleGAN2(SIZE, depth=2).state_dict(), tmp_path / "generator.safetensors")
    return change(
        Context(profile.load("paper256"), cache=tmp_path / "cache", run=tmp_path / "run"),
        generator={"weights": f"{tmp_path}/generator.safetensors", "size": SIZE},
        inverter={"weights": str(encoder)},
    )


def change(ctx: Context, **sections: dict[str, object]) -> Context:
    changed = {name: dataclasses.replace(getattr(ctx.profile, name), **values) for name, values in sections.items()}
    return dataclasses.replace(ctx, profile=dataclasses.replace(ctx.profile, **changed))


@pytest.mark.weights
@pytest.mark.parametrize(
    ("section", "key", "build"),
    [
        ("generator", "weights", generators.generator),
        ("inverter", "weights", inversions.PortableInversion),
        ("parser", "weights", face_parser.open_parser),
        ("train", "weights", lambda ctx: hypernetworks.trained_hypernetwork(ctx, generators.blank(ctx).layer_table())),
        ("train", "image_discriminator", discriminators.image_discriminator),
        ("train", "patch_discriminator", discriminators.patch_discriminator),
        ("baselines", "decoder", training.new_decoder),
        ("baselines", "transformer", SANet),
    ],
)
def test_weights_of_another_network_are_told_by_name(
    section: str, key: str, build: Callable[[Context], object], tmp_path: Path
) -> None:
    ctx = Context(profile.load("portable"), cache=tmp_path / "cache", run=tmp_path / "run")
    with pytest.raises(UserError, match=r"lpips-alex: .*(missing|no .* tensor|no tensor|among)") as fault:
        build(change(ctx, **{section: {key: "lpips-alex"}}))
    assert "state_dict" not in str(fault.value)


@pytest.mark.parametrize("name", ["portable", "paper256", "paper1024"])
def test_every_profile_names_known_kinds_and_weights(name: str) -> None:
    chosen = profile.load(name)
    assert chosen.generator.kind in generators.GENERATORS
    for wanted in (chosen.generator.weights, chosen.inverter.weights, chosen.train.weights):
        assert not wanted or weights.find(wanted)
    if chosen.generator.kind == "stylegan2":
        native = int(chosen.name.removeprefix("paper"))
        assert chosen.train.start_layer < len(layer_table(native)) and native % chosen.generator.size == 0


def test_the_average_latent_is_computed_once_and_kept_with_its_seed(
    ctx: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(generators, "AVERAGED", 3000)
    net = generators.generator(ctx)
    average = generators.average_latent(ctx, net)
    torch.testing.assert_close(average, net.mean_latent(3000, ctx.profile.seed))
    (kept,) = (tmp_path / "home").rglob("latent_avg/*.safetensors")
    assert checkpoint.load(kept)[1] == {
        "generator": ctx.profile.generator.weights,
        "samples": 3000,
        "seed": 0,
        "sha256": weights.sha256(ctx.profile.generator.weights),
    }
    monkeypatch.setattr(StyleGAN2, "mean_latent", None)  # not computed again
    assert torch.equal(generators.average_latent(ctx, net), average)


def test_latents_have_the_generators_slots_and_are_its_own(ctx: Context, tmp_path: Path) -> None:
    assert latents.num_ws(ctx) == 4
    invert = inversions.inversion(ctx)
    latent = invert(torch.rand(1, 3, 256, 256) * 2 - 1)
    assert torch.equal(latent, torch.ones(1, 4, 512)) and invert.generator(latent).shape == (1, 3, SIZE, SIZE)
    made = compatibility.identity(ctx)
    provenance = {
        "params": {
            "generator": ctx.profile.section_dict("generator"),
            "inverter": ctx.profile.section_dict("inverter"),
        },
        "weights": dict(made.values()),
    }
    assert compatibility.made_with(provenance) == made == compatibility.made_with({"latents": made})
    compatibility.refuse_others(ctx, provenance, tmp_path)
    compatibility.refuse_others(ctx, {}, tmp_path)
    save_file(StyleGAN2(SIZE).state_dict(), tmp_path / "other.safetensors")
    other = change(ctx, generator={"weights": f"{tmp_path}/other.safetensors"})
    with pytest.raises(
        UserError,
        match=r"latents are of generator .*/generator.safetensors .* and encoder .*, profile "
        r"paper256 has generator .*/other.safetensors",
    ):
        compatibility.refuse_others(other, provenance, tmp_path)
    (tmp_path / "generator.safetensors").write_bytes((tmp_path / "other.safetensors").read_bytes())
    with pytest.raises(UserError, match="latents are of generator"):  # the same name, another file
        compatibility.refuse_others(ctx, {"latents": made}, tmp_path)


def test_heads_are_the_profiles_and_hyperstyle_is_a_start(ctx: Context, tmp_path: Path) -> None:
    table = layer_table(256, 0.5)[-3:]
    for heads, rank in (("channel", 0), ("separable", 2)):
        net = hypernetworks.new_hypernetwork(change(ctx, train={"heads": heads, "rank": 2, "width": 8}), table)
        assert type(net) is HyperNetwork and net.heads[0].rank == rank
    save_file({n: t.half() for n, t in net.state_dict().items()}, tmp_path / "heads.safetensors")
    mine = {"heads": "separable", "rank": 2, "width": 8, "weights": f"{tmp_path}/heads.safetensors"}
    before = torch.get_rng_state()
    loaded = hypernetworks.trained_hypernetwork(change(ctx, train=mine), table).state_dict()
    assert torch.equal(torch.get_rng_state(), before)  # what is loaded whole is not drawn first
    assert all(torch.equal(loaded[n], t.half().float()) for n, t in net.state_dict().items())
    with pytest.raises(UserError, match=r"train.heads is 'big'; expected channel, separable or hyperstyle"):
        hypernetworks.new_hypernetwork(change(ctx, train={"heads": "big"}), table)
    for ask in (lambda: hypernetworks.trained_hypernetwork(ctx, table), lambda: hypernetworks.sha256(ctx)):
        with pytest.raises(UserError, match=r"no train.weights; run `hypernst train` first"):
            ask()
    theirs = HyperStyle(table, (0, 1)).state_dict()
    save_file(theirs, tmp_path / "hyperstyle.safetensors")
    start = change(ctx, train={"weights": f"{tmp_path}/hyperstyle.safetensors", "project_content": False})
    net = hypernetworks.new_hypernetwork(start, table)
    assert isinstance(net, RegionHyperStyle) and hypernetworks.start(start, net) == "reconstruct"
    again = hypernetworks.trained_hypernetwork(start, table)
    for mine in (net, again):
        assert all(torch.equal(t, mine.state_dict()[f"net.{n}"]) for n, t in theirs.items())
    with pytest.raises(
        UserError, match=r"hyperstyle.safetensors: not a HyperStyle hypernetwork for this generator's 3"
    ):
        hypernetworks.trained_hypernetwork(start, layer_table(256, 1)[-3:])
    ours = tmp_path / "ours.safetensors"
    save_file({n: t.half() for n, t in net.state_dict().items()}, ours)
    assert hypernetworks.start(change(start, train={"weights": str(ours)}), net) == "stylize"


def test_files_that_do_not_fit_the_profile_are_told(ctx: Context, encoder: Path, tmp_path: Path) -> None:
    save_file(StyleGAN2(2 * SIZE, depth=1).state_dict(), tmp_path / "larger.safetensors")
    with pytest.raises(
        UserError, match=r"encoder .*encoder.safetensors gives 4 latents but generator .*larger.* takes 6"
    ):
        inversions.inversion(change(ctx, generator={"weights": f"{tmp_path}/larger.safetensors"}))
    with pytest.raises(UserError, match=r"generator.safetensors: a 8 px StyleGAN2 .* cannot give images of 256 px"):
        generators.generator(change(ctx, generator={"size": 256}))
    with pytest.raises(UserError, match=r"encoder.safetensors: not a StyleGAN2 generator"):
        generators.generator(change(ctx, generator={"weights": str(encoder)}))
    with pytest.raises(
        UserError, match=r"generator.kind is 'tiny', but hypernst works with mobilestylegan or stylegan2"
    ):
        generators.generator(change(ctx, generator={"kind": "tiny"}))
