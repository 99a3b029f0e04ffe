"""Cell drawings: complete, free of overlaps, the same bytes every time."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from nge_search.architecture.genotype import PUBLISHED, Cell, Genotype
from nge_search.architecture.graph import PLAIN, SUM, Graph
from nge_search.architecture.load import read_architecture
from nge_search.errors import UserError
from nge_search.report.drawing.figure import draw_cell, draw_cells, drawing_rgb, save_drawings
from nge_search.report.drawing.inline_svg import cell_svg, describe
from nge_search.report.drawing.layers import columns_of, orderings
from nge_search.report.drawing.layout import CellLayout, control_points, lay_out
from nge_search.report.drawing.palette import ALL_STYLES, STYLES, lightness
from nge_search.settings.names import OPERATIONS
from nge_search.spaces import SPACES, NasBench101Space, NasBench201Space

SEEDS = [(nodes, seed) for nodes in (1, 2, 3, 4, 5, 7, 10) for seed in (0, 1)]
#: Cells of NAS-Bench-201: some edges, all, a single one, none.
DENSE = [
    NasBench201Space().graphs(code)["cell"] for code in [(3, 3, 1, 2, 0, 4), (3,) * 6, (0, 0, 0, 1, 0, 0), (0,) * 6]
]
#: Cells of NAS-Bench-101: published ones, the smallest, and drawn ones.
ON_NODES = [
    NasBench101Space().graphs(code)["cell"]
    for code in [
        *(NasBench101Space().random(np.random.default_rng(seed)) for seed in range(8)),
        NasBench101Space().parse("0100 input,output"),
        NasBench101Space().parse("0111001100010000 input,conv3x3-bn-relu,maxpool3x3,output"),
    ]
]
OTHERS = {f"dense {i}": {"cell": graph} for i, graph in enumerate(DENSE)} | {
    f"on nodes {i}": {"cell": graph} for i, graph in enumerate(ON_NODES)
}
GENE = re.compile(r"(normal|reduction)-gene-(\d+)-(\w+?)$")


def all_cells(make_random) -> list[Cell]:
    genotypes = [*PUBLISHED.values(), *(make_random(nodes, seed) for nodes, seed in SEEDS)]
    return [cell for genotype in genotypes for _, cell in genotype.cells()]


def all_graphs(make_random) -> list[Graph]:
    return [*(cell.graph() for cell in all_cells(make_random)), *DENSE, *ON_NODES]


def overlap(first, second, slack: float = 0.0) -> bool:
    """Whether two (left, top, right, bottom) boxes share more than `slack` in both directions."""
    return (
        min(first[2], second[2]) - max(first[0], second[0]) > slack
        and min(first[3], second[3]) - max(first[1], second[1]) > slack
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_svg_shows_every_gene_of_both_cells(name: str, tmp_path: Path) -> None:
    genotype = PUBLISHED[name]
    paths = save_drawings(genotype.graphs(), tmp_path, name)
    expected = [f"{name}{part}.{suffix}" for part in ("", "_normal", "_reduce") for suffix in ("svg", "png")]
    assert [path.name for path in paths] == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(expected)  # no temporary file is left
    text = (tmp_path / f"{name}.svg").read_text()
    ids = [element.get("id", "") for element in ElementTree.fromstring(text).iter()]
    genes = sorted(match.groups() for identity in ids if (match := GENE.match(identity)))
    cells = {"normal": genotype.normal, "reduction": genotype.reduce}
    assert genes == sorted(
        (kind, str(index), operation)
        for kind, cell in cells.items()
        for index, (operation, _) in enumerate(cell.genes)
    )
    labels = Counter(re.findall(r"<!-- (.+?) -->", text))
    wanted = Counter(STYLES[operation].short for cell in cells.values() for operation, _ in cell.genes)
    assert {label: labels[label] for label in wanted} == dict(wanted)


def test_text_of_each_pill_names_its_own_operation() -> None:
    figure = draw_cells(PUBLISHED["amoebanet_a"].graphs())
    shown = {text.get_gid(): text.get_text() for text in figure.axes[0].texts if text.get_gid()}
    for kind, cell in (("normal", PUBLISHED["amoebanet_a"].normal), ("reduction", PUBLISHED["amoebanet_a"].reduce)):
        for index, (operation, _) in enumerate(cell.genes):
            assert shown[f"{kind}-gene-{index}-{operation}-label"] == STYLES[operation].short


def test_same_genotype_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    genotype = PUBLISHED["nasnet_a"]
    here = {path.name: path.read_bytes() for path in save_drawings(genotype.graphs(), tmp_path / "here")}
    program = (
        "import matplotlib; matplotlib.rcParams.update({'lines.linewidth': 9, 'savefig.dpi': 31, 'font.size': 30,"
        " 'savefig.bbox': 'tight', 'savefig.transparent': True})\n"
        "from nge_search.architecture.genotype import PUBLISHED\n"
        "from nge_search.report.drawing.figure import save_drawings\n"
        "from pathlib import Path; import sys; save_drawings(PUBLISHED['nasnet_a'].graphs(), Path(sys.argv[1]))\n"
        "assert matplotlib.rcParams['font.size'] == 30"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program, str(tmp_path / "there")], check=True)
    there = {path.name: path.read_bytes() for path in (tmp_path / "there").iterdir()}
    assert there == here
    assert b"<dc:date>" not in here["genotype.svg"]


def test_drawings_replace_older_ones(tmp_path: Path) -> None:
    save_drawings(PUBLISHED["darts_v1"].graphs(), tmp_path)
    before = (tmp_path / "genotype.svg").read_bytes()
    save_drawings(PUBLISHED["darts_v2"].graphs(), tmp_path)
    assert (tmp_path / "genotype.svg").read_bytes() != before
    assert len(list(tmp_path.iterdir())) == 6


def test_png_has_the_size_of_the_figure_in_print_resolution(tmp_path: Path) -> None:
    save_drawings(PUBLISHED["darts_v2"].graphs(), tmp_path)
    header = (tmp_path / "genotype_normal.png").read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    figure = draw_cell(PUBLISHED["darts_v2"].normal.graph(), "Normal cell")
    assert struct.unpack(">II", header[16:24]) == tuple(int(side * 200) for side in figure.get_size_inches())


def test_rgb_is_an_image_on_white() -> None:
    image = drawing_rgb(PUBLISHED["darts_v2"].graphs())
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert (image[0] == 255).all()
    assert 0.02 < (image < 250).any(-1).mean() < 0.5
    np.testing.assert_array_equal(image, drawing_rgb(PUBLISHED["darts_v2"].graphs()))
    assert not np.array_equal(image, drawing_rgb(PUBLISHED["darts_v1"].graphs()))


def test_matplotlib_stays_unloaded_until_something_is_drawn() -> None:
    program = "import nge_search.report, sys; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
    program = (
        "import sys; from nge_search.report import drawing_rgb\n"
        "from nge_search.architecture.genotype import PUBLISHED\n"
        "drawing_rgb(PUBLISHED['darts_v1'].graphs()); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)


def all_layouts(make_random) -> list[CellLayout]:
    return list(map(lay_out, all_graphs(make_random)))


def test_every_node_and_operation_has_a_box(make_random) -> None:
    for cell in all_cells(make_random):
        assert Counter(box.kind for box in lay_out(cell.graph()).boxes) == Counter(
            input=2, node=cell.nodes, pill=len(cell.genes), output=1
        )
    for graph in DENSE:
        boxes = lay_out(graph).boxes
        assert [box.label for box in boxes if box.kind in ("input", "node")] == ["c_{k-1}", "1", "2", "3"]
        shown = {box.edge: box.operation for box in boxes if box.kind == "pill"}
        assert shown == {position: edge.label.name for position, edge in enumerate(graph.edges)}
    for graph in ON_NODES:
        boxes = lay_out(graph).boxes
        kinds = Counter(box.kind for box in boxes)
        assert kinds == Counter(input=1, output=1, pill=len(graph.nodes) - 2)
        assert [box.operation for box in boxes if box.kind == "pill"] == [label.name for label in graph.nodes[1:-1]]
        assert len({box.name for box in boxes}) == len(boxes)


def test_no_two_boxes_overlap_and_all_are_on_the_page(make_random) -> None:
    for layout in all_layouts(make_random):
        for first, second in combinations(layout.boxes, 2):
            assert not overlap(first.bounds, second.bounds), (first, second)
        for box in layout.boxes:
            left, top, right, bottom = box.bounds
            assert min(left, top) >= 0
            assert right <= layout.width
            assert bottom <= layout.height


def test_no_line_passes_through_a_box(make_random) -> None:
    for layout in all_layouts(make_random):
        lines = [line for edge in layout.edges for line in (*edge.curves, *edge.lanes)]
        lines += layout.joins
        for start, end in lines:
            first, second = control_points(start, end)
            t = np.linspace(0.02, 0.98, 33)[:, None]
            weights = np.hstack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3])
            x, y = (weights @ np.array([start, first, second, end])).T
            for box in layout.boxes:
                left, top, right, bottom = box.bounds
                inside = (left < x) & (x < right) & (top < y) & (y < bottom)
                assert not inside.any(), (box, start, end)


def test_every_edge_is_drawn_from_its_source_to_what_it_reaches(make_random) -> None:
    """Labelled edges end at their own pill, which is joined to its circle; others at the left of their target."""
    for graph in all_graphs(make_random):
        layout = lay_out(graph)
        shapes = {box.name.rpartition("-")[2] if box.kind == "node" else box.name: box for box in layout.boxes}
        pills = {box.edge: box for box in layout.boxes if box.edge >= 0}
        tips = {edge.source: sorted((round(x, 2), y) for x, y in edge.tips) for edge in layout.edges}
        expected: dict[int, list[tuple[float, float]]] = {}
        for position, (source, target, label) in enumerate(graph.edges):
            if label != PLAIN:
                left, _, right, _ = pills[position].bounds
                expected.setdefault(source, []).append((round(left, 2), pills[position].y))
                assert pills[position].operation == label.name
                assert any(start == (right, pills[position].y) for start, _ in layout.joins)
            else:
                kind = "output" if target in graph.outputs else f"node-{target}"
                box = next(box for name, box in shapes.items() if name.startswith(kind))
                reached = [y for x, y in tips[source] if x == round(box.bounds[0], 2)]
                assert any(box.bounds[1] <= y <= box.bounds[3] for y in reached), (source, target)
        for source, ends in expected.items():
            assert set(ends) <= set(tips[source])
        assert sum(map(len, tips.values())) == len(graph.edges)


@pytest.mark.parametrize("name", OTHERS)
def test_cells_of_other_spaces_in_files_and_pixels(name: str, tmp_path: Path) -> None:
    cells = OTHERS[name]
    graph = cells["cell"]
    paths = save_drawings(cells, tmp_path)
    assert [path.name for path in paths] == ["genotype.svg", "genotype.png"]
    root = ElementTree.fromstring(cell_svg(graph, "a <cell>"))
    shown = sorted(element.get("data-operation") for element in root.iter("rect") if element.get("data-operation"))
    names = [label.name for label in graph.nodes if label.name not in ("input", "output", SUM)]
    names += [edge.label.name for edge in graph.edges if edge.label != PLAIN]
    assert shown == sorted(names)
    drawn = re.findall(r'id="cell-(?:gene|node)-\d+-[\w-]+?"', paths[0].read_text().replace("-label", ""))
    assert len(drawn) == 2 * len(names)  # with its label
    assert (drawing_rgb(cells) < 250).any()


def test_what_is_read_of_a_json_object_of_any_space() -> None:
    random = np.random.default_rng(0)
    for space in (NasBench201Space(), NasBench101Space()):
        code = space.random(random)
        found = read_architecture(space.to_dict(code))
        assert (found.space, found.graphs, found.text) == (space.name, space.graphs(code), space.text(code))
        assert found.genotype is None
    found = read_architecture(PUBLISHED["nasnet_a"].to_dict())
    assert found.genotype == PUBLISHED["nasnet_a"]
    assert Genotype.from_graphs(found.graphs) == found.genotype
    with pytest.raises(UserError, match="space 'nosuch' is unknown; known are 'darts', "):
        read_architecture({"space": "nosuch"})


@pytest.mark.parametrize("name", [*PUBLISHED, "random", *OTHERS])
def test_printed_labels_overlap_nothing_and_fit_their_boxes(name: str, make_random) -> None:
    figure = draw_cells(OTHERS.get(name) or (make_random(8, 5) if name == "random" else PUBLISHED[name]).graphs())
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    axes = figure.axes[0]
    extents = {text: text.get_window_extent(renderer).extents for text in axes.texts}
    for first, second in combinations(axes.texts, 2):
        assert not overlap(extents[first], extents[second]), (first.get_text(), second.get_text())
    shapes = {patch.get_gid(): patch.get_window_extent(renderer) for patch in axes.patches if patch.get_gid()}
    page = figure.bbox
    for text, (left, bottom, right, top) in extents.items():
        assert page.x0 <= left < right <= page.x1, text.get_text()
        assert page.y0 <= bottom < top <= page.y1, text.get_text()
        if text.get_gid():
            box = shapes[text.get_gid().removesuffix("-label")]
            assert box.x0 + 1 <= left < right <= box.x1 - 1, text.get_text()
            assert box.y0 <= bottom < top <= box.y1, text.get_text()


def test_published_cells_are_drawn_with_few_crossings() -> None:
    crossings = {
        name: [lay_out(graph).crossings for graph in genotype.graphs().values()]
        for name, genotype in PUBLISHED.items()
    }
    assert crossings["darts_v2"] == [3, 1]
    assert crossings["nasnet_a"] == [1, 3]
    assert sum(map(sum, crossings.values())) <= 37


def test_columns_follow_the_longest_path() -> None:
    assert columns_of(PUBLISHED["darts_v2"].normal.graph()) == [0, 0, 1, 1, 1, 2, 3]
    chain = Cell(tuple(("skip_connect", node) for node in range(4) for _ in range(2) if node), (4,))
    assert columns_of(chain.graph()) == [0, 0, 1, 2, 3, 4]


def test_orderings_are_the_same_at_every_call_and_keep_the_inputs(make_random) -> None:
    cell = make_random(6, 3).normal.graph()
    first, second = list(orderings(cell)), list(orderings(cell))
    assert first == second
    assert all([item.node for item in layers.columns[0]] == [0, 1] for layers in first)


def test_layout_of_the_smallest_cell() -> None:
    layout = lay_out(Cell((("skip_connect", 0), ("max_pool_3x3", 1)), (2,)).graph())
    boxes = {box.label: box for box in layout.boxes}
    order = ["c_{k-2}", "skip_connect", "0", "c_{k}"]
    assert [boxes[label].x for label in order] == sorted(boxes[label].x for label in order)
    assert boxes["skip_connect"].y < boxes["0"].y < boxes["max_pool_3x3"].y
    assert boxes["0"].y == boxes["c_{k}"].y
    assert layout.crossings == 0


def test_every_operation_has_a_name_and_a_tone_of_its_own() -> None:
    assert sorted(STYLES) == sorted(OPERATIONS)
    for space in SPACES.values():
        operations = space().cell_space.operations
        assert len({ALL_STYLES[operation].short for operation in operations}) == len(operations)
    tones = sorted(lightness(style.fill) for style in STYLES.values())
    assert min(np.diff(tones)) > 4  # a greyscale print keeps all of them apart
    for style in ALL_STYLES.values():  # WCAG AA: 4.5
        dark, light = sorted(((lightness(colour) + 16) / 116) ** 3 for colour in (style.fill, style.ink))
        assert (light + 0.05) / (dark + 0.05) > 4.5, style


@pytest.mark.parametrize("name", PUBLISHED)
def test_inline_svg_shows_every_gene(name: str) -> None:
    for kind, cell in PUBLISHED[name].cells():
        root = ElementTree.fromstring(cell_svg(cell.graph(), kind))
        genes = {
            int(element.get("data-gene")): element.get("data-operation")
            for element in root.iter("rect")
            if element.get("data-gene")
        }
        assert genes == {index: operation for index, (operation, _) in enumerate(cell.genes)}
        labels = Counter(element.text for element in root.iter("text") if element.get("class") == "pill-label")
        assert labels == Counter(STYLES[operation].short for operation, _ in cell.genes)


def test_description_spells_the_cell_out() -> None:
    cell = Cell((("sep_conv_3x3", 0), ("skip_connect", 1), ("max_pool_3x3", 2), ("dil_conv_5x5", 2)), (3,))
    assert describe(cell.graph()) == (
        "node 0 = sep 3×3(cₖ₋₂) + skip(cₖ₋₁); node 1 = max 3×3(node 0) + dil 5×5(node 0); output = node 1"
    )


def test_description_of_operations_on_nodes_and_of_sums() -> None:
    space = NasBench101Space()
    code = space.parse("0111001100010000 input,conv3x3-bn-relu,maxpool3x3,output")
    assert describe(space.graphs(code)["cell"]) == (
        "node 1 = conv 3×3(cₖ₋₁); node 2 = max 3×3(cₖ₋₁ + node 1); output = cₖ₋₁, node 1, node 2"
    )
    assert describe(DENSE[2]) == "node 1 = nothing; node 2 = nothing; node 3 = skip(cₖ₋₁)"


def test_legend_names_open_circles_only_where_there_are_any() -> None:
    def texts(genotype: Genotype) -> list[str]:
        return [text.get_text() for text in draw_cells(genotype.graphs()).axes[0].texts]

    assert "node outside the output" in texts(PUBLISHED["amoebanet_a"])
    assert "node outside the output" not in texts(PUBLISHED["darts_v2"])
    assert "3×3 dilated sep. conv." in texts(PUBLISHED["darts_v2"])
    assert "5×5 separable conv." not in texts(PUBLISHED["darts_v2"])
