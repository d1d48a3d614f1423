"""Importing published weights: every layout is known and kept whole, under the name that fits it."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from models.discriminators.image import ImageDiscriminator
from models.discriminators.patch import PatchDiscriminator
from models.encoders.e4e import PSP, Encoder4Editing, WEncoder
from models.generators import stylegan2
from models.generators.stylegan2 import StyleGAN2
from models.hypernetworks import hyperstyle
from pipeline import hashing, weights
from pipeline.errors import UserError
from stages.cli.main import cli
from stages.weights_import import identify, importer
from stages.weights_import.structure import structure
from tests.support import published_files
from tests.support.torchscripts import farl, scripted
from tests.support.weights_import import own_cache, refused, same, shapes, take, theirs


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_cache(tmp_path / "cache", monkeypatch)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_trained_generator(tmp_path: Path, legacy: bool) -> None:
    state = published_files.generator()
    path = published_files.trained(tmp_path / "550000.pt", state, legacy)
    done = take(path, tmp_path / "mine.safetensors")
    assert same(load_file(tmp_path / "mine.safetensors"), state)
    assert "StyleGAN2 generator (size 8, mapping layers 2)" in str(done)
    assert "no latent_avg" in str(done) and done.sha256 == hashing.sha256(path) and done.sha256 in str(done)
    with safe_open(tmp_path / "mine.safetensors", framework="pt") as file:
        about = json.loads(file.metadata()["about"])
    assert about["source_sha256"] == done.sha256 and about["source"] == "550000.pt"
    assert StyleGAN2.load(weights.tensors(str(tmp_path / "mine.safetensors"))).native == 8


def test_a_converted_generator_keeps_its_average(tmp_path: Path) -> None:
    state = published_files.generator()
    take(published_files.converted(tmp_path / "g.pt", state), tmp_path / "mine.safetensors")
    assert same(load_file(tmp_path / "mine.safetensors"), state | {"latent_avg": torch.arange(512.0)})


@pytest.mark.parametrize("size", [8, 32])
def test_a_discriminator_is_another_part_of_its_generators_file(tmp_path: Path, size: int) -> None:
    state, discriminator = published_files.generator(), published_files.discriminator(size)
    mine = tmp_path / "discriminator.safetensors"
    path = tmp_path / "both.pt"
    torch.save({"g_ema": state, "d": discriminator}, path)
    both = published_files.nvidia(tmp_path / "both.pkl", state, discriminator=discriminator)
    alone = published_files.nvidia(tmp_path / "alone.pkl", {}, discriminator=discriminator)
    for file in (path, both, alone):
        done = take(file, mine, kind="" if file is alone else "stylegan2-discriminator", replace=True)
        assert same(load_file(mine), discriminator) and f"StyleGAN2 discriminator (size {size}" in str(done)
        assert ImageDiscriminator.load(weights.tensors(str(mine))).size == size
        assert (file is alone) != (
            "StyleGAN2 generator (size 8, mapping layers 2); use `--part stylegan2` to take it" in str(done)
        )
        assert "StyleGAN2 discriminator" in importer.verify(str(mine))
    assert "; expected size 256" in refused(path, "stylegan2-discriminator-ffhq-256")
    told = refused(path, tmp_path / "no.safetensors", kind="e4e")
    assert "--part is 'e4e', expected stylegan2 or stylegan2-discriminator" in told


def test_nvidias_pickle_is_read_without_running_its_source(tmp_path: Path) -> None:
    state = published_files.generator(64, 1)
    trap = tmp_path / "ran"
    path = published_files.nvidia(tmp_path / "ffhq.pkl", state, trap)
    done = take(path, tmp_path / "mine.safetensors")
    assert same(load_file(tmp_path / "mine.safetensors"), state | {"latent_avg": torch.arange(512.0)})
    assert "size 64, multiplier 1, mapping layers 2" in str(done) and not trap.exists()
    odd = {"synthesis.b8.conv2.weight": torch.zeros(1)}
    path = published_files.nvidia(tmp_path / "odd.pkl", state, trap, **odd)
    assert "1 tensors are unexpected (synthesis.b8.conv2.weight" in refused(path, tmp_path / "odd.safetensors")
    path = published_files.nvidia(tmp_path / "sg3.pkl", state, trap, **{"synthesis.L0_36_512.weight": torch.zeros(1)})
    assert "a StyleGAN3 generator" in refused(path)


@pytest.mark.parametrize("namespace", [False, True])
def test_an_encoder_brings_its_generator(tmp_path: Path, namespace: bool) -> None:
    encoder = shapes(Encoder4Editing, 14)
    decoder = published_files.generator()
    parts = {"encoder": encoder, "decoder": decoder}
    path = published_files.psp(tmp_path / "e4e.pt", parts, "Encoder4Editing", namespace, 14)
    parts_found = identify.read(path)
    assert [str(part) for part in parts_found] == [
        "e4e encoder (styles 14)",
        "StyleGAN2 generator (size 8, mapping layers 2)",
    ]
    structure("e4e", parts_found[0].tensors)
    assert parts_found[0].tensors.keys() == encoder.keys() | {"latent_avg"}
    assert same(parts_found[1].tensors, decoder | {"latent_avg": torch.zeros(14, 512)})
    assert "is an e4e encoder (styles 14); expected styles 18 for e4e-ffhq-1024" in refused(path, "e4e-ffhq-1024")
    other = published_files.psp(tmp_path / "psp.pt", parts, "GradualStyleEncoder", namespace, 14)
    assert "is a pSp encoder (styles 14)" in refused(other, "e4e-ffhq-1024")
    structure("psp", identify.read(other)[0].tensors)


def test_a_psp_encoder_stays_one(tmp_path: Path) -> None:
    encoder = shapes(PSP, 4)
    found = identify.of_state(
        {
            "state_dict": {f"encoder.{name}": t for name, t in encoder.items()},
            "latent_avg": torch.ones(4, 512),
            "opts": {"encoder_type": "GradualStyleEncoder"},
        }
    )
    assert [str(part) for part in found] == ["pSp encoder (styles 4)"]
    assert identify.of_kind("psp", found[0].tensors) == found[0]
    without = argparse.Namespace(encoder_type="GradualStyleEncoder", start_from_latent_avg=False)
    found = identify.of_state(
        {
            "state_dict": {f"encoder.{name}": t for name, t in encoder.items()},
            "latent_avg": torch.ones(4, 512),
            "opts": without,
        }
    )
    assert not found[0].tensors["latent_avg"].any()  # its latents are whole, not offsets
    place = tmp_path / "mine.safetensors"
    save_file({"x": torch.zeros(1)}, place)
    assert weights.kind(str(place)) == "" and weights.kind("psp-ffhq-1024") == "psp"
    save_file({"x": torch.zeros(1)}, place, {"about": json.dumps({"kind": "psp"})})
    assert weights.kind(str(place)) == "psp"


def test_a_w_encoder(tmp_path: Path) -> None:
    state = shapes(WEncoder, 18)
    both = {"encoder": state, "decoder": published_files.generator()}
    path = published_files.psp(tmp_path / "w.pt", both, "WEncoder")
    part = identify.read(path)[0]
    assert part.kind == "w-encoder" and part.tensors.keys() == state.keys() | {"latent_avg"}
    structure("w-encoder", part.tensors)


def test_hyperstyle_without_its_aliases(tmp_path: Path) -> None:
    table = stylegan2.layer_table(1024, 2)
    with torch.device("meta"):
        meta = hyperstyle.HyperStyle(table, [0, 2, 12, 13, 25]).state_dict()
    one = torch.zeros(1)
    state = {name: one.expand(t.shape) if t.is_floating_point() else one[0].long() for name, t in meta.items()}
    shared = {name: t for name, t in state.items() if name.startswith("shared_weight_hypernet.")}
    aliases = {
        f"refinement_blocks.{i}.hypernet.{name.split('.')[1]}": t for i in (0, 2, 12) for name, t in shared.items()
    }
    opts = argparse.Namespace(layers_to_tune="0,2,12,13,25", output_size=1024)
    found = identify.of_state(
        {
            "state_dict": {f"hypernet.{n}": t for n, t in (state | aliases).items()},
            "latent_avg": torch.zeros(512),
            "opts": opts,
        }
    )
    assert str(found[0]) == "HyperStyle hypernetwork (layers 5 up to 25)" and found[0].tensors.keys() == state.keys()
    structure("hyperstyle", found[0].tensors)
    with pytest.raises(ValueError, match="HyperStyle"):
        structure("hyperstyle", {n: t for n, t in found[0].tensors.items() if n != "conv1.weight"})


def test_the_swapping_autoencoders_discriminators_are_two_networks(tmp_path: Path) -> None:
    patch = PatchDiscriminator(width=0.05).state_dict()
    image = ImageDiscriminator(16, base=256, top=32).state_dict()
    path = tmp_path / "latest_checkpoint.pth"
    named = {"Dpatch": theirs(patch), "D": theirs(image, "stylegan2_D.")}
    torch.save(
        {f"{p}.{name}": t for p, own in named.items() for name, t in own.items()}
        | {"num_discriminator_iters": torch.zeros(1), "E.x": torch.zeros(1)},
        path,
    )
    done = take(path, "sae-patch")
    assert "the file also holds: Swapping Autoencoder image discriminator" in str(done)
    assert same(PatchDiscriminator.load(weights.tensors("sae-patch")).state_dict(), patch)
    take(path, "sae-image")
    assert same(ImageDiscriminator.load(weights.tensors("sae-image")).state_dict(), image)
    for name in ("sae-patch", "sae-image"):
        assert "discriminator, as it should be" in importer.verify(name)


def test_of_facers_network_only_the_tensors_are_kept(tmp_path: Path) -> None:
    path = scripted(tmp_path / "parser.pt", farl(19), out_size=[448, 448])
    done = take(path)
    assert done.name == "farl-celebm" and "classes 19, output [448, 448]); 239 tensors, none missing" in str(done)
    assert "not that of the published file (bbc1f0e9f68c80eb…)" in str(done)
    assert same(weights.tensors("farl-celebm"), farl(19)) and weights.facts("farl-celebm")["output"] == [448, 448]
    assert "FaRL face parser (classes 19), as it should be" in importer.verify("farl-celebm")
    weights.path("farl-celebm").unlink()  # it is large
    path = scripted(tmp_path / "other.pt", farl(11))
    with pytest.raises(UserError, match=r"classes 11.*expected classes 19 for farl-celebm"):
        take(path, "farl-celebm")


def test_a_boundary(tmp_path: Path) -> None:
    direction = np.eye(1, 512, dtype=np.float32)
    np.save(tmp_path / "age.npy", direction)
    take(tmp_path / "age.npy", tmp_path / "age.safetensors")
    assert torch.equal(load_file(tmp_path / "age.safetensors")["direction"], torch.from_numpy(direction))
    for name, tensor in {"age": torch.from_numpy(direction), "pose": torch.eye(1, 512).expand(1, 18, 512)}.items():
        torch.save(tensor, tmp_path / f"{name}.pt")  # as e4e publishes them
        take(tmp_path / f"{name}.pt")
        assert torch.equal(weights.tensors(f"direction-{name}")["direction"], torch.from_numpy(direction))
    torch.save(torch.eye(18, 512)[None], tmp_path / "mixed.pt")
    assert "[1, 18, 512] of float32 whose layers differ" in refused(tmp_path / "mixed.pt", tmp_path / "m.safetensors")
    torch.save(torch.zeros(()), tmp_path / "none.pt")
    assert "expected a boundary [1, 512]" in refused(tmp_path / "none.pt", tmp_path / "m.safetensors")
    np.save(tmp_path / "long.npy", 3 * direction)
    told = refused(tmp_path / "long.npy", tmp_path / "long.safetensors")
    assert "length 3.000; expected a direction of length 1" in told


def test_another_file_under_a_known_name_is_taken_only_on_demand(tmp_path: Path) -> None:
    name = str(tmp_path / "mine.safetensors")
    take(published_files.converted(tmp_path / "a.pt", published_files.generator(seed=1)), name)
    first = hashing.sha256(Path(name))
    other = published_files.converted(tmp_path / "b.pt", published_files.generator(seed=2))
    with pytest.raises(UserError, match=r"another file than .* was first imported from .*--replace"):
        take(other, name)
    assert hashing.sha256(Path(name)) == first
    take(other, name, replace=True)
    assert importer.verify(name).endswith("…")
    Path(name).write_bytes(Path(name).read_bytes() + b" ")
    with pytest.raises(UserError, match=r"has changed since .*import b\.pt again"):
        importer.verify(name)


def test_names_lead_to_what_fits_them(tmp_path: Path) -> None:
    path = published_files.converted(tmp_path / "g.pt", published_files.generator())
    told = refused(path)
    assert "is a StyleGAN2 generator (size 8" in told and "stylegan2-ffhq-256, stylegan2-ffhq-256-nvidia" in told
    assert "expected size 256 for stylegan2-ffhq-256" in refused(path, "stylegan2-ffhq-256")
    assert "expected an e4e encoder for e4e-ffhq-1024" in refused(path, "e4e-ffhq-1024")
    narrow = published_files.converted(tmp_path / "narrow.pt", published_files.generator(256, 1))
    assert "multiplier 1, mapping layers 2); expected multiplier 2 for stylegan2-ffhq-256" in refused(
        narrow, "stylegan2-ffhq-256"
    )
    assert take(narrow).name == "stylegan2-ffhq-256-nvidia"
    assert "as it should be" in importer.verify("stylegan2-ffhq-256-nvidia")
    with pytest.raises(UserError, match="unknown weights 'stylegan9'"):
        take(path, "stylegan9")
    with pytest.raises(UserError, match=r"get 550000\.pt from https://drive\.google\.com/.*weights import FILE --as"):
        weights.path("stylegan2-ffhq-256")


def test_the_command_tells_what_it_did_or_one_line(tmp_path: Path) -> None:
    path = published_files.converted(tmp_path / "g.pt", published_files.generator())

    def call(*words: object) -> Any:
        return CliRunner().invoke(cli, ["weights", *map(str, words)], catch_exceptions=False)

    done = call("import", path, "--as", tmp_path / "mine.safetensors")
    assert done.exit_code == 0 and "none missing, none unexpected" in done.output and done.output.count("\n") == 3
    wrong = call("import", path, "--as", "stylegan2-ffhq-1024")
    assert wrong.exit_code == 1 and wrong.output.count("\n") == 1 and "expected size 1024" in wrong.output
    assert call("import").exit_code == 2 and call("import", path, path).exit_code == 2
    checked = call("check", tmp_path / "mine.safetensors")
    assert checked.exit_code == 0 and "sha256" in checked.output
    missing = call("check", "--profile", "paper1024")
    assert missing.exit_code == 1 and "get e4e_ffhq_encode.pt from" in missing.output
