"""What programs read of the commands, and tables that fit a terminal."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from rich.cells import cell_len

from pipeline import profile, weights
from pipeline.context import Context
from pipeline.reports.text_tables import text_table
from pipeline.training import checkpoint
from stages.cli import main
from stages.preprocess import shards
from tests.support.caches import fill

COUNT = 20


@pytest.fixture(scope="module")
def ctx(tmp_path_factory: pytest.TempPathFactory) -> Context:
    base = tmp_path_factory.mktemp("json")
    ctx = Context(profile.load("tiny"), cache=base / "cache", content=base / "content", style=base / "style")
    for collection, count in (("content", COUNT), ("style", 5)):
        fill(ctx, collection, count)
    shards.run(ctx)
    return ctx


def told(*words: str | Path, status: int = 0) -> Any:
    """The JSON that a command prints: nothing else, in ASCII, and without NaN, which is none."""
    result = CliRunner().invoke(main.cli, [*map(str, words), "--json"], catch_exceptions=False)
    assert result.exit_code == status, result.output
    assert result.stdout.isascii()
    return json.loads(result.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_inspect(ctx: Context, tmp_path: Path) -> None:
    cache = told("inspect", ctx.file("content", "latents"), "--key", "content0002")
    assert (cache["rows"], cache["rejects"], cache["keys"]) == (COUNT, 0, ["content0000", "content0019"])
    assert cache["provenance"]["stage"] == "latents"
    (latent,) = (d for d in cache["datasets"] if d["dataset"] == "latent")
    assert latent["shape"] == [COUNT, 4, 16] and latent["range"]["least"] <= latent["range"]["mean"]
    assert cache["row"]["latent"]["shape"] == [4, 16]
    packed = told("inspect", ctx.shards)
    assert packed["samples"] == COUNT + 5 == sum(shard["samples"] for shard in packed["shards"])
    assert {member["member"] for member in packed["members"]} == {"image", "region", "latent", "codes"}
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, {"a": torch.tensor([1.0, math.nan, math.inf]), "b": torch.zeros(30)}, {"step": 3})
    kept = told("inspect", path, "--full", "--key", "a")
    assert kept["numbers"] == 33 and kept["provenance"]["step"] == 3 and kept["row"]["values"] == [1.0, None, None]
    assert kept["tensors"][0]["range"] == {"least": 1.0, "most": None, "mean": None, "nan": 1, "unit": ""}


def test_verify_and_explain(ctx: Context) -> None:
    words = [f"--{name}={getattr(ctx, name)}" for name in ("cache", "content", "style")] + ["--profile=tiny"]
    assert told("verify", *words)["problems"] == []
    path = ctx.file("style", "masks")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    try:
        found = told("verify", *words, status=1)
    finally:
        path.write_bytes(whole)
    assert found["left"] == len(found["problems"]) > 0 and found["problems"][0]["path"] == str(path)
    steps = told("explain", *words)
    assert {row["stage"] for row in steps} >= {"align", "latents", "parse", "masks", "aladin-codes", "shards"}
    assert [row["samples"] for row in steps if row["stage"] == "shards"] == [COUNT + 5]
    latents = next(row for row in steps if row["stage"] == "latents" and row["collection"] == "content")
    assert latents["inputs"] == COUNT and latents["cached"] + latents["to_compute"] == COUNT
    assert told("explain", "shards", *words)[0]["stage"] == "shards"
    assert "shards" in told("explain", "--names", *words)


def test_weights_and_doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("HYPERNST_WEIGHTS", raising=False)
    entries = {entry["name"]: entry for entry in told("weights", "list")}
    assert list(entries) == list(weights.REGISTRY)
    assert entries["hyperstyle-ffhq-1024"] | {"origin": ""} == {
        "name": "hyperstyle-ffhq-1024", "state": "missing", "mb": 1331.0, "needed_by": ["paper1024"], "path": None,
        "what": weights.REGISTRY["hyperstyle-ffhq-1024"].what, "origin": "",
        "licence": weights.REGISTRY["hyperstyle-ffhq-1024"].licence,
    }  # fmt: skip
    assert entries["hypernet"]["state"] == "have" and Path(entries["hypernet"]["path"]).is_file()
    assert [entry["name"] for entry in told("weights", "list", "yunet")] == ["yunet"]
    machine = told("doctor", "--profile", "tiny")
    assert machine["weights"]["missing"]["lpips-alex"] == "run `hypernst weights fetch lpips-alex`"
    assert machine["memory"]["total"] >= machine["memory"]["available"] > 0 and machine["device"]["cpu_cores"] >= 1
    assert machine["memory"]["enough"]["training"] == (machine["memory"]["training"] < machine["memory"]["total"])


@pytest.mark.parametrize("width", [60, 100])
def test_tables_wrap_to_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for words in (["weights", "list"], ["doctor", "--profile", "tiny"]):
        result = CliRunner().invoke(main.cli, words, catch_exceptions=False)
        table = result.stdout.splitlines()[:-1]
        assert max(map(len, table)) <= width and len(table) > 10
        if words == ["weights", "list"] and width == 100:
            at = next(i for i, line in enumerate(table) if line.startswith("yunet"))
            assert table[at + 2] == f"  what: {weights.REGISTRY['yunet'].what}"


def test_a_table_keeps_every_letter_of_any_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    rows = [("[bold]a[/bold]", "x" * 70), ("漢字" * 8, "12"), ("b", ":smile: [link=x]")]
    text = text_table(("one", "two"), rows, numbers=["two"])
    assert max(map(cell_len, text.splitlines())) <= 30
    plain = text.replace("\n", "").replace(" ", "")
    assert plain.count("x") == 71 and plain.count("漢") == 8 and "[bold]a[/bold]" in plain.replace("x", "")
    monkeypatch.setenv("COLUMNS", "0")
    assert text_table(("one", "two"), [("a", "x" * 500)]).splitlines()[1] == f"a    {'x' * 500}"
