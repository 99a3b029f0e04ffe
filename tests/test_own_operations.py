"""Operations of one's own: registered by a plugin, searched, trained, exported; and who may import it."""

from __future__ import annotations

import html
import json
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import nge_search
from nge_search import operation_registry
from nge_search.architecture.cell_space import CellSpace
from nge_search.architecture.genotype import Cell, Genotype
from nge_search.architecture.load import load_genotype
from nge_search.cli import main
from nge_search.errors import UserError
from nge_search.gradient.bilevel import cuda_graphs
from nge_search.networks.deeplab import DeepLabV3
from nge_search.networks.imagenet import ImageNetNetwork
from nge_search.operations import build_operation
from nge_search.own_operations import in_phases
from nge_search.report.drawing.palette import STYLES, lightness, style_of
from nge_search.settings.search import SearchSection

#: What the tests' search chooses from: the operations of README's my_ops.py.
OPERATIONS = "supernet.operations=[ghost_conv,blur]"
QUICK = ("device=cpu", "search.epochs=1", "search.baselines=false", "search.selection=argmax")
RUN = ("threads=1", "device=cpu", "run.progress=none", "run.tensorboard=false")
SMALL = ("network.channels=2", "network.cells=2", "train.epochs=1", "train.batch_size=16", "data.limit=32")
#: A cell that has both.
CELL = Cell((("ghost_conv", 0), ("blur", 1), ("blur", 0), ("ghost_conv", 2)), (2, 3))


def forget() -> None:
    """As in a new process that has imported no plugin."""
    for name in set(operation_registry.names()) - set(operation_registry.BUILT_IN):
        del operation_registry._OPERATIONS[name]
    operation_registry.trust_files(False)
    sys.modules.pop("my_ops", None)


