"""The benchmark counts what it says, and its page shows what was recorded."""

import json
from pathlib import Path
from types import SimpleNamespace

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from sklearn.decomposition import PCA

import cells
import controller
import likelihood
import motion
import ours
import penguins
import pretrained
import priors
import samples
import speed
import streaming
from reference import LinearGaussian
from vaepriors.annealing import Annealing
from vaepriors.app.cost import gflop_per_image, gflop_per_step
from vaepriors.likelihood import ImportanceSampling

ROOT = Path(__file__).parents[1]

# GFLOP a step at batch 100, from the layer sizes of Tomczak & Welling 2018, with the standard prior and K = 500
STEPS = {"vae": (0.57, 2.60), "hvae": (1.27, 3.29), "convhvae": (132, 223), "pixelhvae": (149, 240)}
# of an image with 5,000 samples: 439,200 multiply-adds each, or those of q(z1|x, z2) without its x half, p(z1|z2) and
# p(x|z1, z2)
IMAGES = {"vae": 2 * 5000 * 439_200 / 1e9, "hvae": 2 * 5000 * (228_000 + 228_000 + 643_200) / 1e9, "convhvae": 1760}


@pytest.mark.parametrize("model", STEPS)
def test_no_step_has_more_operations_than_its_layers(model):
    for prior, expected in zip(("standard", "vamp"), STEPS[model], strict=True):
        counted = gflop_per_step(ours.experiment(model, prior))
        # the PixelCNN here has no masked taps: a third less of its share
        assert (0.74 if model == "pixelhvae" else 0.97) * expected < counted < 1.03 * expected, prior


@pytest.mark.parametrize("model", IMAGES)
def test_no_likelihood_has_more_operations_than_its_layers(model):
    standard, vamp = (gflop_per_image(ours.experiment(model, prior), 5000) for prior in ("standard", "vamp"))
    assert standard == pytest.approx(IMAGES[model], rel=0.03)
    mixture = vamp - standard
    top = (223 - 132) / 3 if model == "convhvae" else 2 * 500 * 674_400 / 1e9  # the components, once
    assert mixture == pytest.approx(2 * 5000 * 500 * 81 / 1e9 + top, rel=0.06)


def test_the_page_shows_the_recorded_benchmarks():
    page = (ROOT / "docs" / "speed.md").read_text()
    assert speed.rendered(page) == page
    recorded = sorted(path.stem for path in (ROOT / "results" / "benchmarks").glob("speed-*.json"))
    assert [name for name in recorded if f"<!-- {name}: begin -->" in page] == recorded != []


def recorded(name):
    return json.loads((ROOT / "results" / "benchmarks" / f"{name}.json").read_text())


def recorded_ratios(name):
    """The peer's times over ours, VAE with a VampPrior: a step, a compiled step, a likelihood."""
    case = {(c["prior"], c["variant"]): c for c in recorded(name)["cases"] if c["model"] == "vae"}
    peer = case["vamp", "pythae"]
    steps = [peer["ms_per_step"] / case["vamp", variant]["ms_per_step"] for variant in ("plain", "compile")]
    return *steps, peer["ms_per_image"] / case["vamp", "plain"]["ms_per_image"]


def test_the_readme_has_the_recorded_ratios():
    readme = " ".join((ROOT / "README.md").read_text().split())
    steps, compiled, likelihoods = zip(
        *map(recorded_ratios, ("speed-cpu", "speed-cpu-amx", "speed-cpu-amd")), strict=True
    )
    assert f"is {min(steps):.1f} to {max(steps):.1f} times as fast, with" in readme
    assert f"with `--compile` {min(compiled):.1f} to {max(compiled):.1f} times" in readme
    assert f"its 5,000-sample likelihood {min(likelihoods):.0f} to {max(likelihoods):.0f} times" in readme
    gains = gains_of_bfloat16("convhvae")
    said = "a step of the ConvHVAE with `--precision bf16-mixed` is {:.1f} to {:.1f} times as fast"
    assert said.format(*gains) in readme


