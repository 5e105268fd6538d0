"""Encoders and decoders of the papers, each a module whose call returns a distribution."""

from vaepriors.networks.appended import Appended
from vaepriors.networks.conv import (
    ConvFeatures,
    conv_decoder,
    conv_encoder,
    conv_hierarchical_decoder,
    conv_hierarchical_encoder,
    strided_decoder,
    strided_encoder,
)
from vaepriors.networks.dense import Decoder, Encoder, scalar
from vaepriors.networks.levels import ChainEncoder, Joined, conditional, hierarchical_decoder, hierarchical_encoder
from vaepriors.networks.pixelcnn import PixelCNN, pixel_hierarchical_decoder

__all__ = [
    "Appended",
    "ChainEncoder",
    "ConvFeatures",
    "Decoder",
    "Encoder",
    "Joined",
    "PixelCNN",
    "conditional",
    "conv_decoder",
    "conv_encoder",
    "conv_hierarchical_decoder",
    "conv_hierarchical_encoder",
    "hierarchical_decoder",
    "hierarchical_encoder",
    "pixel_hierarchical_decoder",
    "scalar",
    "strided_decoder",
    "strided_encoder",
]
