"""What a user should know about a trained model, in sentences.

A unit has collapsed if its activity is at most 0.01 (see `units`). A likelihood rests on few draws if its effective
sample size is below 10 (see `vaepriors.likelihood`). A better prior could help if the marginal KL exceeds a quarter of
the rate and 1 nat (see `surgery`).
"""

from torch import Tensor

from vaepriors.analysis.surgery import Surgery

__all__ = ["diagnose"]


FEW_EFFECTIVE_SAMPLES = 10


def diagnose(
    activity: dict[str, Tensor], surgery: Surgery | None = None, effective_samples: float | None = None
) -> list[str]:
    """What a user should know about a latent space and its likelihood; an empty list if there is nothing to say.

    Args:
        activity: Activity of the units of each level (see `units`).
        surgery: The parts of the ELBO.
        effective_samples: Mean effective sample size of the likelihood's estimate.
    """
    sentences = []
    for name, values in activity.items():
        dead = int((values <= 0.01).sum())
        if dead == len(values):
            sentences.append(f"Level {name} has collapsed: none of its {dead} units follows the data.")
        elif dead:
            which = ", ".join(str(j) for j in (values <= 0.01).nonzero().flatten().tolist()[:12])
            more = ", ..." if dead > 12 else ""
            sentences.append(
                f"{dead} of {len(values)} units of {name} have collapsed: their means do not follow the data "
                f"(units {which}{more})."
            )
    if surgery is not None:
        sentences += _diagnose_surgery(surgery)
    if effective_samples is not None and effective_samples < FEW_EFFECTIVE_SAMPLES:
        sentences.append(
            f"The estimate of log p(x) rests on few draws: {effective_samples:.1f} effective samples on average, fewer "
            f"than {FEW_EFFECTIVE_SAMPLES}. It is likely too low; more samples would raise it, and so would draws from "
            "posteriors fitted to each example, or fitted in more steps (`Refinement`; evaluate --method refined "
            "--refine-steps)."
        )
    return sentences


def _diagnose_surgery(surgery: Surgery) -> list[str]:
    if surgery.limited_by_n:
        least = surgery.rate - surgery.log_n
        bound = f" With these examples it is at least the rate less log N, {least:.2f} nats." if least > 0 else ""
        return [
            f"The mutual information, {surgery.mutual_information:.2f} nats, is near its limit of log N = "
            f"{surgery.log_n:.2f}: more examples would show more information, and a marginal KL that is smaller by as "
            f"much.{bound}"
        ]
    if surgery.marginal_kl > max(1.0, 0.25 * surgery.rate):
        return [
            f"The prior does not match the aggregated posterior: the marginal KL is {surgery.marginal_kl:.1f} nats, of "
            f"a rate of {surgery.rate:.1f}. On these examples, a better prior could gain at most that much."
        ]
    return []
