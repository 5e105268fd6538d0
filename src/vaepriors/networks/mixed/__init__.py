"""Tables whose columns have different kinds, and rows with missing cells."""

from vaepriors.networks.mixed.distribution import (
    KINDS,
    Column,
    ColumnScaling,
    Given,
    Mixed,
    MixedHead,
    MixedView,
    column_moments,
    places,
)

__all__ = ["KINDS", "Column", "ColumnScaling", "Given", "Mixed", "MixedHead", "MixedView", "column_moments", "places"]
