"""The section of a report about what a model is given, and what its codes still tell about it."""

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor

from vaepriors.analysis import Information, Labelled, class_information, levels
from vaepriors.app.report.page import Part, sheet
from vaepriors.app.report.pictures import CLASSES, OF_EACH, by_condition, grid, tones
from vaepriors.app.report.subject import Subject
from vaepriors.conditional import AnyVAE, batches
from vaepriors.data import Dataset

__all__ = ["conditions", "measure_information"]

MOST = {1: (20_000, 2000), 2: (4000, 200)}  # by levels, training and test examples of the classifier at most


def conditions(subject: Subject) -> Iterator[Part]:
    """Sentences, and for images a picture of draws given each condition; nothing without conditions."""
    model, data = subject.model, subject.data
    if subject.y is None:
        return
    classes = data.classes
    yield f"The model is given the conditions of each point: {data.given_in_words()}."
    information = measure_information(model, data, subject.x, subject.y) if classes else None
    if information is None:
        yield "What the codes tell about the conditions is measured only for classes, by four test examples or more."
    else:
        yield in_words(information)
    if not data.has_images:
        return
    images, names = by_condition(model, data)
    of = f" of the first {CLASSES} classes" if len(classes) > CLASSES else ""
    alt = f"{OF_EACH} draws given each condition{of}, a row each: {'; '.join(names)}."
    yield sheet("conditions", grid(tones(images, data), OF_EACH), alt, alt)


def in_words(information: Information) -> str:
    """What the codes tell about the class, in a sentence."""
    return (
        f"Mutual information of codes and classes, I(z; y): at least {information.value:.2f} ± {information.se:.2f} "
        f"nats of at most {information.entropy:.2f}, by a classifier made of the posteriors of training examples. The "
        "closer to 0, the less z repeats of the class, and the better draws of one p(z) suit every class."
    )


@torch.no_grad()
def measure_information(model: AnyVAE, data: Dataset, x: Tensor, y: Tensor) -> Information | None:
    """What the codes of test examples tell about their classes; None of fewer than four.

    Examples of a class that none of the chosen training examples has are left out: nothing could recognise them.
    """
    train, of_train, groups = (cast(Tensor, each).to(x.device) for each in data.fixed_train()[:3])
    at, one = next(batches(model, x, y, 1))
    most, draws = MOST[len(levels(at.encoder(one)))]
    rows = torch.randperm(len(train))[:most].to(x.device)
    labels = y[:, : len(data.classes)].argmax(-1)
    known = torch.isin(labels, groups[rows]).nonzero().flatten()[:draws]
    if len(known) < 4:
        return None
    return class_information(
        model,
        Labelled(train[rows].to(x), groups[rows], of_train[rows].to(x)),
        Labelled(x[known], labels[known], y[known]),
    )
