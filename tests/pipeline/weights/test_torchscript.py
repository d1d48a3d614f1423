"""TorchScript archives of unknown origin: their tensors are read bit for bit, and nothing in them is ever run."""

import re
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models.parsing.facexlib_parsers import BiSeNet
from pipeline import weights
from pipeline.errors import UserError
from pipeline.weights import torchscript
from stages.weights_import import identify
from tests.stages.weights_import.test_hostile_files import calls, text
from tests.support.goldens import Case
from tests.support.torchscripts import Holder, farl, scripted
from tests.support.weights_import import own_cache, refused, take

HEAD = b"\x80\x02"
MODULE = b"c__torch__\nNet\n)\x81"
ROOT = Path(torchscript.__file__).parent.parent


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_cache(tmp_path / "cache", monkeypatch)
    warnings.simplefilter("ignore", FutureWarning)  # torch warns that TorchScript is deprecated


class Evil(nn.Module):
    """Writes a file when it runs; its tensors are those of a face parser."""

    def __init__(self, trap: str) -> None:
        super().__init__()
        self.trap, self.head = trap, nn.ModuleDict({"head": nn.ModuleDict({"conv_seg": nn.Conv2d(768, 11, 1)})})

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.from_file(self.trap, shared=True, size=4).sum()


def archive(path: Path, pickled: bytes, members: dict[str, bytes] | None = None, root: str = "net") -> Path:
    """A TorchScript archive of that pickle."""
    with zipfile.ZipFile(path, "w") as box:
        box.writestr(f"{root}/data.pkl", pickled)
        box.writestr(f"{root}/code/__torch__.py", "raise SystemExit")
        for name, data in (members or {}).items():
            box.writestr(name, data)
    return path


def module(body: bytes) -> bytes:
    """A pickle of one module with attributes set by `body`, instructions that put names and values on the stack."""
    return HEAD + MODULE + b"}(" + body + b"ub."


def storage(count: int, kind: bytes = b"Float", record: bytes = b"0") -> bytes:
    """The instructions for a storage."""
    return (
        b"("
        + text("storage")
        + b"ctorch\n"
        + kind
        + b"Storage\n"
        + text(record.decode())
        + text("cpu")
        + b"J"
        + count.to_bytes(4, "little", signed=True)
        + b"tQ"
    )


def tensor(count: int, shape: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    """The instructions for a tensor."""
    numbers = [
        b"(" + b"".join(b"J" + n.to_bytes(4, "little", signed=True) for n in group) + b"t" for group in (shape, stride)
    ]
    first = b"J" + offset.to_bytes(4, "little", signed=True)
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage(count)
        + first
        + b"".join(numbers)
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )


def test_a_networks_program_is_never_run(tmp_path: Path) -> None:
    trap, path = tmp_path / "made-by-the-file", tmp_path / "evil.lapa.pt"
    torch.jit.script(Evil(str(trap))).save(str(path))
    for name in ("farl-lapa", tmp_path / "mine.safetensors", ""):
        assert "of 239 tensors are missing" in refused(path, name)
    assert not trap.exists()
    with pytest.raises(UserError, match=r"none of the known networks.*no program of a file is ever run"):
        identify.read(scripted(tmp_path / "other.pt", {"a.b": torch.zeros(2)}))


def test_nothing_here_loads_programs() -> None:
    for folder in ("pipeline", "stages", "models"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not re.search(r"torch\.jit\.(load|script|trace)|jit_load|weights_only=False", path.read_text()), path


def test_tensors_are_those_of_the_state_dict(tmp_path: Path) -> None:
    rng = torch.Generator().manual_seed(0)
    base = torch.randn(4, 6, generator=rng)
    state = {
        "w": base,
        "inner.view": base[1:3, ::2],
        "inner.turned": base.T,
        "tied": base,
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 5),
        "inner.deep.h16": base.half(),
        "inner.deep.b16": base.bfloat16(),
        "whole": torch.arange(5),
        "u8": torch.arange(7, dtype=torch.uint8),
        "flags": base > 0,
        "f64": base.double(),
        "repeated": torch.ones(1).expand(3, 4),
    }
    path = scripted(tmp_path / "net.pt", state, sizes=[3, 4], title="ä", rate=0.5, on=True, pair=(1, 2))
    script = torchscript.read(path)
    expected = torch.jit.load(str(path)).state_dict()
    assert list(script.tensors) == list(expected)
    for name, t in expected.items():
        assert script.tensors[name].dtype == t.dtype and torch.equal(script.tensors[name], t), name
    attributes = {"sizes": [3, 4], "title": "ä", "rate": 0.5, "on": True, "pair": (1, 2)}
    assert attributes.items() <= script.attributes.items()
    assert torchscript.read(path.read_bytes()).tensors.keys() == script.tensors.keys()


def test_any_known_network_may_come_as_torchscript(tmp_path: Path) -> None:
    tensors = Case("bisenet19").tensors()
    done = take(scripted(tmp_path / "net.pt", tensors), tmp_path / "mine.safetensors")
    assert done.part.kind == "bisenet" and BiSeNet.load(weights.tensors(done.name))