def gains_of_bfloat16(model, variant="bf16"):
    """The time of a plain step over that of one with products in bfloat16, with both priors."""
    case = {
        (c["prior"], c["variant"]): c["ms_per_step"] for c in recorded("speed-cpu-amx")["cases"] if c["model"] == model
    }
    return [case[prior, "plain"] / case[prior, variant] for prior in ("standard", "vamp")]


def test_the_page_has_the_recorded_gains_of_bfloat16():
    page = (ROOT / "docs" / "speed.md").read_text()
    said = "of ConvHVAE is {:.1f} and {:.1f} times as fast, of PixelHVAE {:.1f} and {:.1f} times;"
    assert said.format(*gains_of_bfloat16("convhvae"), *gains_of_bfloat16("pixelhvae")) in page
    dense = [gains_of_bfloat16(model, variant) for variant in ("bf16", "bf16-compile") for model in ("vae", "hvae")]
    said = "with a VampPrior {:.1f} and {:.1f} times, with `--compile` {:.1f} and {:.1f} times;"
    assert said.format(*(vamp for _, vamp in dense)) in page
    assert all(0.9 < standard < 1.1 for standard, _ in dense[:2])  # "next to none"
    amx = recorded("speed-cpu-amx")["gflops_per_second"]
    assert amx["bfloat16"] > 5 * amx["float32"]
    assert "float32 by oneDNN" not in amx


def test_the_page_compares_the_recorded_rates_of_products():
    page = " ".join((ROOT / "docs" / "speed.md").read_text().split())
    intel, *amd = [recorded(f"speed-cpu{name}")["gflops_per_second"] for name in ("", "-amd", "-amd-convolutions")]
    assert [round(rates["float32 by oneDNN"] / rates["float32"]) for rates in amd] == [2, 2]
    assert "its products by oneDNN are twice as fast as by MKL" in page
    assert 0.9 < intel["float32 by oneDNN"] / intel["float32"] < 1.1
    assert "On the older Intel machine both libraries reach the same rate" in page


def test_the_benchmark_measures_the_variants_that_a_device_has():
    assert speed.variants_of("vae", "cpu") == ["plain", "compile", "bf16", "bf16-compile"]
    assert speed.variants_of("vae", "cuda", ["compile", "plain"]) == ["plain", "compile"]
    assert speed.variants_of("convhvae", "cuda") == ["plain", "graph", "bf16"]
    with pytest.raises(ValueError, match="graph"):
        speed.variants_of("vae", "cpu", ["graph"])
    with pytest.raises(ValueError, match="convhvae"):
        speed.variants_of("convhvae", "cpu", ["compile"])


def test_the_page_has_the_recorded_times_of_stacked_copies():
    page = " ".join((ROOT / "docs" / "speed.md").read_text().split())
    cases = json.loads((ROOT / "results" / "benchmarks" / "seeds.json").read_text())["vae"]
    (standard, vamp) = [case for case in cases if case["copies"] == 5]
    assert f"takes {standard['together_ms']:.0f} ms together and {standard['in_turn_ms']:.0f} ms in turn" in page
    assert f"with the VampPrior {vamp['together_ms']:.0f} and {vamp['in_turn_ms']:.0f} ms" in page


def test_ratios_are_of_times_and_floors_of_counts():
    case = lambda prior, variant, step: {  # noqa: E731
        "model": "vae", "prior": prior, "variant": variant, "ms_per_step": step, "ms_per_image": 10 * step,
        "gflop_per_step": 2.0, "gflop_per_image": 5.0, "step_gib": 0.5,
    }  # fmt: skip
    times = {"plain": 10.0, "bf16": 4.0, "pythae": 25.0, "pythae-trainer": 30.0}
    cases = [
        case(prior, name, factor * t) for prior, factor in (("standard", 1), ("vamp", 3)) for name, t in times.items()
    ]
    result = {
        "session": {"hardware": "a machine", "versions": {"torch": "2"}, "commit": "abc"},
        "rounds": 3,
        "gflops_per_second": {"float32": 400.0, "bfloat16": 900.0},
        "cases": cases,
    }
    assert "| vae | standard | plain | 10 | 5 | 2.00 | 0.50 | 100 | 12.5 | 8.00 |" in speed.render(result)
    assert "medians of 3 rounds;" in speed.render(result)
    lines = speed.ratios(result)
    assert "pythae's step takes 2.50 (3.00 in its own trainer) times as long as ours, VAE, vamp prior, plain" in lines
    assert "pythae's likelihood takes 2.5 times as long as ours, VAE, standard prior" in lines
    assert "VampPrior (K = 500) over the standard prior, vae, plain: 3.00 times the step" in lines
    assert "a step in float32, plain, takes 2.50 times as long, vae, vamp, bf16" in lines
    text = "a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb\n"
    assert "old" not in speed.replaced(text, "x", result)


