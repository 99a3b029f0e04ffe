"""Spaces of architectures: notation, distributions against enumeration, neighbours, NAS-Bench-101's hash."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch

from nge_search.architecture.cell_space import CellSpace
from nge_search.architecture.genotype import PUBLISHED
from nge_search.architecture.graph import Graph
from nge_search.embedding import build_embedding
from nge_search.errors import UserError
from nge_search.settings.embedding import EmbeddingSection
from nge_search.settings.search import SupernetSection
from nge_search.spaces import DartsSpace, EnasMacroSpace, NasBench101Space, NasBench201Space, Space
from nge_search.spaces.nasbench101 import OPERATIONS, digest, parameters, vertex_channels
from nge_search.supernet import build_space

SMALL_DARTS = CellSpace(nodes=2, operations=("skip_connect", "max_pool_3x3", "sep_conv_3x3"))
SPACES: list[Space] = [NasBench201Space(), NasBench101Space(), NasBench101Space(4), DartsSpace(), EnasMacroSpace()]


def _matrices(space: Space, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.dirichlet(np.full(len(table.options), 2.0), table.rows) for table in space.cell_space.tables]


def _log_probability(space: Space, codes: list[tuple[int, ...]], matrices: list[np.ndarray]) -> np.ndarray:
    return space.log_probability(torch.tensor(codes), [torch.tensor(matrix) for matrix in matrices]).numpy()


@pytest.mark.parametrize("space", SPACES, ids=lambda space: f"{space.name}-{space.length}")
def test_architectures_survive_their_notation(space: Space) -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        code = space.random(random)
        assert space.allows(code)
        assert len(code) == space.length
        assert space.key(space.parse(space.text(code))) == space.key(code)
        assert space.key(space.code(space.graphs(code))) == space.key(code)
        document = space.to_dict(code, {"method": "drawn"})
        assert (document["space"], document["provenance"]) == (space.name, {"method": "drawn"})
        assert document.get("architecture", space.text(code)) == space.text(code)


@pytest.mark.parametrize("space", SPACES, ids=lambda space: f"{space.name}-{space.length}")
def test_neighbours_differ_in_one_decision_and_are_mutual(space: Space) -> None:
    random = np.random.default_rng(1)
    for _ in range(5):
        code = space.random(random)
        neighbours = space.neighbours(code)
        assert neighbours
        assert len(set(neighbours)) == len(neighbours)
        assert code not in neighbours
        for other in neighbours:
            assert space.allows(other)
            assert code in space.neighbours(other)


def test_what_is_known_of_spaces_without_torch_is_so() -> None:
    for settings in (SupernetSection(), SupernetSection(nodes=3), SupernetSection(space="nasbench201", cells=3)):
        assert settings.vertices == build_space(settings).cell_space.vertices


def test_neighbours_by_count() -> None:
    assert len(NasBench201Space().neighbours((0,) * 6)) == 24
    # a node of DARTS' space that reads two of n earlier ones: 2 slots x (6 other operations + n - 2 other sources)
    code = DartsSpace().code(PUBLISHED["darts_v2"].graphs())
    assert len(DartsSpace().neighbours(code)) == 2 * sum(2 * (6 + n - 2) for n in (2, 3, 4, 5))


def test_the_chance_of_every_code_of_nasbench201_sums_to_one() -> None:
    space = NasBench201Space()
    codes = list(itertools.product(range(5), repeat=6))
    (matrix,) = _matrices(space)
    found = _log_probability(space, codes, [matrix])
    assert math.isclose(np.exp(found).sum(), 1, rel_tol=1e-12)
    for row in (0, 777, 15624):
        assert math.isclose(
            math.exp(found[row]), math.prod(matrix[edge, codes[row][edge]] for edge in range(6)), rel_tol=1e-12
        )


def test_the_chance_of_every_code_of_darts_sums_to_one_and_is_that_of_ordered_draws() -> None:
    """Against the sum over both orders in which a node's two edges can be drawn."""
    space = DartsSpace(SMALL_DARTS)
    matrices = _matrices(space, 3)

    def node_chance(matrix: np.ndarray, node: int, part: tuple[int, ...]) -> float:
        first = SMALL_DARTS.incoming(node).start
        weights = matrix[first : first + node].max(axis=1)
        weights = weights / weights.sum()
        (a, b), (of_a, of_b) = part[:2], part[2:]
        ordered = sum(weights[x] * weights[y] / (1 - weights[x]) for x, y in ((a, b), (b, a)))
        return ordered * matrix[first + a, of_a] * matrix[first + b, of_b]

    parts = {
        node: [
            (*pair, *operations)
            for pair in itertools.combinations(range(node), 2)
            for operations in itertools.product(range(3), repeat=2)
        ]
        for node in SMALL_DARTS.inner
    }
    total, checked = 0.0, 0
    codes = [sum(chosen, ()) for chosen in itertools.product(parts[2], parts[3], parts[2], parts[3])]
    found = np.exp(_log_probability(space, codes, matrices))
    total = found.sum()
    for code, chance in itertools.islice(zip(codes, found), 0, None, 997):
        quarters = [code[at : at + 4] for at in range(0, 16, 4)]
        expected = math.prod(
            node_chance(matrices[kind], node, quarters[2 * kind + node - 2]) for kind in (0, 1) for node in (2, 3)
        )
        assert math.isclose(chance, expected, rel_tol=1e-12)
        checked += 1
    assert checked > 50
    assert math.isclose(total, 1, rel_tol=1e-9)