@pytest.fixture(autouse=True)
def nothing_known(no_plugins, folder, monkeypatch) -> None:
    monkeypatch.chdir(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, checkout, tiny_search) -> Iterator[Path]:
    """README's plugin, what its commands made with it, in short runs, and an export."""
    section = (checkout / "README.md").read_text().partition("**Operations of your own.**")[2]
    code, commands = (section.split("```")[place] for place in (1, 3))
    search, train, show = (shlex.split(line)[1:] for line in commands.strip().splitlines())
    root = tmp_path_factory.mktemp("own")
    forget()
    (root / "my_ops.py").write_text(code.removeprefix("python\n"))
    (root / "configs").symlink_to(checkout / "configs")
    Image.new("L", (8, 8), 99).save(root / "digit.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert main([*search, *tiny_search, *QUICK, OPERATIONS]) == 0
        assert main([*train, *RUN, *SMALL]) == 0
        assert main(show) == 0
        Path("found").symlink_to("runs/search/digits")
        assert main(["export", "runs/eval/digits", "--out", "export", "plugins=[my_ops]"]) == 0
        forget()
    yield root
    forget()


def test_a_search_finds_them_and_says_whose_they_are(folder, capsys):
    document = json.loads((folder / "found" / "genotype.json").read_text())
    names = {name for kind in ("normal", "reduce") for name, _ in document[kind]}
    assert document["plugins"] == dict.fromkeys(sorted(names), "my_ops")
    row = json.loads((folder / "found" / "metrics.jsonl").read_text().splitlines()[0])
    assert row["operations"] == ["ghost_conv", "blur"]
    free = [p[1] for p in row["p_normal"]]  # the blur has no weights
    assert row["parameter_free_normal"] == pytest.approx(sum(free) / len(free))
    report = (folder / "found" / "report.html").read_text()
    assert "plugins=[my_ops]" in report.replace("&#x27;", "'")
    assert "ghost conv" in report


@pytest.mark.parametrize(
    ("words", "word"),
    [
        (["derive", "found"], "--trust-code"),
        (["show", "found", "--json"], "plugins=[my_ops]"),
        (["export", "runs/eval/digits", "--out", "again"], "--trust-code"),
        (["classify", "export", "digit.png"], "plugins=[my_ops]"),
        (["test", "runs/eval/digits"], "--trust-code"),
        (["eval", *RUN, *SMALL, "network.genotype=found", "run.dir=refused"], "plugins=[my_ops]"),
    ],
)
def test_files_import_nothing_until_they_are_trusted(words, word, folder, capsys):
    """A command that names no plugin is refused in one line; with the plugin, or with --trust-code, it works."""
    require_refused(words, capsys)
    assert main([*words, word]) == 0, capsys.readouterr().err
    assert "my_ops" in sys.modules


def require_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """In one line, which says what to do."""
    assert main(words) == 2
    assert "my_ops" not in sys.modules
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "is of the plugin 'my_ops'" in said
    assert "plugins=[my_ops]" in said
    assert "--trust-code" in said


def test_the_config_of_a_run_imports_nothing(folder, capsys):
    """A user's own file may name plugins, a run's may not, even where it is given as --config."""
    words = ["search", "--config", "found/config.yaml", "--print-config"]
    assert main(words) == 2
    assert "my_ops" not in sys.modules
    assert "is the file of a run" in capsys.readouterr().err
    assert main([*words, "--trust-code"]) == 0
    forget()
    capsys.readouterr()
    shutil.copy("found/config.yaml", "mine.yaml")
    assert main(["search", "--config", "mine.yaml", "--print-config"]) == 0
    assert "plugins:\n- my_ops\n" in capsys.readouterr().out


def test_segmentation_takes_them(folder, capsys):
    words = ["data.name=scenes", "data.crop=32", "data.limit=8", "data.workers=0", "network.head_channels=2"]
    more = ["network.channels=2", "network.cells=3", "network.output_stride=16", "network.weights="]
    words += [*RUN, *more, "train.epochs=1", "train.batch_size=4", "plugins=[my_ops]", "network.genotype=cell.json"]
    operation_registry.import_plugins(["my_ops"])
    Path("cell.json").write_text(Genotype(CELL, CELL).to_json())
    summary = nge_search.evaluate(None, "task=segmentation", *words, "run.dir=segmented")
    assert 0 <= summary["miou"] <= 100
    forget()
    words = ["segment", "segmented", "digit.png", "--out", "masks"]
    require_refused(words, capsys)
    assert main([*words, "--trust-code"]) == 0


def test_a_training_with_them_goes_on(folder):
    """From its checkpoint, for one more epoch."""
    shutil.copytree("runs/eval/digits", "longer")
    words = ["--config", "configs/eval/digits.yaml", "plugins=[my_ops]", "network.genotype=found", *RUN, *SMALL]
    assert main(["eval", *words, "run.dir=longer", "train.epochs=2"]) == 0
    before, rows = (Path(run, "metrics.jsonl").read_text().splitlines() for run in ("runs/eval/digits", "longer"))
    assert rows[:1] == before
    assert len(rows) == 2


#: Of a search by one short training of a step.
ASK = (
    *("task=queries", "evaluator.kind=training", "strategy.name=random", "strategy.queries=1", "data.limit=60"),
    *("evaluator.steps=1", "evaluator.batch_size=8", "evaluator.channels=2", "evaluator.cells=2"),
)


def test_short_trainings_take_them(folder, capsys):
    words = ["plugins=[my_ops]", "evaluator.operations=[ghost_conv,blur]", "run.dir=asked"]
    assert main(["search", *RUN, *ASK, *words]) == 0
    document = json.loads(Path("asked/genotype.json").read_text())
    assert set(document["plugins"].values()) == {"my_ops"}
    shown = (capsys.readouterr().out, html.unescape(Path("asked/report.html").read_text()))
    for text in shown:
        assert "network.genotype=asked run.name=asked 'plugins=[my_ops]'" in text


def test_other_processes_cannot_have_what_a_program_registers():
    cell = "import nge_search\nnge_search.register_operation('mine', print)\n"
    exec(compile(cell, "cell", "exec"), {"__name__": "__main__"})
    words = ["evaluator.operations=[mine,skip_connect]", "evaluator.processes=2", "evaluator.pending=2"]
    with pytest.raises(UserError, match=r"evaluator\.processes=2: operation 'mine' was registered by a program"):
        nge_search.search(None, *RUN, *ASK, *words, "run.dir=never")
    assert not Path("never/metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("given", "own", "graphs"),
    [("auto", True, "never"), ("auto", False, "auto"), ("always", True, "always"), ("never", False, "never")],
)
def test_cuda_graphs_are_left_to_those_who_know_their_operations(given, own, graphs, own_operations):
    operations = ("skip_connect", "drift") if own else ("skip_connect", "max_pool_3x3")
    assert cuda_graphs(SearchSection(cuda_graphs=given), CellSpace(operations=operations)) == graphs


def test_from_python(folder):
    """A mapping names plugins as a file does; what is registered in the program needs none."""

    class Twice(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * x

    nge_search.register_operation("twice", lambda channels, stride, affine: Twice())
    assert operation_registry.plugins_of(["twice", "skip_connect"]) == {"twice": __name__}
    with pytest.raises(UserError, match="unknown operation 'ghost_conv'"):
        Genotype(CELL, CELL)
    settings = {"plugins": ["my_ops"], "network": {"genotype": "found"}, "run": {"dir": "python"}}
    assert nge_search.evaluate(settings, *RUN, *SMALL)["params"] > 0
    assert Genotype(CELL, CELL).plugins == dict.fromkeys(("blur", "ghost_conv"), "my_ops")


def test_a_genotype_of_theirs_goes_through_json():
    operation_registry.import_plugins(["my_ops"])
    text = Genotype(CELL, CELL).to_json()
    assert Genotype.from_json(text) == Genotype(CELL, CELL)
    forget()
    with pytest.raises(UserError, match="'ghost_conv' is of the plugin 'my_ops'"):
        Genotype.from_json(text)
    assert "plugins" not in load_genotype("darts_v2").to_dict()


@pytest.mark.parametrize(("stride", "rates"), [(1, (2, 2)), (1, (1, 2)), (1, (2, 4)), (2, (2, 2))])
@pytest.mark.parametrize("size", [(13, 9), (8, 8)])
def test_phases_hold_what_strided_networks_compute(stride, rates, size):
    """Against the module on every r-th pixel: of each phase exactly, where it does not end before the others."""
    torch.manual_seed(0)
    step, phases = rates
    own = stride * phases // step
    module = nn.Sequential(nn.Conv2d(3, 3, 3, own, 1, bias=False), nn.BatchNorm2d(3)).double().eval()
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    places = [(a, b) for a in range(phases) for b in range(phases)]
    parts = {(a, b): module(x[:, :, a * stride :: step, b * stride :: step]) for a, b in places}
    names = list(module.state_dict())
    y = in_phases(module, stride, rates)(x)
    assert y.shape[2:] == tuple(-(-side // stride) for side in size)
    assert list(module.state_dict()) == names
    assert isinstance(module, nn.Sequential)
    for (a, b), expected in parts.items():
        found = y[:, :, a::phases, b::phases]
        rows, columns = found.shape[2:]
        torch.testing.assert_close(found, expected[:, :, :rows, :columns], rtol=0, atol=1e-12)


def test_an_output_stride_is_exact_on_the_even_grid():
    """As of the package's own operations (`test_output_stride`): with weights of the same names."""
    operation_registry.import_plugins(["my_ops"])
    torch.manual_seed(0)
    strided = ImageNetNetwork(Genotype(CELL, CELL), 4, 4, 0).double().eval()
    kept = DeepLabV3(Genotype(CELL, CELL), 4, 4, 3, 16).double().eval().backbone
    assert list(kept.state_dict()) == list(strided.state_dict())
    kept.load_state_dict(strided.state_dict())
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    expected, found = (network.forward_features(images)[0] for network in (strided, kept))
    assert found.shape[2:] == (4, 4)
    torch.testing.assert_close(found[:, :, ::2, ::2], expected, rtol=0, atol=1e-12)


class Inplace(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.relu_()


class Frozen(nn.Conv2d):
    def __init__(self, channels: int, stride: int, affine: bool):
        super().__init__(channels, channels, 1, stride)
        self.weight.requires_grad_(False)


class Moody(nn.Module):
    """Another shape, or a change of its input, in training alone, as a module in development may have."""

    def __init__(self, pad: int):
        super().__init__()
        self.pad = pad

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x.relu()
        return nn.functional.pad(x, (0, self.pad)) if self.pad else x.relu_()


class Buffered(nn.Module):
    def __init__(self, persistent: bool, value: float = 0.0):
        super().__init__()
        self.register_buffer("scale", torch.full((1,), value), persistent=persistent)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.get_buffer("scale")


class Casts(nn.Module):
    def __init__(self, change: Callable[[Tensor], Tensor]):
        super().__init__()
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(x)


SHARED = nn.Conv2d(4, 4, 1)


class Elsewhere(nn.Module):
    """Holds a constant that does not move with it."""

    def __init__(self) -> None:
        super().__init__()
        self.constant = torch.ones(1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.constant


def broken(channels: int, stride: int, affine: bool) -> nn.Module:
    return nn.Conv2d(channels, channels, 3, stride, groups=channels + 1)


@pytest.mark.parametrize(
    ("build", "stride", "says"),
    [
        (broken, 1, r"build\(4, 1, True\) fails: ValueError: in_channels must be divisible by groups"),
        (lambda channels: nn.Identity(), 1, "fails: TypeError"),
        (lambda *_: torch.relu, 1, "builds a builtin_function_or_method, not a torch.nn.Module"),
        (lambda *_: nn.Identity(), 2, r"makes \[2, 4, 8, 7\] of .* at stride 2, not \[2, 4, 4, 4\]"),
        (lambda c, stride, _: nn.AvgPool2d(stride), 2, r"makes \[2, 4, 4, 3\].* rounded up"),
        (lambda c, stride, _: nn.Conv2d(c, 2 * c, 1, stride), 1, r"makes \[2, 8, 8, 7\]"),
        (lambda *_: nn.Linear(3, 3), 1, "fails on images of 4 channels at stride 1: RuntimeError"),
        (lambda *_: Inplace(), 1, "changes the images"),
        (Frozen, 1, "parameter 'weight' does not learn; make it a buffer"),
        (lambda *_: Elsewhere(), 1, "constants are buffers"),
        (lambda *_: nn.LSTM(7, 7), 1, "in training fails on images"),
        (lambda *_: Moody(1), 1, r"in training makes \[2, 4, 8, 8\]"),
        (lambda *_: Moody(0), 1, "in training changes the images"),
        (lambda *_: Buffered(persistent=False), 1, "buffer 'scale' is not saved; leave persistent=False out"),
        (lambda *_: Buffered(True, torch.ones(()).item()), 1, r"build\(4, 1, True\) on the meta device.* fails"),
        (lambda *_: sys.exit(3), 1, "fails: SystemExit: 3"),
        (lambda *_: Casts(sys.exit), 1, "in training fails on images .*: SystemExit"),
        (
            lambda *_: Casts(Tensor.double),
            1,
            r"gives torch\.float64 where it is given torch\.float32; keep the type",
        ),
        (lambda *_: Casts(torch.log), 1, "gives numbers that are not finite, of images from -1 to 1"),
        (lambda *_: SHARED, 1, "build gives a module that it gave before"),
        (lambda *_: nn.Sequential(nn.ReLU(), SHARED), 1, "or a part of one; make new ones each time"),
    ],
)
def test_what_is_no_operation_is_refused_before_it_is_used(build, stride, says):
    nge_search.register_operation("mine", build)
    with pytest.raises(UserError, match=says) as caught:
        build_operation("mine", 4, stride)
    assert "operation 'mine' of the plugin" in str(caught.value)


def test_maps_that_are_too_small_for_an_operation_are_named(tmp_path):
    """As a search counts it, and where a network is made of it: padding by reflection needs four pixels."""

    def build(channels: int, stride: int, affine: bool) -> nn.Module:
        return nn.Conv2d(channels, channels, 7, stride, padding=3, padding_mode="reflect")

    nge_search.register_operation("mirrored", build)
    words = (*RUN, "supernet.operations=[skip_connect,mirrored]", "supernet.cells=3", "supernet.channels=2")
    with pytest.raises(UserError, match=r"operation 'mirrored' does not take maps of \[\d, 2, 2\].* larger images"):
        nge_search.search(None, "data.name=digits", *words, f"run.dir={tmp_path / 'search'}")
    cell = Cell((("mirrored", 0), ("skip_connect", 1)) * 4, (2, 3, 4, 5))
    (tmp_path / "cell.json").write_text(Genotype(cell, cell).to_json())
    words = (*RUN, *SMALL, f"network.genotype={tmp_path / 'cell.json'}", f"run.dir={tmp_path / 'eval'}")
    with pytest.raises(
        UserError, match=r"not take images of \[1, 8, 8\].*; an operation of a plugin may need larger"
    ):
        nge_search.evaluate(None, "data.name=digits", *words, "network.cells=5")


@pytest.mark.parametrize("given", ["no", 1, None])
def test_whether_an_operation_has_weights_is_yes_or_no(given):
    with pytest.raises(UserError, match=r"operation 'mine': parameter_free=.*: give True or False"):
        nge_search.register_operation("mine", lambda *_: nn.Identity(), parameter_free=given)


def test_operations_without_weights_have_none_at_stride_1():
    """As a skip has none, which halves the resolution by convolutions."""

    def build(channels: int, stride: int, affine: bool) -> nn.Module:
        return nn.Identity() if stride == 1 else nn.Conv2d(channels, channels, 1, stride)

    nge_search.register_operation("mine", build, parameter_free=True)
    for stride in (1, 2):
        build_operation("mine", 4, stride)
    nge_search.register_operation("others", lambda c, stride, _: nn.Conv2d(c, c, 1, stride), parameter_free=True)
    with pytest.raises(UserError, match="'weight' is a weight; register it without parameter_free=True"):
        build_operation("others", 4, 1)


def test_what_builds_may_be_any_object():
    class Builder:
        """Compared by its kernel, and thus without a hash."""

        kernel = 3

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Builder) and other.kernel == self.kernel

        def __call__(self, channels: int, stride: int, affine: bool) -> nn.Module:
            return nn.AvgPool2d(self.kernel, stride, padding=1)

    nge_search.register_operation("mine", Builder())
    assert isinstance(build_operation("mine", 4, 2), nn.AvgPool2d)


def test_phases_are_exported_for_images_of_any_size():
    """torch.export takes heights and widths that are symbols, and what it makes computes the same."""
    module = in_phases(nn.Conv2d(2, 2, 3, 1, 1), 1, (2, 2)).eval()
    sides = {2: torch.export.Dim("height", min=8, max=64), 3: torch.export.Dim("width", min=8, max=64)}
    program = torch.export.export(module, (torch.randn(2, 2, 12, 12),), dynamic_shapes=(sides,))
    for shape in ((2, 2, 12, 12), (2, 2, 9, 16)):
        x = torch.randn(shape)
        torch.testing.assert_close(program.module()(x), module(x), rtol=0, atol=0)


def test_trying_an_operation_changes_nothing(own_operations):
    """Neither random numbers nor the module's state."""
    torch.manual_seed(0)
    build_operation("drift", 3, 1)
    first = torch.rand(3)
    torch.manual_seed(0)
    module = build_operation("drift", 3, 1)  # not tried again
    assert torch.equal(torch.rand(3), first)
    assert int(module.get_buffer("calls")) == 0


@pytest.mark.parametrize(
    ("name", "build", "says"),
    [
        ("sep_conv_3x3", nn.Identity, "is registered already, of the package"),
        ("none", nn.Identity, "is none of none, input"),
        ("Ghost", nn.Identity, "lower-case letters"),
        ("a" * 41, nn.Identity, "at most 40"),
        (7, nn.Identity, "operation 7: a name has"),
        ("ghost", "nn.Identity", "build must be a function"),
    ],
)
def test_names_that_cannot_be_registered(name, build, says):
    before = operation_registry.names()
    with pytest.raises(UserError, match=says):
        nge_search.register_operation(name, build)
    assert operation_registry.names() == before


def test_a_name_belongs_to_one_plugin_and_a_notebook_may_say_it_again(monkeypatch):
    nge_search.register_operation("mine", nn.Identity)
    with pytest.raises(UserError, match=f"registered already, of '{__name__}'"):
        nge_search.register_operation("mine", nn.Identity)
    cell = "import nge_search\nnge_search.register_operation('again', print)\n"
    for _ in range(2):
        exec(compile(cell, "cell", "exec"), {"__name__": "__main__"})
    text = json.dumps({"plugins": {"later": "__main__"}, **load_genotype("darts_v2").to_dict()})
    with pytest.raises(UserError, match="'later' was registered by a program or notebook"):
        Genotype.from_json(text.replace("sep_conv_3x3", "later", 1))


def test_every_name_has_a_style(own_operations):
    """Short enough for a pill; those of one plugin differ from each other and from the package's."""
    nge_search.register_operation("a_very_long_name_of_an_operation", nn.Identity)
    own = ["ghost_conv", "drift", "blur", "a_very_long_name_of_an_operation"]
    styles = [style_of(name) for name in own]
    assert [style.short for style in styles] == ["ghost conv", "drift", "blur", "a very lo…"]
    assert all(len(style.short) <= 10 and len(style.long) <= 24 for style in styles)
    fills = [*(style.fill for style in styles), *(style.fill for style in STYLES.values())]
    assert len(set(fills)) == len(fills)
    assert all(abs(lightness(style.fill) - lightness(style.ink)) > 40 for style in styles)
    assert style_of("of_another_version").short == "of anothe…"