def test_steps_with_priors_are_timed_beside_the_standard_one():
    result = priors.measure(["exemplar"], rounds=1, steps=1, images=500)
    assert [case["prior"] for case in result["cases"]] == ["standard", "exemplar"]
    assert all(case["ms_per_step"] > 0 for case in result["cases"])
    fast, slow = priors.case("standard", [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]), priors.case("vamp", [3, 5, 12], [1, 2, 3])
    assert (fast["ratio"], slow["ratio"], slow["ms_per_step"]) == (1, 3, 5000)
    assert "| vamp | 5000.0 |" in priors.render(
        {"cases": [fast, slow], "session": {"hardware": "a machine", "commit": "abc"}}
    )


def test_a_likelihood_grows_with_its_samples_to_the_exact_one():
    """Of a linear-Gaussian model with posteriors that are too wide."""
    linear = LinearGaussian(scale=1.5)
    data = SimpleNamespace(test=linear.x)
    run = SimpleNamespace(dataset=lambda: data, model=lambda data: (linear.vae(), {}))
    growth = samples.growth(run, [1, 100, 10_000], number=5)
    values = [each["log_likelihood"] for each in growth]
    chosen = torch.randperm(len(linear.x), generator=torch.Generator().manual_seed(0))[:5]
    assert values[0] < values[1] - 0.5
    assert values[-1] == pytest.approx(linear.log_prob(linear.x[chosen]).mean().item(), abs=0.05)
    assert growth[0]["effective_samples"] == 1


@pytest.mark.parametrize("benchmark", [cells, controller, likelihood, motion, penguins, pretrained, priors, streaming])
def test_the_pages_show_what_was_recorded(benchmark):
    page = (ROOT / "docs" / benchmark.RECORD.page).read_text()
    assert benchmark.RECORD.rendered(page) == page


def test_a_flow_fits_narrow_posteriors_best_and_a_mixture_of_them_worst():
    means = {name: np.mean(v) for name, v in json.loads(pretrained.RECORD.path.read_text())["rows"].items()}
    assert sorted(means, key=means.get) == ["VampPrior", "standard normal", "mixture", "flow"]


def test_counts_of_cells_come_back_from_scaled_logarithms(tmp_path):
    counts = np.array([[0, 1, 2], [5, 1, 0]])
    table = anndata.AnnData(scipy.sparse.csr_matrix(np.log1p(counts * [[0.3], [7.0]]).astype(np.float32)))
    table.obs["bulk_labels"] = ["a", "b"]
    table.raw = table
    table.write_h5ad(tmp_path / "cells.h5ad")
    whole, types = cells.read(tmp_path / "cells.h5ad")
    assert whole.tolist() == counts.tolist()
    assert types.tolist() == ["a", "b"]


def test_filling_by_numbers_keeps_what_is_there():
    table = pd.DataFrame({name: [1.0, 2.0, 3.0, None] for name in penguins.NUMBERS})
    for name in penguins.CATEGORIES:
        table[name] = ["a", "b", None, "b"]
    filled = penguins.METHODS["mean, most frequent"](table, 0)
    assert filled["year"].tolist() == [1, 2, 3, 2]
    assert filled["sex"].tolist() == ["a", "b", "b", "b"]


