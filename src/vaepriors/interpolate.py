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

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import networkx
import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from vaepriors.checkpoint import write_atomically
from vaepriors.distributions import mean_or_draw
from vaepriors.limits import check_size
from vaepriors.run import Run, seed_of
from vaepriors.vae import VAE

__all__ = ["Graph", "Interpolation", "NoPath", "interpolate_run", "resample", "smoothness", "straight"]

POINTS = 50  # of a resampled path, and of a straight line
DEFAULTS = {"pendulum": (1000, 18), "cmu_motion": (2530, 15), "faces": (10_000, 18), "chairs": (8637, 18)}


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
        self._search = NearestNeighbors(n_neighbors=neighbors).fit(self.nodes.numpy())
        self._graph = networkx.from_scipy_sparse_array(self._search.kneighbors_graph(mode="distance"))

    def components(self) -> list[int]:
        """The number of nodes in each connected component, the largest first."""
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


class Interpolation(NamedTuple):
    """A path through a graph between two data points, and the straight line between their codes."""

    graph: Graph
    path: Tensor  # (T, D)
    decoded: Tensor  # (T, *event)
    straight: Tensor  # (50, *event): the straight line, decoded
    ends: Tensor  # (2, *event): the data points


@torch.no_grad()
def interpolate_run(
    run: Run,
    nodes: int | None = None,
    neighbors: int | None = None,
    graphs: int = 10,
    pairs: int = 100,
    which: str = "best",
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[dict[str, Any], list[Interpolation]]:
    """Interpolate between random pairs of test examples and measure the smoothness; write interpolation.json.

    Args:
        run: The run.
        nodes: N, in each graph; by default those of the paper for its data sets, 1,000 for others.
        neighbors: k; by default those of the paper, 18 for others.
        graphs: How many graphs, each with nodes of its own.
        pairs: How many pairs of test examples for each graph.
        which: The model, as in `Run.model`.
        seed: Seed of the nodes and the pairs.
        progress: Called with the number of pairs done and their total.

    Returns:
        What interpolation.json holds, and the interpolations of the first graph. The smoothness of each coordinate is
        given by its mean and standard deviation over all pairs with a path: of the nodes on the path (`graph`), of 50
        points on it at equal distances (`graph_resampled`), and of 50 points on the straight line (`straight`).

    Raises:
        ValueError: If the run or the options do not allow it, or no pair at all has a path.
    """
    for name, value in (("graphs", graphs), ("pairs", pairs), ("nodes", nodes), ("neighbors", neighbors)):
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}: at least 1 is needed")
    dataset = run.dataset()
    model, values = run.model(dataset, which)
    usual = DEFAULTS.get(dataset.name, (1000, 18))
    nodes, neighbors = usual[0] if nodes is None else nodes, usual[1] if neighbors is None else neighbors
    if len(dataset.test) < 2:
        raise ValueError(f"{dataset.name} has {len(dataset.test)} test example: two are needed to interpolate between")
    edges = nodes * max(neighbors, 1)
    check_size(f"a graph of {nodes} nodes with {neighbors} neighbours each", 100 * edges)  # an edge takes more
    torch.manual_seed(seed_of(seed, "interpolation"))
    components, first, without = [], [], 0
    found: dict[str, list[Tensor]] = {"graph": [], "graph_resampled": [], "straight": []}
    for number in range(graphs):
        graph = Graph(model.prior().sample((nodes,)), neighbors)
        components.append(graph.components())
        for pair in range(pairs):
            ends = dataset.test[torch.randperm(len(dataset.test))[:2]].to(next(model.parameters()))
            start, goal = mean_or_draw(model.encoder(ends))
            progress(number * pairs + pair + 1, graphs * pairs)
            try:
                path = graph.path(start, goal)
            except NoPath:
                without += 1
                continue
            decoded, line = _decoded(model, path), _decoded(model, straight(start, goal, POINTS))
            for name, x in zip(found, (decoded, _decoded(model, resample(path, POINTS)), line), strict=True):
                found[name].append(smoothness(x).flatten())
            if number == 0:
                first.append(Interpolation(graph, path, decoded, line, ends))
    if not found["graph"]:
        raise NoPath(
            f"no pair of {graphs * pairs} has a path: the graphs fall into components of {components[0]} nodes; "
            "take more nodes or neighbors"
        )
    result = {
        "checkpoint": which, "epoch": values["epoch"], "seed": seed, "nodes": nodes, "neighbors": neighbors,
        "graphs": graphs, "pairs": pairs, "pairs_without_path": without, "components": components,
        "smoothness": {name: _summary(torch.stack(each)) for name, each in found.items()},
    }  # fmt: skip
    write_atomically(run / "interpolation.json", (json.dumps(result, indent=2) + "\n").encode())
    return result, first


def _decoded(model: VAE, z: Tensor) -> Tensor:
    return mean_or_draw(model.decoder(z.to(next(model.parameters()))))


def _summary(smoothness: Tensor) -> dict[str, Any]:
    """Of shape (pairs, coordinates): over pairs for each coordinate, and of the mean over coordinates."""
    overall = smoothness.mean(1)
    spread = lambda t: t.std(0) if len(t) > 1 else torch.zeros_like(t[0])  # noqa: E731
    return {
        "mean": overall.mean().item(),
        "sd": spread(overall).item(),
        "mean_of_each": smoothness.mean(0).tolist(),
        "sd_of_each": spread(smoothness).tolist(),
    }
