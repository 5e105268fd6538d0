"""Anomalies in a table by log p(x): malignant tumours among benign ones, beside the detectors of scikit-learn.

python examples/anomaly.py [--out FILE.json]

Each method is trained on three quarters of the benign rows of the breast cancer table, and scores the other benign rows
and all malignant ones. The area under the ROC curve is the share of pairs (benign, malignant) in the right order.
"""

import json
import sys

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vaepriors.estimator import VariationalAutoencoder


def detectors(seed: int, epochs: int, samples: int) -> dict[str, object]:
    """The methods by name; each has `fit` and `score_samples`."""
    vae = {"latent": 8, "max_epochs": epochs, "draws": samples, "accelerator": "cpu", "random_state": seed}
    return {
        "VAE, standard prior": VariationalAutoencoder("standard", **vae),
        "VAE, VampPrior": VariationalAutoencoder("vamp", components=50, **vae),
        "IsolationForest": IsolationForest(random_state=seed),
        "GaussianMixture, 5 components": make_pipeline(StandardScaler(), GaussianMixture(5, random_state=seed)),
        "PCA, 8 components": make_pipeline(StandardScaler(), PCA(8)),
    }


def main(epochs: int = 500, samples: int = 500, repeats: int = 5, out: str | None = None) -> None:
    x, benign = load_breast_cancer(return_X_y=True)
    areas: dict[str, list[float]] = {}
    for seed in range(repeats if epochs > 1 else 1):
        train, rest = train_test_split(x[benign == 1], test_size=0.25, random_state=seed)
        rows = np.concatenate([rest, x[benign == 0]])
        malignant = np.arange(len(rows)) >= len(rest)
        for name, detector in detectors(seed, epochs, samples).items():
            scores = detector.fit(train).score_samples(rows)
            areas.setdefault(name, []).append(roc_auc_score(malignant, -scores))
            if name.startswith("VAE"):
                print(f"seed {seed}, {name}: log p(x) of new benign rows {scores[: len(rest)].mean():.1f} nats")
    for name, each in areas.items():
        print(f"{name:32s} area under the ROC curve {np.mean(each):.3f} +- {np.std(each):.3f}")
    if out is not None:
        with open(out, "w") as file:
            json.dump({"table": "breast cancer (scikit-learn)", "areas": areas}, file, indent=2)


if __name__ == "__main__":
    main(out=sys.argv[sys.argv.index("--out") + 1] if "--out" in sys.argv else None)