def test_the_error_of_principal_components_is_that_of_scikit_learn():
    x = torch.randn(100, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * torch.arange(1.0, 7)
    pca = PCA(2).fit(x.numpy())
    left = x.numpy() - pca.inverse_transform(pca.transform(x.numpy()))
    assert motion.error_of_components(SimpleNamespace(train=x)) == pytest.approx(np.sqrt(np.mean(left**2)))


def test_one_scale_meets_the_bound_of_the_motions():
    rows = recorded("motion")["rows"]
    of_each, of_deviations, of_one = (rows[scale]["errors"]["17500"][0] for scale in motion.SCALES)
    assert of_one < 0.02 < 0.04 < of_each < 0.4 < of_deviations


def test_effective_samples_are_counted_by_the_second():
    linear = LinearGaussian()
    run = SimpleNamespace(dataset=lambda: SimpleNamespace(test=linear.x), model=lambda data: (linear.vae(), {}))
    methods = {"draws": ImportanceSampling(100), "chains": Annealing(4, 2, 1)}
    draws, chains = likelihood.measure(run, 5, 3, methods)
    for case, effective in ((draws, 100), (chains, 4)):
        assert case["effective_samples_mean"] == pytest.approx(effective)
        assert case["effective_samples_per_second"] > 0
    assert draws["gap"] is None
    assert chains["gap"] == pytest.approx((0, 0), abs=1e-4)


def test_the_page_of_results_has_the_recorded_growth():
    page = " ".join((ROOT / "docs" / "results.md").read_text().split())
    recorded = json.loads((ROOT / "results" / "benchmarks" / "samples.json").read_text())
    few, usual, many = (f"{each['log_likelihood']:.1f}" for each in recorded["growth"])
    assert [each["samples"] for each in recorded["growth"]] == [500, 5000, 50_000]
    assert f"on {recorded['number']} test images" in page
    assert f"{few} nats with 500 samples, {usual} with 5,000, and {many} with 50,000" in page
    assert f"with {recorded['growth'][1]['effective_samples']:.0f} effective samples of the 5,000" in page


def test_the_recorded_training_from_disk_needs_little_memory():
    result = recorded("streaming")
    assert result["memory"]["streamed"]
    assert result["memory"]["file_bytes"] > 19.9e9
    assert result["memory"]["peak_gib"]["trained"] * 2**30 < 2e9
    assert result["speed"]["weights_are_equal"]
    assert {case["side"]: case["ratio"] for case in result["speed"]["cases"]}["file on disk"] > 0.9


def test_trainings_from_disk_and_from_memory_take_turns(tmp_path):
    result = streaming.measure_speed(tmp_path, rounds=1, steps=2, images=200)
    assert result["weights_are_equal"]
    assert all(case["steps_per_second"] > 0 for case in result["cases"])
    streaming.sparse(tmp_path / "zeros.npy", 1000)
    assert streaming.load(tmp_path / "zeros.npy", "yes").event_shape == (1, 28, 28)


def test_the_later_controller_moves_in_every_hundredth_step():
    linear = LinearGaussian()
    model = linear.vae()
    met = controller.LaterREWO(kappa=1e3, nu=1.0, sigma=1.0)
    betas = []
    for _ in range(200):
        met(model, linear.x)
        betas.append(met.metrics()["beta"].item())
    assert betas[:99] == [betas[0]] * 99 == [pytest.approx(1e-3)] * 99
    assert betas[99:199] == [pytest.approx(1.05e-3)] * 100
    assert betas[199] == pytest.approx(1.05**2 * 1e-3)
    never_met = controller.LaterREWO(kappa=1e-9, nu=1.0, sigma=1.0)
    loss, terms = never_met(model, linear.x)
    assert loss.item() == pytest.approx(-terms.log_likelihood.mean().item())


def test_the_later_controller_is_no_better():
    rows = recorded("controller")["rows"]
    ours, later = rows["algorithm 1"], rows["later"]
    assert [run["winding"] for run in ours] == [run["winding"] for run in later]  # the same seed folds
    assert all(abs(one["error"] - two["error"]) < 0.05 for one, two in zip(ours, later, strict=True))