@pytest.mark.slow
def test_the_published_names_come_out_whole(tmp_path: Path) -> None:
    tensors = Case("farl_net_lapa").tensors()
    take(scripted(tmp_path / "net.pt", tensors, out_size=[512, 512]), "farl-lapa")
    kept = weights.tensors("farl-lapa")
    assert kept.keys() == tensors.keys() and all(torch.equal(kept[name], t) for name, t in tensors.items())


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"input_resolution": 224}, "whose input_resolution is 224; expected 448"),
        ({"output_indices": [2, 5, 8, 11]}, r"whose output_indices is a list; expected \[3, 5, 7, 11\]"),
        ({"out_size": 512}, "whose out_size is 512; expected a height and a width"),
    ],
)
def test_a_network_that_works_otherwise_is_refused(tmp_path: Path, attributes: dict, message: str) -> None:
    path = scripted(tmp_path / "net.pt", farl(11), **attributes)
    assert re.search(message, refused(path, "farl-lapa"))


def test_no_instruction_of_its_pickle_gets_to_run(tmp_path: Path) -> None:
    trap = tmp_path / "ran"
    for name, body in calls(trap).items():
        message = refused(archive(tmp_path / "net.pt", HEAD + body), tmp_path / "kept.safetensors")
        assert re.search(r"a pickle (that|with) .*, which weights never need; nothing in it was run", message), name
        assert not trap.exists(), name


@pytest.mark.parametrize(
    "body",
    [
        b"ctorch.jit._pickle\nbuild_intlist\n}b.",  # changes a function
        MODULE + b"K\x01b.",
        MODULE + b"}K\x01K\x02sb.",
        b"ctorch.jit._pickle\nbuild_intlist\n)\x81.",
        b"c__torch__\nNet\n]\x81.",
        b"ctorch\nFloatStorage\n)R.",
        b"c__torch__\nNet\n)R.",
        b"ccollections\nOrderedDict\n(]tR.",
        b"}]K\x01s.",
        b"K\x01K\x02a.",
        b"(" + text("module") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x01tQ.",
        b"(" + text("storage") + b"c__torch__\nNet\n" + text("0") + text("cpu") + b"K\x01tQ.",
    ],
)
def test_instructions_are_for_what_they_are_for(tmp_path: Path, body: bytes) -> None:
    message = refused(archive(tmp_path / "net.pt", HEAD + body))
    assert re.search(r"a pickle (that|with) .*, which weights never need", message) or "damaged" in message


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (tensor(4, (5,), (1,)), "outside its 4 numbers"),
        (tensor(4, (4,), (1,), 1), "outside its 4 numbers"),
        (tensor(4, (4,), (-1,), 3), "not plain numbers"),
        (tensor(4, (1,) * 9, (1,) * 9), "not plain numbers"),
        (tensor(5, (5,), (1,)), "storage 0 has 16 bytes, expected 20"),
        (tensor(2**31 - 1, (2**31 - 1,), (1,)), "claims more numbers than its"),
        (tensor(4, (2**31 - 1,), (0,)), "claims 2.1e+09 values"),
        (b"]" + tensor(4, (4,), (1,)) + b"a", "without named tensors: it was frozen"),
        (storage(4), "without named tensors"),
    ],
)
def test_tensors_lie_inside_their_storage(tmp_path: Path, body: bytes, message: str) -> None:
    path = archive(tmp_path / "net.pt", module(text("x") + body), {"net/data/0": bytes(16)})
    assert message in refused(path)


def test_modules_within_themselves_come_to_an_end(tmp_path: Path) -> None:
    ring = HEAD + MODULE + b"q\x00}(" + text("n" * 500) + b"h\x00ub."
    twice = HEAD + MODULE + b"q\x00"
    for level in range(1, 40):
        twice += MODULE + b"}(" + text("a") + b"h" + bytes([level - 1]) + text("b") + b"h" + bytes([level - 1]) + b"ub"
        twice += b"q" + bytes([level])
    nested = HEAD + MODULE + b"}(" + (text("a") + MODULE + b"}(") * 5000 + b"ub" * 5001 + b"."
    for pickled in (ring, twice + b".", nested):
        assert "entries, or with modules within themselves" in refused(archive(tmp_path / "net.pt", pickled))
    tuples = HEAD + b")" + b"\x85" * 400_000 + b"."
    assert "without a module" in refused(archive(tmp_path / "net.pt", tuples))
    long = HEAD + b"N" * 600_000 + b"."
    assert "a pickle of more than 500000 instructions" in refused(archive(tmp_path / "net.pt", long))


def test_archives_that_no_pytorch_wrote(tmp_path: Path) -> None:
    good, path = module(text("x") + tensor(4, (4,), (1,))), tmp_path / "net.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns about a name that occurs twice
        for members in ({"net/data.pkl": b""}, {"other/data/0": bytes(16)}, {"net/../data/0": bytes(16)}):
            assert "several roots; expected one that PyTorch wrote" in refused(archive(path, good, members))
    assert "without net/data/0" in refused(archive(path, good))
    assert "another order of bytes" in refused(archive(path, good, {"net/data/0": bytes(16), "net/byteorder": b"big"}))
    assert "a damaged TorchScript archive" in refused(archive(path, b""))
    with zipfile.ZipFile(path, "w") as box:
        box.writestr("net/data.pkl", HEAD + MODULE + b".")
        box.writestr("net/constants.pkl", HEAD + b").")
    assert "without named tensors" in refused(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as box:
        box.writestr("net/data.pkl", good)
        box.writestr("net/code/x.py", "")
        box.writestr("net/data/0", bytes(16))
    assert "not packed" in refused(path)
    frozen = torch.jit.freeze(torch.jit.script(Holder().eval()))
    frozen.save(str(path))
    assert "without named tensors: it was frozen" in refused(path)