@pytest.mark.parametrize(
    "space", [NasBench201Space(), DartsSpace(SMALL_DARTS), NasBench101Space(3)], ids=lambda s: s.name
)
def test_draws_follow_the_chances(space: Space) -> None:
    """Frequencies of the commonest codes within five standard deviations of their probability."""
    random, matrices = np.random.default_rng(0), _matrices(space, 5)
    matrices = [matrix**3 / (matrix**3).sum(axis=1, keepdims=True) for matrix in matrices]
    draws = 20_000
    counts: dict[tuple[int, ...], int] = {}
    for _ in range(draws):
        code = space.draw(matrices, random)
        counts[code] = counts.get(code, 0) + 1
    common = sorted(counts, key=lambda code: -counts[code])[:8]
    chances = np.exp(_log_probability(space, common, matrices))
    for code, chance in zip(common, chances):
        assert abs(counts[code] / draws - chance) < 5 * math.sqrt(chance * (1 - chance) / draws)


def test_draws_that_are_not_allowed_are_repeated_or_given_up() -> None:
    space = NasBench101Space(4)
    random = np.random.default_rng(0)
    assert all(space.allows(space.sample(space.uniform(), random)) for _ in range(200))
    absent = [np.array([[1.0, 0.0]] * 6), np.full((2, 3), 1 / 3)]
    with pytest.raises(UserError, match="rule all out"):
        space.sample(absent, random)


