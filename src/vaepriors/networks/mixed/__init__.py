r"""Tables whose columns have different kinds, and rows with missing cells.

| kind | distribution of a column, given z |
|---|---|
| `real` | normal, with one learned standard deviation for each column |
| `positive` | log-normal, with one learned standard deviation of the logarithm for each column |
| `count` | negative binomial, with one learned dispersion for each column |
| `bit` | Bernoulli |
| `category` | the codes 0, 1, ..., as many as the column has categories |
| `size` | none: the size factor of the row, which the density is given |

Columns are independent given z. A missing cell is NaN. It is left out of the density, which is that of the observed
cells: $p(x_o|z) = \int p(x_o, x_m|z)\, dx_m$.

A size factor s multiplies the means of all counts of its row by s / g, where g is the geometric mean of s in the
training rows. Draws and means have s = g, unless they are `given` the factors of some rows.
"""

from vaepriors.networks.mixed.columns import KINDS, Column, places
from vaepriors.networks.mixed.distribution import Given, Mixed
from vaepriors.networks.mixed.head import MixedHead
from vaepriors.networks.mixed.scaling import ColumnScaling, column_moments
from vaepriors.networks.mixed.view import MixedView

__all__ = ["KINDS", "Column", "ColumnScaling", "Given", "Mixed", "MixedHead", "MixedView", "column_moments", "places"]
