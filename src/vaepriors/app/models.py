"""The models by name: encoder and decoder, and with two levels of latent variables also p(z1|z2)."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, NamedTuple

from torch import nn

from vaepriors import networks
from vaepriors.app.choices import Length, Positive, Setting, Size, Sizes, Table
from vaepriors.app.likelihoods import head_of
from vaepriors.networks.heads import Network, SoftplusNormalHead
from vaepriors.networks.layers import gated_layers, relu_layers, tanh_layers

__all__ = ["MODELS", "TWO_LEVELS", "Networks"]

MODELS = Table("model")
Build = Callable[..., Any]
AnySizes = Annotated[tuple[int, ...], Length(0)]
OneOrTwo = Annotated[tuple[int, ...], Length(1, 2)]
FOUR = (256, 256, 256, 256)


class Networks(NamedTuple):
    """What an entry builds; with conditions, each module also takes y."""

    encoder: nn.Module
    decoder: nn.Module
    bottom: nn.Module | None  # p(z1|z2) of two levels
    top: nn.Module  # the encoder that a VampPrior shares: of two levels, that of z2


def view_of(setting: Setting) -> nn.Module | None:
    """The module through which the networks see x; None if they see x itself."""
    view = setting.dataset.family.view
    return None if view is None else view(setting.dataset.train)


def size_of_condition(setting: Setting) -> int:
    """c, the size of y; 0 without conditions."""
    return setting.dataset.conditions["train"].shape[-1] if setting.dataset.conditions else 0


def seeing(setting: Setting, encoder: Build, *sizes: Any, images: bool, behind: Build = Network) -> Any:
    """An encoder of what it sees of x, and of y. VampPriors share it, so their pseudo-inputs pass the view, too.

    Args:
        images: Whether it takes images; otherwise y is appended to a flat x.
        behind: (view, encoder) -> the encoder of what a module makes of x.
    """
    view, shape, c = view_of(setting), setting.dataset.event_shape, size_of_condition(setting)
    if c and not images:
        flat = nn.Flatten(-len(shape))
        view = flat if view is None else nn.Sequential(view, flat)
    seen = shape if view is None else view(setting.dataset.train[0]).shape
    if c:
        return networks.Appended(encoder((seen[0] + c, *seen[1:]), *sizes), c, view=view, images=images)
    return encoder(seen, *sizes) if view is None else behind(view, encoder(seen, *sizes))


def also_given(setting: Setting, network: nn.Module) -> nn.Module:
    """A network of z with room for y."""
    c = size_of_condition(setting)
    return networks.Appended(network, c) if c else network


def one_level(
    setting: Setting, encoder: Build, decoder: Build, latent: int, hidden: tuple[int, ...], images: bool = False
) -> Networks:
    q = seeing(setting, encoder, hidden, latent, images=images)
    p = decoder(setting.dataset.event_shape, hidden, latent + size_of_condition(setting), head=head_of(setting))
    return Networks(q, also_given(setting, p), None, q)


def two_levels(
    setting: Setting, encoder: Build, decoder: Build, latent: int, hidden: tuple[int, ...], images: bool = False
) -> Networks:
    c = size_of_condition(setting)
    q = seeing(setting, encoder, hidden, latent, images=images, behind=lambda view, chain: chain.behind(view))
    p = decoder(setting.dataset.event_shape, hidden, latent, head=head_of(setting), condition=c)
    bottom = networks.conditional(latent + c, hidden, latent)
    return Networks(q, also_given(setting, p), also_given(setting, bottom), q.part("top") if c else q.top)


def dense(
    setting: Setting, layers: Build, latent: int, hidden: tuple[int, ...], posterior_scale: float | None
) -> Networks:
    encoder = partial(networks.Encoder, head=partial(SoftplusNormalHead, start=posterior_scale), layers=layers)
    return one_level(setting, encoder, partial(networks.Decoder, layers=layers), latent, hidden)


@MODELS.entry("vae", layers=gated_layers)
def vae(setting: Setting, *, latent: Size = 40, hidden: Sizes = (300, 300)) -> Networks:
    """One level, gated dense layers (Tomczak & Welling 2018)

    Args:
        latent: Size of each level of latent variables.
        hidden: Sizes of the dense hidden layers.
    """
    return one_level(setting, networks.Encoder, networks.Decoder, latent, hidden)


@MODELS.entry("hvae", levels=2)
def hvae(setting: Setting, *, latent: Size = 40, hidden: OneOrTwo = (300, 300)) -> Networks:
    """Two levels, gated dense layers (Tomczak & Welling 2018, section 4)"""
    return two_levels(setting, networks.hierarchical_encoder, networks.hierarchical_decoder, latent, hidden)


@MODELS.entry("convhvae", levels=2)
def convhvae(setting: Setting, *, latent: Size = 40, hidden: OneOrTwo = (300, 300)) -> Networks:
    """Two levels, gated convolutions (Tomczak & Welling 2018, supplement)"""
    encoder, decoder = networks.conv_hierarchical_encoder, networks.conv_hierarchical_decoder
    return two_levels(setting, encoder, decoder, latent, hidden, images=True)


@MODELS.entry("pixelhvae", levels=2, mean=False)
def pixelhvae(setting: Setting, *, latent: Size = 40, hidden: OneOrTwo = (300, 300)) -> Networks:
    """Two levels, gated convolutions and a PixelCNN as decoder (Tomczak & Welling 2018, supplement)"""
    likelihood = setting.dataset.likelihood
    if not setting.dataset.family.independent:
        raise ValueError(
            f"a PixelCNN draws one pixel after another, but those of the likelihood {likelihood} share a total: choose "
            "the model convhvae"
        )
    decoder = partial(networks.pixel_hierarchical_decoder, view=view_of(setting))
    decode = lambda shape, hidden, latent, **options: decoder(shape, latent, **options)  # noqa: E731
    return two_levels(setting, networks.conv_hierarchical_encoder, decode, latent, hidden, images=True)


@MODELS.entry("mlp", layers=relu_layers, prior_hidden=FOUR)
def mlp(
    setting: Setting, *, latent: Size = 40, hidden: Sizes = FOUR, posterior_scale: Positive | None = None
) -> Networks:
    """One level, dense layers with ReLU (Klushyn et al. 2019, Table 3: pendulum, motion)

    Args:
        posterior_scale: Scale of q(z|x) before training; about 0.7 unless given.
    """
    return dense(setting, relu_layers, latent, hidden, posterior_scale)


@MODELS.entry("tanh", layers=tanh_layers, prior_hidden=(100, 100))
def tanh(
    setting: Setting, *, latent: Size = 40, hidden: Sizes = (200, 200), posterior_scale: Positive | None = None
) -> Networks:
    """One level, dense layers with tanh (Burda, Grosse & Salakhutdinov 2016)"""
    return dense(setting, tanh_layers, latent, hidden, posterior_scale)


@MODELS.entry("conv")
def conv(setting: Setting, *, latent: Size = 40, hidden: AnySizes = ()) -> Networks:
    """One level, gated convolutions (Klushyn et al. 2019, Table 3: MNIST, OMNIGLOT)"""
    return one_level(setting, networks.conv_encoder, networks.conv_decoder, latent, hidden, images=True)


@MODELS.entry("strided", layers=relu_layers)
def strided(setting: Setting, *, latent: Size = 40, hidden: AnySizes = (256,)) -> Networks:
    """One level, convolutions with ReLU and strides (Klushyn et al. 2019, Table 3: faces, chairs)"""
    return one_level(setting, networks.strided_encoder, networks.strided_decoder, latent, hidden, images=True)


TWO_LEVELS = tuple(name for name, choice in MODELS.items() if choice.facts.get("levels", 1) == 2)
