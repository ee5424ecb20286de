"""Test pools for discoveries: well separated classes, with images if the discovery needs them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields, replace
from typing import Any

import numpy as np
from PIL import Image

from fewlabels.contracts import Discovered, Pool
from fewlabels.errors import FewLabelsError
from fewlabels.testing.subject import Subject

BUDGET = 12


def make_pool(
    subject: Subject,
    *,
    count: int = 60,
    classes: int = 4,
    width: int = 8,
    given: int = 3,
    seed: int = 0,
    ties: bool = False,
) -> Pool:
    """A pool of well separated classes, with everything that the component's ``needs()`` lists.

    Args:
        count, classes, width: samples, classes, and numbers per feature vector.
        given: labelled samples per class; 0 if the component numbers its labels by itself.
        ties: repeat samples, each three times.
    """
    made = [each.make_component() for each in (subject, subject.after) if each is not None]
    needs, rng = [each.needs() for each in made], np.random.default_rng(seed)
    truth = np.arange(count) % classes
    source = np.arange(count) % (count // 3 // classes * classes) if ties else np.arange(count)
    places = 3 * np.random.default_rng(0).normal(size=(classes, width))
    sets = [
        (places[truth] + rng.normal(size=(count, width)))[source].astype(np.float32)
        for _ in range(1 + max(need.history for need in needs))
    ]
    own = any(each.classes is not None for each in made)
    known = (np.arange(count) < given * classes) & (not own)
    images: Any = Photos(source, classes) if any(need.images for need in needs) else None
    logits = 2 * np.eye(classes)[truth] + rng.normal(size=(count, classes))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    asked = any(need.probabilities for need in needs)
    pool = Pool(
        1000 + 3 * np.arange(count),  # numbers in the data set are no positions in the pool
        sets[0],
        np.where(known, truth, -1),
        known,
        classes=classes,
        probabilities=probabilities[source] if asked else None,
        images=images,
        history=tuple(sets[1:]),
    )
    with suppress(FewLabelsError):  # where the one before refuses the pool it has found nothing
        for before in made[1:]:
            found = ask_discovery(before, pool)
            labels = np.where(known, truth, -1)
            labels[found.indices] = found.labels
            pool = replace(pool, labels=labels, found=found)
    return pool


class Photos:
    """Lazily drawn images of blots; those of a class are shifted copies, numbered by ``source``."""

    def __init__(self, source: np.ndarray, classes: int) -> None:
        self.source, self.classes = source, classes

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> Image.Image:
        number, kind = divmod(int(self.source[i]), self.classes)
        blots = np.random.default_rng(kind).integers(0, 256, (24, 24, 3), np.uint8)
        whole = Image.fromarray(blots).resize((120, 120), Image.Resampling.BICUBIC)
        left, top = number * 7 % 24, number * 5 % 24
        return whole.crop((left, top, left + 96, top + 96))


def reorder_pool(pool: Pool, order: np.ndarray) -> Pool:
    given, photos, found = pool.probabilities, pool.images, pool.found
    if found is not None:
        places = np.argsort(order)
        pairs = found.pairs
        if pairs is not None:
            pairs = replace(pairs, left=places[pairs.left], right=places[pairs.right])
        found = replace(found, indices=places[found.indices], pairs=pairs)
    turned: Any = None
    if isinstance(photos, Photos):
        turned = Photos(photos.source[order], photos.classes)
    return replace(
        pool,
        rows=pool.rows[order],
        features=pool.features[order],
        labels=pool.labels[order],
        given=pool.given[order],
        probabilities=None if given is None else given[order],
        images=turned,
        history=tuple(past[order] for past in pool.history),
        found=found,
    )


def arrays_of(pool: Pool) -> list[tuple[str, np.ndarray]]:
    every = [(f.name, getattr(pool, f.name)) for f in fields(pool)]
    if pool.found is not None:
        every += [(f"found.{name}", value) for name, value in vars(pool.found).items()]
    arrays = [(name, value) for name, value in every if isinstance(value, np.ndarray)]
    return arrays + [("history", past) for past in pool.history]


def ask_discovery(component: Any, pool: Pool, budget: int = BUDGET, seed: int = 0) -> Discovered:
    found = component.discover(pool, budget, np.random.default_rng(seed))
    assert isinstance(found, Discovered), f"it gave {type(found).__name__}, not Discovered"
    return found
