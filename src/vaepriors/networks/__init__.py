"""Encoders and decoders of the papers, each a module whose call returns a distribution."""

from vaepriors.networks.dense import Decoder, Encoder
from vaepriors.networks.levels import ChainEncoder, Joined, conditional, hierarchical_decoder, hierarchical_encoder

__all__ = [
    "ChainEncoder",
    "Decoder",
    "Encoder",
    "Joined",
    "conditional",
    "hierarchical_decoder",
    "hierarchical_encoder",
]