@pytest.mark.parametrize("space", [NasBench201Space(), NasBench101Space(), DartsSpace()], ids=lambda s: s.name)
@pytest.mark.parametrize("kind", ["nge", "rnn", "plain", "direct"])
def test_every_embedding_gives_a_spaces_matrices(space: Space, kind: str) -> None:
    torch.manual_seed(0)
    embedding = build_embedding(
        EmbeddingSection(kind=kind, input_dim=8, hidden_dim=8, output_dim=8), space.cell_space
    )
    matrices = embedding()
    assert [tuple(matrix.shape) for matrix in matrices] == [table.shape for table in space.cell_space.tables]
    for matrix in matrices:
        torch.testing.assert_close(matrix.sum(dim=1), torch.ones(len(matrix)))
    codes = torch.tensor([space.random(np.random.default_rng(seed)) for seed in range(40)])
    space.log_probability(codes, matrices).mean().backward()
    assert all(parameter.grad is not None for parameter in embedding.parameters())
    assert 0 <= float(embedding.dead_share()) < 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "groups"),
        ("|none~0|+|none~0|none~1|", "groups"),
        ("|sep_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|", "not an operation"),
        ("|none~0|+|none~0|none~0|+|none~0|none~1|none~2|", "reads it twice"),
        ("|none~" + "0" * 5000 + "|+|none~0|none~1|+|none~0|none~1|none~2|", "not an operation"),
        ("|none~\u0660|+|none~0|none~1|+|none~0|none~1|none~2|", "not an operation"),
        ("|none~1|+|none~0|none~1|+|none~0|none~1|none~2|", "cannot read"),
        ("|none~0|+|none~0|none~1|+|none~0|none~1|", "node 2 to node 3 is missing"),
    ],
)
def test_bad_notation_of_nasbench201(text: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        NasBench201Space().parse(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("010000000", "expected"),
        ("010001000 input,conv3x3-bn-relu", "square matrix"),
        ("012001000 input,conv3x3-bn-relu,output", "zeros and ones"),
        ("010001000 input,conv7x7,output", "operations of"),
        ("010101000 input,conv3x3-bn-relu,output", "below its diagonal"),
        ("000001000 input,conv3x3-bn-relu,output", "a path"),
        ("0" * 81 + " input" + ",maxpool3x3" * 7 + ",output", "2 to 7 vertices"),
    ],
)
def test_bad_notation_of_nasbench101(text: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        NasBench101Space().parse(text)


@pytest.mark.parametrize("vertices", [10_000, 8, 1, 0, -3, True, 5.0, "5", None])
def test_no_graph_is_made_of_more_vertices_than_nasbench101_has(vertices: object) -> None:
    with pytest.raises(UserError, match="cells of 2 to 7 vertices, not "):
        NasBench101Space(vertices)


def test_darts_takes_published_cells_and_refuses_others() -> None:
    space, graphs = DartsSpace(), PUBLISHED["darts_v2"].graphs()
    code = space.code(graphs)
    assert space.parse(space.text(code)) == code
    assert space.genotype(code).normal.nodes == 4
    with pytest.raises(UserError, match="no architecture of darts"):
        space.parse("darts_v2")  # a name, not a notation
    document = json.loads(space.text(code))
    document["normal"][1] = document["normal"][0]
    with pytest.raises(UserError, match="twice"):
        space.parse(json.dumps(document))
    with pytest.raises(UserError, match="2 inner nodes"):
        DartsSpace(SMALL_DARTS).code(graphs)


def test_the_hash_is_of_the_graph_not_of_its_numbering() -> None:
    """Every renumbering of the inner vertices that keeps edges forward; and a vertex that leads nowhere."""
    edges = {(0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 5), (0, 5)}
    operations = [OPERATIONS[0], OPERATIONS[2], OPERATIONS[1], OPERATIONS[0]]

    def numbered(order: tuple[int, ...]) -> Graph | None:
        place = {0: 0, 5: 5} | {vertex: position + 1 for position, vertex in enumerate(order)}
        moved = [(place[source], place[target]) for source, target in edges]
        if any(source >= target for source, target in moved):
            return None
        return Graph.build(["input", *(operations[vertex - 1] for vertex in order), "output"], moved, [0], [5])

    graphs = [found for order in itertools.permutations((1, 2, 3, 4)) if (found := numbered(order)) is not None]
    assert len(graphs) == 6
    assert len({digest(found) for found in graphs}) == 1
    space, first = NasBench101Space(), graphs[0]
    names = [label.name for label in first.nodes]
    place = [*range(5), 6]  # vertex 5 hears the input and leads nowhere
    dangling = Graph.build(
        [*names[:5], OPERATIONS[0], "output"],
        [*((place[edge.source], place[edge.target]) for edge in first.edges), (0, 5)],
        [0],
        [6],
    )
    assert len(dangling.edges) == 8
    assert space.key(space.code({"cell": dangling})) == digest(first)
    other = Graph.build(["input", OPERATIONS[1], *names[2:]], first.edges, [0], [5])
    assert digest(other) != digest(first)


def test_channels_and_parameters_of_a_cell_by_hand() -> None:
    """Three vertices feed an output of 128 channels: 43, 43 and 42; one before them is as wide as the widest."""
    matrix = (
        (0, 1, 0, 0, 0, 1),
        (0, 0, 1, 1, 1, 0),
        (0, 0, 0, 0, 0, 1),
        (0, 0, 0, 0, 0, 1),
        (0, 0, 0, 0, 0, 1),
        (0, 0, 0, 0, 0, 0),
    )
    rows = "".join(str(present) for row in matrix for present in row)
    inner = [OPERATIONS[0], OPERATIONS[1], OPERATIONS[2], OPERATIONS[0]]
    graph = NasBench101Space().parse_graph(rows, ["input", *inner, "output"])
    assert vertex_channels(graph, 128, 128) == [128, 43, 43, 43, 42, 128]
    stem, classifier = 3 * 128 * 9 + 256, 513 * 10

    def cell(inputs: int, widths: list[int]) -> int:
        first, second, _, fourth, output = widths
        projections = inputs * first + 2 * first + inputs * output + 2 * output
        return projections + 9 * first**2 + 2 * first + second**2 + 2 * second + 9 * fourth**2 + 2 * fourth

    cells = 0
    before = 128
    for channels in (128, 256, 512):
        third = [channels // 3 + (position < channels % 3) for position in range(3)]
        for _ in range(3):
            cells += cell(before, [third[0], *third, channels])
            before = channels
    assert parameters(graph) == stem + cells + classifier
