"""Paths through graphs: on a known manifold they follow it, they are the shortest, and components are not bridged."""

import math

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra
from sklearn.neighbors import kneighbors_graph
from torch import nn
from torch.distributions import Independent, Normal

from vaepriors import VAE
from vaepriors.analysis import Graph, NoPath, resample, smoothness, straight
from vaepriors.app.interpolation import _Examples, _measure


def circle(angles):
    return torch.stack([angles.cos(), angles.sin()], -1)


def test_a_path_on_a_circle_follows_it():
    torch.manual_seed(0)
    nodes = circle(2 * math.pi * torch.rand(1000)) * (1 + 0.02 * torch.randn(1000, 1))
    start, goal = circle(torch.tensor([0.0, math.pi]))
    path = Graph(nodes, 18).path(start, goal)
    assert torch.equal(path[0], start)
    assert torch.equal(path[-1], goal)
    assert ((path.norm(dim=1) - 1).abs() < 0.1).all()  # the straight line passes through 0
    assert straight(start, goal).norm(dim=1).min() < 0.05
    angles = torch.atan2(path[:, 1], path[:, 0])
    steps = torch.remainder(angles[1:] - angles[:-1] + math.pi, 2 * math.pi) - math.pi
    assert steps.abs().max() < 0.5
    assert (steps.sum().abs() - math.pi).abs() < 1e-4


def test_a_path_is_the_shortest_by_its_definition():
    """Start and goal as two more nodes, joined to their own 5 nearest: Dijkstra on all 302 nodes gives the path."""
    torch.manual_seed(0)
    nodes = torch.randn(300, 3, dtype=torch.float64)
    graph = Graph(nodes, 5)
    assert graph.components() == [300]
    inner = kneighbors_graph(nodes.numpy(), 5, mode="distance").toarray()
    for _ in range(20):
        ends = torch.randn(2, 3, dtype=torch.float64)
        lengths = np.zeros((302, 302))
        lengths[:300, :300] = inner
        distances = torch.cdist(ends, nodes).numpy()
        for end, near in enumerate(distances.argsort(1)[:, :5]):
            lengths[300 + end, near] = distances[end, near]
        shortest, before = dijkstra(csr_array(lengths), directed=False, indices=300, return_predecessors=True)
        expected = [301]
        while expected[-1] != 300:
            expected.append(before[expected[-1]])
        path = graph.path(*ends)
        assert torch.equal(path, torch.cat([nodes, ends])[expected[::-1]])
        assert (path[1:] - path[:-1]).norm(dim=1).sum().item() == pytest.approx(shortest[301], rel=1e-12)


def test_an_edge_is_there_if_either_side_lists_it():
    graph = Graph(torch.tensor([[0.0], [1.0], [1.5], [10.0]]), 1)
    assert {tuple(sorted(edge)) for edge in graph.edges().tolist()} == {(0, 1), (1, 2), (2, 3)}


def test_equal_nodes_are_joined_by_an_edge_of_length_zero():
    graph = Graph(torch.tensor([[0.0], [0.0], [0.0], [1.0], [1.0]]), 2)
    assert graph.components() == [5]
    path = graph.path(torch.tensor([-0.5]), torch.tensor([1.5]))
    assert (path[1:] - path[:-1]).norm(dim=1).sum().item() == 2


def test_components_are_reported_and_not_bridged():
    torch.manual_seed(0)
    nodes = torch.cat([torch.randn(60, 2), torch.randn(40, 2) + 100])
    graph = Graph(nodes, 5)
    assert graph.components() == [60, 40]
    with pytest.raises(NoPath, match=r"100 nodes with 5 neighbours .* components of \[60, 40\] nodes"):
        graph.path(torch.zeros(2), torch.full((2,), 100.0))
    assert len(graph.path(nodes[0], nodes[59])) >= 3


def test_a_path_leaves_the_graph_as_it_was():
    nodes = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    graph = Graph(nodes, 4)
    edges = graph.edges()
    graph.path(torch.zeros(2), torch.ones(2))
    assert torch.equal(graph.edges(), edges)


@pytest.mark.parametrize("nodes", [torch.zeros(5, 2), torch.zeros(6), torch.full((9, 2), math.nan)])
def test_mistakes_are_named(nodes):
    with pytest.raises(ValueError, match=r"5 neighbours|not finite"):
        Graph(nodes, 5)


def test_smoothness_is_its_formula():
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    x = torch.stack([t**2, 3 * t, torch.zeros_like(t)], 1)
    expected = [math.sqrt(99 * (2 * 0.01**2) ** 2 / 100), 0, 0]  # 99 second differences of 2 h^2
    torch.testing.assert_close(smoothness(x), torch.tensor(expected, dtype=torch.float64), atol=1e-12, rtol=0)
    assert smoothness(x[:2]).tolist() == [0, 0, 0]
    assert smoothness(x.view(101, 1, 3)).shape == (1, 3)


def test_resampled_points_are_at_equal_distances_and_keep_the_ends():
    torch.manual_seed(0)
    path = torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 4.0], [3.0, 10.0]])
    points = resample(path, 12)
    torch.testing.assert_close(points[0], path[0])
    torch.testing.assert_close(points[-1], path[-1])
    torch.testing.assert_close((points[1:] - points[:-1]).norm(dim=1), torch.ones(11))
    assert torch.equal(resample(path[:1], 3), path[:1].expand(3, 2))  # a path of one point stays there


class Around(nn.Module):
    """A normal distribution around its input."""

    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return Independent(Normal(x, self.log_scale.exp()), 1)


class Scripted(nn.Module):
    """A prior whose draws are given, one batch after the other."""

    def __init__(self, *batches):
        super().__init__()
        self.batches = list(batches)

    def forward(self):
        return self

    def sample(self, shape):
        return self.batches.pop(0)[: shape[0]]


def test_the_interpolations_shown_are_of_the_first_graph_with_a_path():
    clusters = torch.tensor([-10.5, -10.0, -9.5, 9.5, 10.0, 10.5])[:, None]
    line = torch.linspace(-10.5, 10.5, 6)[:, None]
    examples = _Examples(torch.tensor([[-10.0], [10.0]]))
    model = VAE(Around(), Around(), Scripted(clusters, line, line + 0.1))
    components, smooth, first = _measure(model, examples, 6, 2, graphs=3, pairs=4, progress=lambda done, total: None)
    assert components == [[3, 3], [6], [6]]
    assert len(smooth) == 8
    assert len(first) == 4
    assert all(torch.equal(each.graph.nodes, line) for each in first)
