r"""Interpolation along the latent manifold: shortest paths in a graph of prior samples.

(Klushyn et al. 2019, section 2.3, after Chen et al. 2018.)

Nodes are N draws of the prior, edges join each to its k nearest neighbours (either side's list counts) and are as long
as the Euclidean distance. The ends of a path are the posterior means of two data points, joined to their own k nearest
nodes. A* finds the shortest path, with the distance to the goal as its bound from below; the nodes on it are decoded.

A graph may fall into several components. That is reported (`Graph.components`), and a path from one to another is an
error: no edge is ever put in to bridge them.

How smoothly a decoded path $x_1, \dots, x_T$ moves is told by the root mean square of its second differences (the
paper's figure 8), for each coordinate j:

$$s_j = \sqrt{\frac{1}{T - 1} \sum_t (x_{t+1,j} - 2 x_{t,j} + x_{t-1,j})^2}$$

More nodes on a path make smaller steps and so a smaller $s$. `resample` gives paths a common number of points, at equal
distances.
"""

import numpy as np
import torch
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
        ValueError: If there are not more nodes than neighbours, or some node is not finite.

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
        import networkx  # these take seconds, so only a graph imports them
        from sklearn.neighbors import NearestNeighbors

        self._search = NearestNeighbors(n_neighbors=neighbors).fit(self.nodes.numpy())
        self._graph = networkx.from_scipy_sparse_array(self._search.kneighbors_graph(mode="distance"))

    def components(self) -> list[int]:
        """The number of nodes in each connected component, the largest first."""
        import networkx

        return sorted((len(part) for part in networkx.connected_components(self._graph)), reverse=True)

    def edges(self) -> Tensor:
        """The two nodes' numbers of each edge, of shape `(E, 2)`."""
        return torch.tensor(list(self._graph.edges), dtype=torch.int64).view(-1, 2)

    def path(self, start: Tensor, goal: Tensor) -> Tensor:
        """The shortest path from start to goal, both of shape `(D,)`, through nodes of the graph.

        Returns:
            The points on it, of shape `(T, D)`, the first being `start` and the last `goal`.

        Raises:
            NoPath: If start and goal are joined to different components.
        """
        import networkx

        points = torch.cat([self.nodes, start.detach().cpu()[None], goal.detach().cpu()[None]])
        n = len(self.nodes)
        graph = self._graph.copy()
        distances, nearest = self._search.kneighbors(points[n:].numpy())
        for end in (0, 1):
            for distance, node in zip(distances[end], nearest[end], strict=True):
                graph.add_edge(n + end, int(node), weight=float(distance))
        bound = lambda a, b: float((points[a] - points[b]).norm())  # noqa: E731
        try:
            return points[networkx.astar_path(graph, n, n + 1, heuristic=bound)]
        except networkx.NetworkXNoPath:
            raise NoPath(
                f"no path: the graph of {n} nodes with {self.neighbors} neighbours each falls into components of "
                f"{self.components()} nodes, and the two ends lie in different ones; take more nodes or neighbours"
            ) from None


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
        points: How many.

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
