"""A run knows its generator, its encoder and its samples by their content."""

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import weights
from pipeline.errors import UserError
from pipeline.training import checkpoint
from stages.loaders import generator as generators
from stages.loaders import hypernetwork as hypernetworks
from stages.train import run as train
from tests.support import small_run

pytestmark = pytest.mark.weights  # LPIPS


@pytest.fixture(scope="module", autouse=True)
def installed() -> Iterator[None]:
    with small_run.installed():
        yield


def test_a_run_knows_what_it_was_started_with(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    ctx = small_run.context(tmp_path, "known")
    made = {"encoder": "imagenet (aladin 0123)", "latents": {}}
    small_run.write_shards(ctx, made=made)
    train.run(ctx, shipped=False, steps=1)
    known = checkpoint.load(ctx.run / "checkpoint.safetensors")[1]
    assert known["recipe"].items() >= (made | {"seed": 0, "generator.kind": "mobilestylegan"}).items()
    assert known["recipe"]["generator"] == weights.sha256("mobilestylegan")
    capsys.readouterr()
    small_run.write_shards(ctx, made=made)
    train.run(ctx, steps=1, export=tmp_path / "export.safetensors")
    assert " was " not in capsys.readouterr().err  # packed again, but the same samples
    small_run.write_shards(ctx, count=4, made=made)
    train.run(ctx, steps=2)
    told = [line for line in capsys.readouterr().err.splitlines() if " was " in line]
    assert [line.partition(" was '")[0] for line in told] == ["train: content", "train: style"]
    assert all("'3 samples " in line and "is '4 samples " in line and "--run to start anew" in line for line in told)
    small_run.write_shards(ctx, made=made | {"encoder": "vit (sae-aladin 4567)"})
    with pytest.raises(UserError, match=r"started with encoder imagenet \(aladin 0123\), not vit \(sae.*name another"):
        train.run(ctx, steps=3)
    small_run.write_shards(ctx, made=made)
    other = dataclasses.replace(ctx, profile=dataclasses.replace(ctx.profile, seed=1))
    with pytest.raises(UserError, match="was started with seed 0, not 1; name another folder with --run"):
        train.run(other, steps=3)
    copied = f"{shutil.copyfile(weights.path('head256'), tmp_path / 'head.safetensors')}"
    net = generators.generator(ctx)
    for head in (copied, str(weights.path("parser"))):
        section = dataclasses.replace(ctx.profile.generator, head=head)
        other = dataclasses.replace(ctx, profile=dataclasses.replace(ctx.profile, generator=section))
        if head == copied:  # the same head under another name
            assert hypernetworks.trained_hypernetwork(other, net.layer_table())
            train.run(other, steps=2)
            continue
        with pytest.raises(UserError, match=r"was started with generator\.head"):
            train.run(other, steps=3)
        with pytest.raises(UserError, match=r"was trained with generator\.head .* name the --profile"):
            hypernetworks.trained_hypernetwork(other, net.layer_table())
