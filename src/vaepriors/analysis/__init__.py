"""What a latent space does: each module has its own theory.

* `units`: which units are used, and their divergence from the prior.
* `surgery`: the parts of the ELBO.
* `information`: what the codes tell about the class.
* `implied`: the posterior that importance weighting implies.
* `codes`: one z for each example.
* `paths`: interpolation along the latent manifold.
* `angle`: whether a latent plane has learned an angle.
* `diagnosis`: what a user should know, in sentences.
"""

from vaepriors.analysis.angle import AngleRegression, angle_regression
from vaepriors.analysis.codes import codes
from vaepriors.analysis.diagnosis import diagnose
from vaepriors.analysis.implied import ImpliedPosterior
from vaepriors.analysis.information import Information, Labelled, class_information
from vaepriors.analysis.paths import Graph, NoPath, resample, smoothness, straight
from vaepriors.analysis.surgery import Surgery, elbo_surgery
from vaepriors.analysis.units import active_units, activity, divergence_of_units, levels, responsibilities

__all__ = [
    "AngleRegression",
    "Graph",
    "ImpliedPosterior",
    "Information",
    "Labelled",
    "NoPath",
    "Surgery",
    "active_units",
    "activity",
    "angle_regression",
    "class_information",
    "codes",
    "diagnose",
    "divergence_of_units",
    "elbo_surgery",
    "levels",
    "resample",
    "responsibilities",
    "smoothness",
    "straight",
]
