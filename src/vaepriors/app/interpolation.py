"""Interpolations of a run: paths in the latent space between test examples, decoded and measured."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaepriors.analysis.paths import Graph, NoPath, resample, smoothness, straight
from vaepriors.app.run import Run
from vaepriors.checkpoint import write_json
from vaepriors.conditional import AnyVAE, given
from vaepriors.data import Dataset, condition_of
from vaepriors.distributions import point_estimate
from vaepriors.limits import at_least_one, check_size
from vaepriors.numerics import seed_of
from vaepriors.vae import VAE

__all__ = ["Interpolation", "interpolate_run"]


POINTS = 50  # of a resampled path, and of a straight line


DEFAULTS = {"pendulum": (1000, 18), "cmu_motion": (2530, 15), "faces": (10_000, 18), "chairs": (8637, 18)}


Progress = Callable[[int, int], None]


class _Examples(NamedTuple):
    """Test examples that paths join, with their own conditions, and the condition that the paths are given."""

    x: Tensor  # (N, *event)
    own: Tensor | None = None  # (N, c)
    y: Tensor | None = None  # (c,)


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
    progress: Progress = lambda done, total: None,
    condition: Sequence[float | str] = (),
) -> tuple[dict[str, Any], list[Interpolation]]:
    """Interpolate between random pairs of test examples and measure the smoothness; write interpolation.json.

    Args:
        run: The run.
        nodes, neighbors, graphs, pairs, which, seed: As for `vaepriors interpolate`.
        progress: Called with the number of pairs done and their total.
        condition: Of a model with conditions: the class of all paths, their covariates, or both. The prior and the
            decoder are given it; the ends are test examples of the class, each encoded with its own condition.

    Returns:
        What interpolation.json holds, and the interpolations of the first graph with a path. The smoothness (lower is
        smoother) is given as mean and standard deviation over all pairs with a path: of the nodes on the path
        (`graph`), of 50 points on it at equal distances (`graph_resampled`), and of 50 points on the straight line
        (`straight`).
    """
    dataset = run.dataset()
    examples = _examples(dataset, condition)
    model, values = run.model(dataset, which)
    usual = DEFAULTS.get(dataset.name, (1000, 18))
    nodes, neighbors = usual[0] if nodes is None else nodes, usual[1] if neighbors is None else neighbors
    at_least_one(graphs=graphs, pairs=pairs, nodes=nodes, neighbors=neighbors)
    if (number := len(examples.x)) < 2:
        of = f" of the class {condition[0]}" if dataset.classes else ""
        examples_of = f"test example{'s' * (number != 1)}{of}"
        raise ValueError(f"{dataset.name} has {number} {examples_of}: an interpolation needs two")
    check_size(f"a graph of {nodes} nodes with {neighbors} neighbours each", 100 * nodes * neighbors)  # at least
    torch.manual_seed(seed_of(seed, "interpolation"))
    components, smooth, first = _measure(model, examples, nodes, neighbors, graphs, pairs, progress)
    result = {
        "checkpoint": which, "epoch": values["epoch"], "seed": seed, "nodes": nodes, "neighbors": neighbors,
        "graphs": graphs, "pairs": pairs, "pairs_without_path": graphs * pairs - len(smooth), "components": components,
        **({"condition": [str(each) for each in condition]} if condition else {}),
        "smoothness": {name: _summary(torch.stack([each[name] for each in smooth])) for name in smooth[0]},
    }  # fmt: skip
    write_json(run / "interpolation.json", result)
    return result, first


def _examples(dataset: Dataset, condition: Sequence[float | str]) -> _Examples:
    """All test examples, or those of the class of a condition."""
    if not dataset.conditions and not condition:
        return _Examples(dataset.test)
    if not condition:
        raise ValueError(
            f"condition is missing, but the model of {dataset.name} is given {dataset.given_in_words()}: add "
            "--condition with that of the paths"
        )
    y, own, classes = condition_of(dataset, condition), dataset.conditions["test"], len(dataset.classes)
    same = (own[:, :classes] == y[:classes]).all(1)  # all of them where there are only covariates
    return _Examples(dataset.test[same], own[same], y)


def _measure(
    model: AnyVAE, examples: _Examples, nodes: int, neighbors: int, graphs: int, pairs: int, progress: Progress
) -> tuple[list[list[int]], list[dict[str, Tensor]], list[Interpolation]]:
    """The components of each graph, the smoothness of each pair with a path, the paths of the first graph with any."""
    x, own, y = (None if each is None else each.to(next(model.parameters())) for each in examples)
    assert x is not None
    at = given(model, y)
    components, smooth = [], []
    first: list[Interpolation] = []
    for number in range(graphs):
        graph = Graph(at.prior().sample((nodes,)), neighbors)
        components.append(graph.components())
        for pair in range(pairs):
            rows = torch.randperm(len(x))[:2]
            codes = point_estimate(given(model, None if own is None else own[rows]).encoder(x[rows]))
            progress(number * pairs + pair + 1, graphs * pairs)
            with suppress(NoPath):
                interpolation, measured = _interpolate(at, graph, x[rows], codes)
                smooth.append(measured)
                first += [interpolation] * (not first or first[0].graph is graph)
    if not smooth:
        raise NoPath(
            f"no pair of {graphs * pairs} has a path: the graphs fall into components of {components[0]} nodes; "
            "take more nodes or neighbors"
        )
    return components, smooth, first


def _interpolate(model: VAE, graph: Graph, ends: Tensor, codes: Tensor) -> tuple[Interpolation, dict[str, Tensor]]:
    """The interpolation between two data points with these codes, and the smoothness of each kind of path."""
    start, goal = codes
    path = graph.path(start, goal)
    paths = {"graph": path, "graph_resampled": resample(path, POINTS), "straight": straight(start, goal, POINTS)}
    decoded = {name: point_estimate(model.decoder(z.to(ends))) for name, z in paths.items()}
    measured = {name: smoothness(x).flatten() for name, x in decoded.items()}
    return Interpolation(graph, path, decoded["graph"], decoded["straight"], ends), measured


def _summary(smoothness: Tensor) -> dict[str, Any]:
    """Mean and standard deviation over pairs, of all coordinates and of each; of shape (pairs, coordinates)."""
    overall = smoothness.mean(1)
    spread = lambda t: t.std(0) if len(t) > 1 else torch.zeros_like(t[0])  # noqa: E731
    return {
        "mean": overall.mean().item(),
        "sd": spread(overall).item(),
        "mean_of_each": smoothness.mean(0).tolist(),
        "sd_of_each": spread(smoothness).tolist(),
    }
