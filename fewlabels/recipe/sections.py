"""The keys that every recipe has, with their types, defaults and bounds."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from fewlabels.contracts.outputs import LARGEST_EMBEDDING, LARGEST_IMAGE, SMALLEST_CROP
from fewlabels.contracts.ramp import Ramp
from fewlabels.contracts.ranges import parse_number_ranges
from fewlabels.recipe.component_schema import Section

Positive = Annotated[int, Field(ge=1)]
LARGEST_RATE = 1e30
"""Far above any use; torch's float32 ends at 3e38."""
Rate = Annotated[float, Field(ge=0, le=LARGEST_RATE)]
Three = Field(min_length=3, max_length=3)


class Subset(Section):
    """Some of a data set's images: by class numbers ("0-40,77") and by the values of columns."""

    classes: str | None = Field(
        None,
        pattern=r"^\d+(-\d+)?(,\d+(-\d+)?)*$",
        description="class numbers as text, such as '0-40,77'",
    )
    where: dict[str, Any] = {}

    def parse_classes(self) -> set[int] | None:
        """The class numbers, None for all."""
        if self.classes is None:
            return None
        return set(parse_number_ranges(self.classes))

    @field_validator("classes")
    @classmethod
    def _check_ranges(cls, classes: str | None) -> str | None:
        if classes is not None:
            parse_number_ranges(classes)
        return classes


class Data(Section):
    """Which images train and which are retrieved; the keys of ``source`` stand beside these."""

    split: Literal["official", "zero_shot", "all"] | None = Field(
        None, description="null: the source's own default; zero_shot refuses shared classes"
    )
    train: Subset | None = None
    test: Subset | None = None
    query: Subset | None = Field(None, description="of the test images; null: all against all")
    gallery: Subset | None = None
    labels: Positive | Literal["none", "all"] = Field(
        "none", description="what a person has given; a number is drawn by the seed"
    )
    share: Literal["balanced", "proportional", "per_class"] = Field(
        "balanced",
        description="of a number of labels, and of validation: the same of each class, as the "
        "classes are, or that many of every class",
    )
    split_seed: Annotated[int, Field(ge=0)] | None = Field(
        None, description="of which images are labelled; null: the recipe's seed"
    )
    validation: Annotated[int, Field(ge=0)] = Field(
        0, description="training images held out with their labels, never test images"
    )
    max_bad: Rate = Field(
        0.01,
        description="images that may be left out because they cannot be read, below 1 a share of "
        "all; above 0 all are read once before",
    )
    drop_duplicates: bool = Field(
        False, description="leave out training images that are copies of test images"
    )
    cached_views: Positive = Field(
        8, description="known views of each image, with a frozen backbone: steps draw from them"
    )
    memory: Rate = Field(4.0, description="GiB of decoded images kept; more are read lazily")
    workers: Annotated[int, Field(ge=0)] = Field(2, description="processes that read lazily")


class Model(Section):
    """The embedder."""

    backbone: str = "resnet50"
    backbone_options: dict[str, Any] = {}
    pretrained: bool = False
    weights: str | None = Field(
        None, description="a local file of the backbone: .safetensors, .pth, .ckpt"
    )
    embedding_size: Annotated[int, Field(ge=1, le=LARGEST_EMBEDDING)] | None = 512
    pooling: str | None = Field(None, description="timm's global_pool; null: the backbone's own")
    image_size: Annotated[int, Field(ge=1, le=LARGEST_IMAGE)] | None = None
    crop_pct: Annotated[float, Field(ge=SMALLEST_CROP, le=1)] | None = None
    interpolation: Literal["bicubic", "bilinear", "nearest"] | None = None
    mean: Annotated[list[Rate], Three] | None = Field(
        None, description="of images in [0, 1], which is taken away; null: as the backbone has it"
    )
    std: Annotated[list[Annotated[float, Field(gt=0)]], Three] | None = Field(
        None, description="by which images are divided then; null: as the backbone has it"
    )
    frozen: bool = Field(
        False,
        description="train only what stands above the backbone, on features of it that are kept",
    )
    head: Literal["linear", "cosine", "root", "mlp"] | None = Field(
        None,
        description="between pooled features and the last layer: nothing, a scaling to length 1, "
        "that of their square roots, or two hidden layers; null: as the backbone has it",
    )
    hidden: Annotated[int, Field(ge=1, le=LARGEST_EMBEDDING)] = Field(
        512, description="width of the hidden layers of head: mlp"
    )
    mirror: bool = Field(
        False,
        description="with a head: features are the mean of those of an image and of its mirror "
        "image, which takes twice the time; not in training steps, where views mirror images",
    )
    freeze_batchnorm: Literal["none", "statistics", "all"] = Field(
        "none",
        description="of batch norms, a block's too: running statistics, or weights and biases too",
    )


class Place(Section):
    """Where a block stands; its options stand beside."""

    after: str = Field(description="the path of a module of the backbone, whose output it gets")


