"""Sheets of images: every pixel where it belongs."""

import io
from functools import partial

import matplotlib.image
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from vaepriors import networks
from vaepriors.analysis import Graph
from vaepriors.app.interpolation import Interpolation
from vaepriors.app.report.curves import curves, write_curves
from vaepriors.app.report.paths import write_interpolations
from vaepriors.app.report.pictures import figure_png, grid, save_png, tones, write_pictures
from vaepriors.data import Dataset
from vaepriors.networks.heads import GaussianHead, PoissonHead
from vaepriors.priors import StandardNormal, VampPrior
from vaepriors.vae import VAE


@pytest.mark.parametrize(("columns", "border"), [(None, 1), (2, 0), (5, 3), (9, 1)])
def test_image_i_is_at_row_i_over_columns(columns, border):
    images = torch.arange(7 * 3 * 2 * 4).reshape(7, 3, 2, 4) / 255
    sheet = grid(images, columns, border)
    columns = columns or 3
    rows = -(-7 // columns)
    assert sheet.shape == (rows * (2 + border) + border, columns * (4 + border) + border, 3)
    painted = np.zeros(sheet.shape[:2], bool)
    for i, image in enumerate(images):
        top, left = border + i // columns * (2 + border), border + i % columns * (4 + border)
        place = np.s_[top : top + 2, left : left + 4]
        assert (sheet[place] == (image.permute(1, 2, 0) * 255).numpy().round()).all()
        painted[place] = True
    assert (sheet[~painted] == 128).all()


def test_gray_images_have_three_equal_channels_and_values_are_clamped():
    sheet = grid(torch.tensor([-1.0, 0.0, 0.5, 2.0]).reshape(1, 1, 2, 2), border=0)
    assert (sheet == np.array([[0, 0], [128, 255]])[..., None]).all()


@pytest.mark.parametrize("shape", [(4, 9), (1, 3, 3), (4, 2, 3, 3), (2, 4, 1, 3, 3)])
def test_points_that_are_not_images_are_refused(shape):
    with pytest.raises(ValueError, match="is not that of images"):
        grid(torch.zeros(shape))


def test_a_small_sheet_is_enlarged_by_a_whole_factor(tmp_path):
    sheet = np.random.default_rng(0).integers(0, 256, (3, 40, 3), dtype=np.uint8)
    save_png(tmp_path / "a.png", sheet, least_width=100)
    pixels = (matplotlib.image.imread(tmp_path / "a.png")[..., :3] * 255).round().astype(np.uint8)
    assert pixels.shape[1] >= 100
    factor = pixels.shape[1] // 40
    assert (pixels == sheet.repeat(factor, 0).repeat(factor, 1)).all()


def test_a_figure_is_drawn_once_with_the_pixels_of_matplotlibs_own_file(monkeypatch):
    metrics = [{"epoch": e, "loss": 9.0 - e, "valid_loss": 9.5, "rate": 1.0, "distortion": 8.0 - e} for e in (1, 2)]
    draws, draw = [], Figure.draw
    monkeypatch.setattr(Figure, "draw", lambda *arguments: draws.append(arguments) or draw(*arguments))
    ours = figure_png(curves(metrics), 110)
    assert len(draws) == 1
    curves(metrics).savefig(expected := io.BytesIO(), format="png", dpi=110)
    assert np.array_equal(*(matplotlib.image.imread(io.BytesIO(png)) for png in (ours, expected.getvalue())))


def dataset(test):
    x = torch.rand(test, 1, 2, 2, generator=torch.Generator().manual_seed(0)).round()
    return Dataset("bits", x, x, x, "bernoulli")


def model(vamp=False):
    torch.manual_seed(0)
    encoder, decoder = networks.Encoder((1, 2, 2), [8], 2), networks.Decoder((1, 2, 2), [8], 2)
    prior = VampPrior(encoder, torch.rand(4, 1, 2, 2)) if vamp else StandardNormal(2)
    return VAE(encoder, decoder, prior)


@pytest.mark.parametrize(("test", "number"), [(40, 30), (40, 15), (3, 64), (1, 1)])
def test_a_reconstruction_is_below_its_example(tmp_path, test, number):
    """A model that turns black into white shows where the reconstructions are."""

    class Mirror(VAE):
        def reconstruct(self, x):
            return torch.distributions.Bernoulli(probs=1 - x)

    plain = model()
    mirror = Mirror(plain.encoder, plain.decoder, plain.prior)
    data = dataset(test)
    write_pictures(tmp_path, mirror, data, number)
    enlarged = (matplotlib.image.imread(tmp_path / "reconstructions.png")[..., 0] * 255).round().astype(np.uint8)
    factor = enlarged.shape[1] // (3 * min(number, test, 10) + 1)
    sheet = enlarged[::factor, ::factor]
    cells = sheet[1:, 1:].reshape(sheet.shape[0] // 3, 3, -1, 3).swapaxes(1, 2)[:, :, :2, :2]  # row, column, 2, 2
    above, below = cells[0::2].reshape(-1, 2, 2), cells[1::2].reshape(-1, 2, 2)
    above, below = (part[part[:, 0, 0] != 128] for part in (above, below))  # not the empty cells
    assert min(number, test, 10) <= len(above) <= min(number, test)
    assert (above == (data.few_test(len(above)).x[:, 0] * 255).numpy()).all()
    assert (below == 255 - above).all()


def test_real_images_are_black_at_their_least_value_and_white_at_their_largest(tmp_path):
    """Standardised images are not all black below zero, nor counts all white above one."""
    x = torch.tensor([-3.0, -1.0, 1.0, 5.0]).reshape(1, 1, 2, 2)
    data = Dataset("real", x, x, x, "gaussian")
    assert grid(tones(x, data), border=0)[..., 0].tolist() == [[0, 64], [128, 255]]
    constant = Dataset("counts", torch.full_like(x, 4), torch.full_like(x, 4), torch.full_like(x, 4), "poisson")
    assert tones(constant.test, constant).eq(0).all()
    assert tones(data.test, dataset(3)).equal(data.test)  # of a set with values in [0, 1]
    write_pictures(tmp_path, model(), data, 1)
    sheet = matplotlib.image.imread(tmp_path / "reconstructions.png")[..., 0]
    assert sorted(set((sheet[: len(sheet) // 2] * 255).round().astype(int).ravel())) == [0, 64, 128, 255]


@pytest.mark.parametrize("kind", ["images", "figures", "curves"])
def test_interpolations_are_drawn_as_what_they_are(tmp_path, kind):
    torch.manual_seed(0)
    nodes = torch.randn(30, 2)
    shape = (1, 2, 2) if kind == "images" else (6,)
    x = torch.rand(5, *shape)
    figures = lambda x: torch.rand(len(x), 4, 2, 3)  # noqa: E731
    data = Dataset("some", x, x, x, "gaussian", segments=figures if kind == "figures" else None)
    each = Interpolation(Graph(nodes, 5), nodes[:3], torch.rand(3, *shape), torch.rand(50, *shape), x[:2])
    files = write_interpolations(tmp_path, [each, each], data)
    assert [file.name for file in files] == ["interpolation.png", "graph.png"]
    assert all(matplotlib.image.imread(file).std() > 0.01 for file in files)
    space = each._replace(path=torch.rand(3, 5))
    assert [file.name for file in write_interpolations(tmp_path, [space], data)] == ["interpolation.png"]


def test_files_of_a_vamp_prior_and_of_vectors(tmp_path):
    files = write_pictures(tmp_path, model(vamp=True), dataset(4), number=3)
    assert [file.name for file in files] == ["samples.npy", "samples.png", "reconstructions.png", "pseudo_inputs.png"]
    assert all(file.is_file() for file in files)
    samples = np.load(files[0])
    assert samples.shape == (3, 1, 2, 2)
    assert ((samples > 0) & (samples < 1)).all()  # means, not bits


def test_rows_of_whole_numbers_are_drawn_and_not_averaged(tmp_path):
    counts = torch.arange(12.0).view(4, 3)
    parts = networks.Encoder((3,), [8], 2), networks.Decoder((3,), [8], 2, head=PoissonHead), StandardNormal(2)
    files = write_pictures(tmp_path, VAE(*parts), Dataset("counts", counts, counts, counts, "poisson"), number=50)
    samples = np.load(files[0])
    assert (samples == samples.round()).all()
    assert samples.max() > 0


def test_vectors_of_real_numbers_are_drawn_and_not_averaged(tmp_path):
    torch.manual_seed(0)
    x = torch.randn(4, 3)
    decoder = networks.Decoder((3,), [8], 2, head=partial(GaussianHead, scale=100.0))
    parts = networks.Encoder((3,), [8], 2), decoder, StandardNormal(2)
    files = write_pictures(tmp_path, VAE(*parts), Dataset("real", x, x, x, "gaussian"), number=300)
    assert 80 < np.load(files[0]).std() < 120  # the means are near 0


def test_curves_are_the_metrics_of_every_epoch(tmp_path):
    line = lambda epoch: {"epoch": epoch, "loss": 9.0 - epoch, "valid_loss": 8.0 - epoch, "rate": 1.0}  # noqa: E731
    plain = [line(epoch) for epoch in (1, 2, 3)]
    panels = curves(plain).axes
    assert [axis.get_title() for axis in panels] == ["loss, nats", "rate, nats"]
    drawn = [(list(each.get_xdata()), list(each.get_ydata())) for each in panels[0].lines]
    assert drawn == [([1, 2, 3], [8.0, 7.0, 6.0]), ([1, 2, 3], [7.0, 6.0, 5.0])]
    bound = [each | {"beta": 0.1, "error": 0.5, "error_average": 0.4, "error_bound": 0.3} for each in plain]
    *_, beta, error = curves(bound).axes
    assert (beta.get_yscale(), error.get_yscale(), panels[0].get_yscale()) == ("log", "log", "linear")
    assert [text.get_text() for text in error.get_legend().get_texts()] == ["error", "error average", "error bound"]
    assert curves([each | {"beta": 0.0} for each in plain]).axes[-1].get_yscale() == "linear"
    assert write_curves(tmp_path, bound) == [tmp_path / "curves.png"]
    assert matplotlib.image.imread(tmp_path / "curves.png").std() > 0
    assert write_curves(tmp_path / "nowhere", []) == []
    with pytest.raises(ValueError, match="no epoch to draw"):
        curves([])
