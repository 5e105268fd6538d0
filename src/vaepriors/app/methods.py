"""The likelihood estimates by name, for `evaluate`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from vaepriors.annealing import Annealing
from vaepriors.app.choices import Count, CountFromZero, Table, fields_of
from vaepriors.likelihood import ImportanceSampling, Method, Posterior
from vaepriors.refinement import Refinement

__all__ = ["METHODS", "Estimation", "method_of"]

METHODS = Table("method")


@METHODS.entry("is")
def importance_sampling(*, samples: Count = 5000) -> Method:
    """Importance sampling from q(z|x) (Burda, Grosse & Salakhutdinov 2016)

    Args:
        samples: Draws of z for each example.
    """
    return ImportanceSampling(samples)


@METHODS.entry("refined")
def refined(*, samples: Count = 5000, refine_steps: Count = 200) -> Method:
    """Importance sampling from a posterior that is fitted to each example, starting at q(z|x)

    Args:
        refine_steps: Steps in which the posterior of each example is fitted.
    """
    return ImportanceSampling(samples, Refinement(refine_steps))


@METHODS.entry("ais")
def ais(
    *, chains: Count = 16, temperatures: Count = 300, refine_steps: CountFromZero = 0, simulated: CountFromZero = 100
) -> Method:
    """Annealed importance sampling from q(z|x) to p(z|x) (Wu, Burda, Salakhutdinov & Grosse 2017)

    Args:
        chains: Chains of draws for each example.
        temperatures: Steps from q(z|x), or from the fitted posterior, to p(z|x).
        simulated: Examples that the model draws, on which bounds from both sides show how far the estimates can be
            from log p(x); 0 for none. With conditions, it draws them given those of the evaluated examples.
    """
    posterior: Posterior | None = Refinement(refine_steps) if refine_steps else None
    return Annealing(chains, temperatures, posterior=posterior)


if TYPE_CHECKING:

    class MethodOptions:
        def __getattr__(self, name: str) -> Any: ...
else:
    MethodOptions = fields_of(METHODS)


@dataclass(frozen=True)
class Estimation(MethodOptions):
    """How log p(x) is estimated."""

    method: Annotated[str, METHODS.argument()] = "is"


def method_of(method: str, **options: int | None) -> tuple[Method, dict[str, Any]]:
    """A method by its name in `METHODS`, with the values of its options; None where these are not given."""
    unknown = options.keys() - METHODS.options()
    if unknown:
        raise ValueError(f"unknown option {min(unknown)}: the methods have {', '.join(METHODS.options())}")
    choice = METHODS.choose(method)
    values = METHODS.resolve(choice, {option: options.get(option) for option in METHODS.options()})
    return choice.build(**values), values