class Optimizer(Section):
    """One of timm's optimisers."""

    name: str = "adamw"
    lr: Annotated[float, Field(gt=0, le=LARGEST_RATE)] = 1e-4
    weight_decay: Rate = 0.0
    decay: Literal["all", "kernels"] = Field("kernels", description="kernels: not biases and norms")
    factors: dict[str, Rate] = Field(
        {},
        description="learning-rate factor by the start of a parameter's path, as in student.head; "
        "0 freezes",
    )
    no_decay: list[str] = Field(
        [], description="starts of the paths of parameters that bear no weight decay"
    )
    frozen_epochs: dict[str, Positive] = Field(
        {},
        description="epochs in the beginning, and again after each restart of the weights, for "
        "which parameters stay as they are, by the start of their path; running statistics move "
        "unless model.freeze_batchnorm holds them",
    )
    options: dict[str, Any] = Field({}, description="passed on, as in {betas: [.9, .99]}")


class Schedule(Section):
    """One of timm's learning-rate schedules, moved at every step.

    ``constant`` with ``final_epochs`` falls at the end alone, as Mean Teacher's does: while labels
    arrive the rate is whole.
    """

    name: Literal["constant", "cosine", "step", "multistep", "poly"] = "constant"
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    min_lr: Rate = 0.0
    decay_epochs: Annotated[float, Field(gt=0)] | list[Positive] = Field(
        30, description="step: between two decays; multistep: the list of when"
    )
    decay_rate: Rate = 0.1
    final_epochs: Rate = Field(
        0, description="constant: epochs at the end in which the rate falls to min_lr"
    )


class Rounds(Section):
    """When discovery happens, how much it may label, and how long is trained in between."""

    generations: Positive = Field(
        1, description="each begins again with the given labels and discovers anew"
    )
    rounds: Positive = Field(
        1,
        description="of a generation; where labels are given, discover_every rounds on these alone "
        "come first",
    )
    epochs_per_round: Positive = 1
    first_epochs: Positive | None = Field(
        None, description="of a round on the given labels alone; null: as the others"
    )
    restart: Literal["never", "generation", "round"] = Field(
        "never", description="when weights, optimiser, ramps and schedule begin again"
    )
    stop: Annotated[float, Field(gt=0)] | None = Field(
        None, description="end when the validation error changes by less between two rounds"
    )
    oracle: bool = Field(
        False, description="give discovered samples their true labels: for analysis, never pushed"
    )
    steps_per_epoch: Positive | None = None
    discover_every: Positive = 1
    growth: Literal["double", "fixed", "even", "all"] = Field(
        "double",
        description="a discovery's budget: as many as are labelled now, as were given, an equal "
        "share of all in each discovery of a generation, or all; kmeans labels all in any case",
    )
    limit: Annotated[float, Field(ge=1)] | None = Field(
        None, description="labelled samples at most, as a multiple of the given ones"
    )

    def count_epochs_between_restarts(self, first: bool) -> int:
        """The fewest epochs between the beginning or a restart, and the end or the next restart.

        Args:
            first: whether rounds on the given labels alone come first.
        """
        given = self.first_epochs or self.epochs_per_round
        if self.restart == "round":
            return min(given, self.epochs_per_round) if first else self.epochs_per_round
        one = self.rounds * self.epochs_per_round
        before = self.discover_every * given if first else 0
        if self.restart == "generation":
            return one if self.generations > 1 else before + one
        return before + self.generations * one

    def count_epochs_after_discovery(self) -> int:
        """Epochs from the last discovery to the end."""
        last = (self.rounds - 1) // self.discover_every * self.discover_every
        return (self.rounds - last) * self.epochs_per_round


class Train(Section):
    """How steps are carried out."""

    precision: Literal["no", "bf16", "fp16"] = "no"
    accumulate: Positive = Field(1, description="batches per optimiser step")
    clip: Annotated[float, Field(gt=0)] | None = Field(None, description="largest gradient norm")
    channels_last: bool = True
    checkpoint_every: Annotated[int, Field(ge=0)] = Field(
        0, description="optimiser steps between checkpoints; 0: one a round"
    )
    keep_checkpoints: Positive = 2
    log_every: Positive = Field(10, description="optimiser steps between rows of metrics.jsonl")


class Evaluation(Section):
    """Retrieval on the test images."""

    ks: Annotated[list[Positive], Field(min_length=1)] = [1, 2, 4, 8]
    every: Annotated[int, Field(ge=0)] = Field(
        1, description="rounds between evaluations; 0: the end"
    )
    steps: Annotated[int, Field(ge=0)] = Field(
        0, description="optimiser steps between evaluations within a round; 0: none"
    )
    report: Literal["last", "median", "best"] = Field(
        "last",
        description="a classifier's number: its last, the median of its last 20, or that of "
        "the smallest validation error",
    )
    before: bool = Field(
        True,
        description="the frozen backbone too (of a classifier: LDA on it), and the untrained head",
    )
    pixels: bool = Field(False, description="raw pixels too")
    all_against_all: bool = Field(False, description="beside query against gallery")
    batch: Positive = 128


class Fixed(Section):
    """The keys of every recipe; those that name components are added for the recipe at hand."""

    name: str = Field(
        "",
        pattern=r"^([\w-][\w.-]{0,99})?$",
        description="letters, digits, dots, dashes and underscores, no dot first, at most 100",
    )
    seed: Annotated[int, Field(ge=0)] = 0
    imports: list[str] = Field(
        [], description="modules that register components; each is imported by --import alone"
    )
    model: Model = Model()
    weights: dict[str, Ramp | float] = Field(
        {}, description="of loss terms; a number is the height of the strategy's own ramp"
    )
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    rounds: Rounds = Rounds()
    train: Train = Train()
    evaluation: Evaluation = Evaluation()
