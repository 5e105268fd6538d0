r"""Interpolation along the latent manifold: shortest paths in a graph of prior samples.

(Klushyn et al. 2019, section 2.3, after Chen et al. 2018.)

Nodes are N draws of the prior. Each is joined to its k nearest neighbours (an edge exists if either node lists the
other), by an edge as long as the Euclidean distance. The ends of a path are the posterior means of two data points,
each joined to its own k nearest nodes. If $d$ is the distance within the graph and A and B are the nodes joined to
start s and goal g, the shortest path has length

$$\min_{a \in A,\, b \in B} \|s - a\| + d(a, b) + \|b - g\|$$

The nodes on it are decoded. A graph may have several components. They are reported (`Graph.components`), and a path
from one to another is an error: no edge is added to bridge them.

The smoothness of a decoded path $x_1, \dots, x_T$ is the root mean square of its second differences (the paper's
figure 8), for each coordinate j:

$$s_j = \sqrt{\frac{1}{T - 1} \sum_t (x_{t+1,j} - 2 x_{t,j} + x_{t-1,j})^2}$$

More nodes on a path make smaller steps, and so a smaller $s$. `resample` gives paths a common number of points, at
equal distances.
"""

import numpy as np
import torch
from scipy.sparse.csgraph import connected_components, dijkstra
from torch import Tensor

__all__ = ["Graph", "NoPath", "resample", "smoothness", "straight"]


class NoPath(ValueError):
    """The two ends lie in different components of the graph."""


class Graph:
    """Nodes joined to their nearest neighbours.

    Args:
        nodes: Of shape `(N, D)`.
        neighbors: k, of each node.

    Raises:
        ValueError: If `neighbors` is not in [1, N - 1], or some node is not finite.

    >>> line = Graph(torch.arange(5.0)[:, None], neighbors=1)
    >>> line.path(torch.tensor([0.1]), torch.tensor([3.9])).flatten().tolist()
    [0.1..., 0.0, 1.0, 2.0, 3.0, 4.0, 3.9...]
    """

    def __init__(self, nodes: Tensor, neighbors: int) -> None:
        if nodes.dim() != 2 or not 1 <= neighbors < len(nodes):
            raise ValueError(
                f"nodes of shape {tuple(nodes.shape)} cannot have {neighbors} neighbours each: (N, D) is needed, with "
                "N larger than the number of neighbours, which is at least 1"
            )
        if not nodes.isfinite().all():
            raise ValueError("some nodes are not finite: has the training of the model diverged?")
        self.nodes = nodes.detach().cpu()
        self.neighbors = neighbors
        from sklearn.neighbors import NearestNeighbors  # takes seconds, so only a graph imports it

        self._search = NearestNeighbors(n_neighbors=neighbors).fit(self.nodes.numpy())
        self._graph = self._search.kneighbors_graph(mode="distance")  # (i, j): i lists j; SciPy adds the other way

    def components(self) -> list[int]:
        """The number of nodes in each connected component, the largest first."""
        _, labels = connected_components(self._graph, directed=False)
        return sorted(np.bincount(labels).tolist(), reverse=True)

    def edges(self) -> Tensor:
        """The two nodes' numbers of each edge, of shape `(E, 2)`, the smaller first."""
        listed = self._graph.tocoo()
        return torch.from_numpy(np.unique(np.sort([listed.row, listed.col], 0), axis=1).T).long()

    def path(self, start: Tensor, goal: Tensor) -> Tensor:
        """The shortest path from start to goal, both of shape `(D,)`, through nodes of the graph.

        Returns:
            The points on it, of shape `(T, D)`; the first is `start` and the last is `goal`.

        Raises:
            NoPath: If start and goal are joined to different components.
        """
        ends = torch.stack([start.detach().cpu(), goal.detach().cpu()])
        (first, last), (near_start, near_goal) = self._search.kneighbors(ends.numpy())
        within, before = dijkstra(self._graph, directed=False, indices=near_start, return_predecessors=True)
        lengths = first[:, None] + within[:, near_goal] + last  # (k, k): by way of these two nodes
        row, column = np.unravel_index(lengths.argmin(), lengths.shape)
        if np.isinf(lengths[row, column]):
            raise NoPath(
                f"no path: the graph of {len(self.nodes)} nodes with {self.neighbors} neighbours each has components "
                f"of {self.components()} nodes, and the two ends lie in different ones; take more nodes or neighbours"
            )
        nodes = [near_goal[column]]
        while nodes[-1] != near_start[row]:
            nodes.append(before[row, nodes[-1]])
        return torch.cat([ends[:1], self.nodes[np.array(nodes[::-1])], ends[1:]])


def straight(start: Tensor, goal: Tensor, points: int = 50) -> Tensor:
    """Points on the straight line from start to goal, of shape `(points, D)`.

    >>> straight(torch.zeros(2), torch.ones(2), 3)[:, 0].tolist()
    [0.0, 0.5, 1.0]
    """
    return torch.lerp(start, goal, torch.linspace(0, 1, points, dtype=start.dtype)[:, None])


def resample(path: Tensor, points: int = 50) -> Tensor:
    """Points at equal distances along a path of straight pieces, its two ends included.

    Args:
        path: Of shape `(T, D)`, T at least 1.
        points: Number of points.

    Returns:
        Shape `(points, D)`.

    >>> resample(torch.tensor([[0.0], [1.0], [4.0]]), 5).flatten().tolist()
    [0.0, 1.0, 2.0, 3.0, 4.0]
    """
    steps = (path[1:] - path[:-1]).norm(dim=1)
    way = np.concatenate([[0.0], steps.double().cumsum(0).numpy()])
    at = np.linspace(0, way[-1], points)
    columns = [np.interp(at, way, column) for column in path.double().T.numpy()]
    return torch.from_numpy(np.stack(columns, 1)).to(path.dtype)


def smoothness(x: Tensor) -> Tensor:
    """Root mean square of the second differences of each coordinate along a path (see above).

    Args:
        x: Of shape `(T, *event)`.

    Returns:
        Shape `event`; zero for a path of fewer than three points.

    >>> smoothness(torch.tensor([[0.0], [1.0], [0.0]])).item()  # T - 1 = 2
    1.414...
    """
    second = x[2:] - 2 * x[1:-1] + x[:-2]
    return (second.square().sum(0) / max(len(x) - 1, 1)).sqrt()
