"""Missing cells of a table with columns of several kinds, filled by a VAE and by plain methods.

    python benchmarks/penguins.py [--seeds 5] [--out results/benchmarks/penguins.json]     # pip install palmerpenguins
    python benchmarks/penguins.py --render      # the table of docs/guide.md, from results/benchmarks/penguins.json

344 penguins of three species on three islands (Horst, Hill & Gorman 2020; in the package palmerpenguins, CC0): four
measures, the year, and the categories species, island and sex, with 19 cells that are missing. A fifth of all cells is
removed at random, for each seed another one. Each method sees the rest and fills these cells.

The error of a number is in standard deviations of its column (root of the mean square); that of a category is the share
of wrong ones. The mean takes the most frequent category; the nearest neighbours and the rounds of regressions of
scikit-learn see categories as one-hot numbers, and the largest one counts.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

from record import Record
from vaepriors import fit
from vaepriors.app.choices import markdown_table
from vaepriors.app.experiment import Experiment, build, load_data
from vaepriors.checkpoint import write_json
from vaepriors.data.columns import encode, values_of
from vaepriors.imputation import impute
from vaepriors.numerics import seed_of
from vaepriors.store import session

NUMBERS = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g", "year"]
CATEGORIES = ["species", "island", "sex"]
REMOVED = 0.2
EPOCHS = 1000


def by_vae(table: pd.DataFrame, seed: int, **options: Any) -> pd.DataFrame:
    """The table with its missing cells filled by a VAE, trained on the table as a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "penguins.csv"
        table.to_csv(path, index=False)
        kinds = ",".join(f"{name}=real" for name in NUMBERS)
        experiment = Experiment(data=str(path), columns=kinds, model="vae", latent=4, hidden=(64, 64), **options)
        data = load_data(experiment)
    torch.manual_seed(seed_of(seed, "weights"))
    model, objective = build(experiment, data)
    outcome = fit(model, objective, data, epochs=EPOCHS, lr=1e-3, patience=100, seed=seed, accelerator="cpu")
    torch.manual_seed(seed_of(seed, "impute"))
    x = impute(outcome.load_best(model), encode(path, table, data.columns), 1000).x
    return pd.DataFrame(values_of(x, data.columns))


def by_imputer(table: pd.DataFrame, seed: int, imputer: Any) -> pd.DataFrame:
    """The table filled by an imputer of numbers, which sees a category as one-hot numbers but the first.

    With the first, the others would tell each of them, and regressions would see nothing else.
    """
    numbers = table[NUMBERS].astype(float)
    mean, scale = numbers.mean(), numbers.std()
    parts = [(numbers - mean) / scale]
    for name in CATEGORIES:
        one_hot = pd.get_dummies(table[name]).astype(float)
        one_hot[table[name].isna().to_numpy()] = np.nan
        parts.append(one_hot)
    filled = imputer.fit_transform(pd.concat([parts[0], *(part.iloc[:, 1:] for part in parts[1:])], axis=1).to_numpy())
    result = pd.DataFrame(filled[:, : len(NUMBERS)], columns=NUMBERS) * scale + mean
    place = len(NUMBERS)
    for name, one_hot in zip(CATEGORIES, parts[1:], strict=True):
        others = filled[:, place : place + one_hot.shape[1] - 1]
        codes = np.column_stack([1 - others.sum(1), others]).argmax(1)
        result[name] = np.asarray(one_hot.columns)[codes]
        place += others.shape[1]
    return result


METHODS: dict[str, Callable[[pd.DataFrame, int], pd.DataFrame]] = {
    "mean, most frequent": lambda table, seed: by_imputer(table, seed, SimpleImputer()),
    "5 nearest neighbours": lambda table, seed: by_imputer(table, seed, KNNImputer()),
    "rounds of regressions": lambda table, seed: by_imputer(table, seed, IterativeImputer(random_state=seed)),
    "VAE, standard prior": by_vae,
    "VAE, VampPrior": lambda table, seed: by_vae(table, seed, prior="vamp", components=50),
}


def measure(seeds: int) -> dict[str, Any]:
    from palmerpenguins import load_penguins

    here = session(0, torch.device("cpu"))
    complete = load_penguins()
    errors: dict[str, list[dict[str, float]]] = {}
    for seed in range(seeds):
        removed = pd.DataFrame(np.random.default_rng(seed).random(complete.shape) < REMOVED, columns=complete.columns)
        table = complete.mask(removed)
        removed &= complete.notna()
        for name, method in METHODS.items():
            filled = method(table, seed)
            distance = (filled[NUMBERS].astype(float) - complete[NUMBERS]) / complete[NUMBERS].std()
            wrong = filled[CATEGORIES] != complete[CATEGORIES]
            errors.setdefault(name, []).append({
                "numbers": float(np.sqrt(np.mean(distance.to_numpy()[removed[NUMBERS].to_numpy()] ** 2))),
                "categories": float(wrong.to_numpy()[removed[CATEGORIES].to_numpy()].mean()),
            })  # fmt: skip
            print(seed, name, errors[name][-1], flush=True)
    return {"session": here, "removed": REMOVED, "rows": errors}


def table_of(recorded: dict[str, Any]) -> str:
    lines = []
    for name, each in recorded["rows"].items():
        cells = []
        for key in ("numbers", "categories"):
            values = [one[key] for one in each]
            cells.append(f"{np.mean(values):.3f} ± {np.std(values, ddof=1) / len(values) ** 0.5:.3f}")
        lines.append([name, *cells])
    return markdown_table(["filled by", "error of numbers", "wrong categories"], lines)


RECORD = Record("penguins", "guide.md", table_of)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RECORD.path)
    parser.add_argument("--render", action="store_true")
    options = parser.parse_args()
    if options.render:
        RECORD.render()
    else:
        write_json(options.out, measure(options.seeds))


if __name__ == "__main__":
    main()
