"""Cells of two batches: whether a VAE that is given the batch forgets it, and keeps the types of the cells.

    python benchmarks/cells.py --file 10x_pbmc68k_reduced.h5ad [--seeds 3] [--out results/benchmarks/cells.json]
    python benchmarks/cells.py --render         # the table of docs/guide.md, from results/benchmarks/cells.json

The file is in the package scanpy (BSD licence), in its folder `datasets`: 700 human blood cells, 765 genes, ten types
(10x Genomics; Zheng et al. 2017). It has log(1 + f count), with a factor f of each cell; the smallest number of a cell
that is not 0 is one count, so the counts come back as whole numbers.

The effect of the batch is ours: a random half of the cells is the second batch, in which every molecule of gene g is
kept with probability p_g, uniform on [0.2, 0.9]. A model is given the batch and the logarithm of the cell's total.

Numbers are read off the posterior means of all cells by 15 nearest neighbours, in five folds: how often they know the
batch (0.5 is a guess, and good), and how often the type, of types with 40 cells or more (high is good). log p(x|y) is
of the test cells, beside independent negative binomials of each gene and batch with the total as offset.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.stats import nbinom
from sklearn.decomposition import PCA
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from record import Record
from vaepriors import estimate, fit
from vaepriors.app.choices import markdown_table
from vaepriors.app.experiment import Experiment, build
from vaepriors.checkpoint import write_json
from vaepriors.data import Dataset, condition_on
from vaepriors.numerics import seed_of
from vaepriors.store import session

MODELS = {
    "VAE, standard prior, not given the batch": {"condition": "covariates"},
    "VAE, VampPrior, not given the batch": {"condition": "covariates", "prior": "vamp", "components": 50},
    "VAE, standard prior, given the batch": {"condition": "both"},
    "VAE, VampPrior, given the batch": {"condition": "both", "prior": "vamp", "components": 50},
}
FEW = 40  # cells: of fewer, a type is not looked at
Array = np.ndarray[Any, Any]


def read(file: Path) -> tuple[Array, Array]:
    """Counts of each cell and gene, whole numbers, and the type of each cell.

    Raises:
        ValueError: If the file does not have logarithms of scaled counts.
    """
    import anndata

    table = anndata.read_h5ad(file)
    scaled = np.expm1(table.raw.X.toarray().astype(np.float64))
    counts = scaled / np.where(scaled > 0, scaled, np.inf).min(1, keepdims=True)
    whole = counts.round()
    if (abs(counts - whole) > 0.002 * np.maximum(counts, 1)).any():
        raise ValueError(f"{file} does not have log(1 + f count): give 10x_pbmc68k_reduced.h5ad of scanpy")
    return whole, table.obs["bulk_labels"].astype(str).to_numpy()


def thin(counts: Array, generator: np.random.Generator) -> tuple[Array, Array]:
    """The counts with the effect of the batch, and the batch of each cell."""
    batch = generator.permutation(len(counts)) % 2
    kept = generator.uniform(0.2, 0.9, counts.shape[1])
    thinned = generator.binomial(counts.astype(np.int64), kept)
    return np.where(batch[:, None] == 1, thinned, counts), batch


def dataset(counts: Array, batch: Array, generator: np.random.Generator) -> tuple[Dataset, Array]:
    """Train, valid and test, 8 : 1 : 1, with batch and total; and the cells of the training set."""
    order = generator.permutation(len(counts))
    held = len(counts) // 10
    rows = {"train": order[2 * held :], "valid": order[:held], "test": order[held : 2 * held]}
    x = {split: torch.tensor(counts[of], dtype=torch.float32) for split, of in rows.items()}
    totals = {split: each.sum(1, keepdim=True).log() for split, each in x.items()}
    centre = totals["train"].mean()
    return Dataset(
        "cells",
        **x,
        likelihood="negative_binomial",
        labels={split: torch.tensor(batch[of]) for split, of in rows.items()},
        covariates={split: each - centre for split, each in totals.items()},
    ), order


def train(options: dict[str, Any], data: Dataset, seed: int, epochs: int) -> tuple[float, Array]:
    """Mean log p(x|y) of the test cells, and the codes of test, valid and train cells, in the order of `dataset`."""
    experiment = Experiment(model="vae", latent=10, hidden=(128, 128), warmup=100, **options)
    data = condition_on(data, options["condition"])
    torch.manual_seed(seed_of(seed, "weights"))
    model, objective = build(experiment, data)
    outcome = fit(
        model, objective, data, epochs=epochs, lr=1e-3, warmup=100, patience=100, seed=seed, accelerator="cpu"
    )
    model = outcome.load_best(model)
    x, y = (torch.cat([of[split] for split in ("valid", "test", "train")]) for of in (vars(data), data.conditions))
    with torch.no_grad():
        codes = model.encoder(x, y).mean
    log_p = estimate(model, data.test, 2000, condition=data.conditions["test"]).log_likelihood.mean().item()
    return log_p, codes.numpy()


def plain(data: Dataset) -> float:
    """Mean log p(x|y) of the test cells under independent negative binomials: m = total * share of gene and batch."""
    total = 0.0
    for batch in (0, 1):
        x, new = (getattr(data, split)[data.labels[split] == batch].double().numpy() for split in ("train", "test"))
        share = (x.sum(0) + 0.5) / x.sum()
        for gene in range(x.shape[1]):
            log_r = minimize_scalar(_cost, args=(x, share, gene), bounds=(-5, 7), method="bounded").x
            total -= _cost(log_r, new, share, gene)
    return total / len(data.test)


def _cost(log_r: float, x: Array, share: Array, gene: int) -> float:
    """- log p of the counts of a gene, with mean total * share and dispersion r."""
    mean, r = x.sum(1) * share[gene], np.exp(log_r)
    return -float(nbinom.logpmf(x[:, gene], r, r / (r + mean)).sum())


def accuracies(codes: Array, batch: Array, types: Array) -> dict[str, float]:
    """How often 15 nearest neighbours know the batch, and the type."""
    names, numbers = np.unique(types, return_counts=True)
    common = np.isin(types, names[numbers >= FEW])

    def accuracy(z: Array, target: Array) -> float:
        folds = StratifiedKFold(5, shuffle=True, random_state=0)
        return float(cross_val_score(KNeighborsClassifier(15), z, target, cv=folds).mean())

    return {"batch": accuracy(codes, batch), "type": accuracy(codes[common], types[common])}


def measure(file: Path, seeds: int, epochs: int) -> dict[str, Any]:
    here = session(0, torch.device("cpu"))
    counts, types = read(file)
    rows: dict[str, list[dict[str, float]]] = {}
    for seed in range(seeds):
        generator = np.random.default_rng(seed)
        thinned, batch = thin(counts, generator)
        data, order = dataset(thinned, batch, generator)
        scaled = np.log1p(thinned / thinned.sum(1, keepdims=True) * np.median(thinned.sum(1)))
        components = PCA(10, random_state=0).fit_transform(scaled)[order]
        rows.setdefault("PCA of log(1 + scaled count)", []).append(accuracies(components, batch[order], types[order]))
        rows.setdefault("independent genes", []).append({"log_p": plain(data)})
        for name, options in MODELS.items():
            log_p, codes = train(options, data, seed, epochs)
            rows.setdefault(name, []).append({"log_p": log_p, **accuracies(codes, batch[order], types[order])})
            print(seed, name, rows[name][-1], flush=True)
    return {"session": here, "file": file.name, "epochs": epochs, "rows": rows}


def table(recorded: dict[str, Any]) -> str:
    titles = ("codes", "log p(x\\|y)", "batch known", "type known")
    lines = []
    for name, each in recorded["rows"].items():
        cells = []
        for key, digits in (("log_p", 1), ("batch", 2), ("type", 2)):
            values = [one[key] for one in each if key in one]
            error = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0
            cells.append(f"{np.mean(values):.{digits}f} ± {error:.{digits}f}" if values else "")
        lines.append([name, *cells])
    return markdown_table(titles, lines)


RECORD = Record("cells", "guide.md", table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=RECORD.path)
    parser.add_argument("--render", action="store_true")
    options = parser.parse_args()
    if options.file is None and not options.render:
        parser.error("give --file, or --render")
    if options.file is not None:
        write_json(options.out, measure(options.file, options.seeds, options.epochs))
    if options.render:
        RECORD.render()


if __name__ == "__main__":
    main()
