"""Choices by name: what is derived from their tables, and what an experiment checks."""

import pytest

from vaepriors.app.choices import Setting, Table
from vaepriors.app.experiment import OBJECTIVES, PRIORS, CommandLine, Experiment, build
from vaepriors.data import load


def test_an_option_belongs_to_the_entries_that_have_it():
    """Each option of a table is refused by every entry without it, by a sentence with the option and both names."""
    for name in PRIORS.options():
        values = {
            "pseudo_inputs": "data",
            "pseudo_conditions": "learned",
            "weighted": True,
            "prior_hidden": (5,),
            "base": "mog",
            "flow": "nsf",
        }
        value = values.get(name, 3)
        for prior, choice in PRIORS.items():
            if name in choice.options:
                assert getattr(Experiment(prior=prior, **{name: value}), name) == value
            else:
                with pytest.raises(
                    ValueError, match=f"{name} is .* {prior} has no such option.*{PRIORS.having(name)[0]}"
                ):
                    Experiment(prior=prior, **{name: value})


def test_a_model_is_given_what_its_data_have():
    with pytest.raises(ValueError, match="nothing as conditions"):
        build(Experiment(condition="labels"), load("digits"))
    with pytest.raises(ValueError, match="10 classes as conditions"):
        build(Experiment(), load("digits", condition="labels"))


def test_an_entry_gets_its_own_defaults_and_others_get_none():
    assert [Experiment(prior=prior).components for prior in ("mog", "standard", "vhp")] == [500, None, None]
    assert Experiment(prior="mog") == Experiment(prior="mog", components=500)
    assert Experiment(prior="mog").given() == {"prior": "mog"}
    assert Experiment(model="conv").hidden == ()


def test_a_new_entry_brings_its_options_help_and_checks_and_no_others():
    table = Table("prior")

    @table.entry("shifted")
    def shifted(setting: Setting, *, shift: float = 0.5) -> None:
        """A shifted normal

        Args:
            shift: By how much,
                in units of z.
        """

    choice = table.choose("shifted")
    assert (choice.about, list(choice.options)) == ("A shifted normal", ["shift"])
    assert choice.options["shift"].help == "By how much, in units of z."
    assert table.resolve(choice, {"shift": None}) == {"shift": 0.5}
    assert "| `shifted` | A shifted normal | `--shift` (0.5) |" in table.markdown()
    with pytest.raises(ValueError, match=r"'shiftd'.*did you mean shifted"):
        table.choose("shiftd")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_has_a_loss_and_gradients(name):
    options = {"kappa": 0.3} if "kappa" in OBJECTIVES[name].options else {}
    digits = load("digits")
    options |= {"hidden": (5,), "latent": 2, "prior": "mog", "components": 3}
    model, objective = build(Experiment(objective=name, samples=2, **options), digits)
    loss, terms = objective(model, digits.test[:10])
    loss.backward()
    assert loss.isfinite()
    assert terms.log_weight.shape == (2, 10)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in objective.trained(model))


def test_an_objective_with_a_bound_needs_it():
    with pytest.raises(ValueError, match="rewo needs kappa"):
        Experiment(objective="rewo")
    with pytest.raises(ValueError, match="kappa is nan"):
        Experiment(objective="rewo", kappa=float("nan"))


def test_a_hierarchy_refuses_sizes_that_its_decoder_would_not_have():
    for model in ("hvae", "convhvae", "pixelhvae"):
        with pytest.raises(ValueError, match="hidden is 300 200 100"):
            Experiment(model=model, hidden=(300, 200, 100))


def test_older_records_are_read_unchanged():
    """They have the defaults of options that the choice does not have; other values of these are refused."""
    old = {"prior": "standard", "components": None, "weighted": False, "pseudo_inputs": "auto", "estimator": "plain"}
    assert Experiment.read(old | {"hidden": None}) == Experiment()
    with pytest.raises(ValueError, match="pseudo_inputs is noise"):
        Experiment.read(old | {"pseudo_inputs": "noise"})


def test_the_groups_of_the_command_line_are_the_experiment():
    experiment = Experiment(prior="vamp", components=7, weighted=True, objective="iwae", estimator="stl", seed=3)
    assert CommandLine.of(experiment).experiment() == experiment
    assert CommandLine.of(Experiment()) == CommandLine()


@pytest.mark.parametrize("value", [0, -1, 10**10])
def test_limits_of_a_size_are_in_its_type(value):
    with pytest.raises(ValueError, match=f"latent is {value}"):
        Experiment(latent=value)


def test_a_replaced_choice_brings_its_own_defaults_and_keeps_what_was_given():
    assert Experiment(prior="vamp", model="mlp").replace(prior="standard", model="hvae") == Experiment(model="hvae")
    assert Experiment(prior="vamp", components=7).replace(prior="mog", seed=1).components == 7
    with pytest.raises(ValueError, match="components is 7"):
        Experiment(prior="vamp", components=7).replace(prior="standard")


def test_numbers_that_a_training_would_round_to_zero_are_refused():
    with pytest.raises(ValueError, match="adam_eps is 1e-320: a positive number is needed"):
        Experiment(adam_eps=1e-320)
