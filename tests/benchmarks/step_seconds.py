"""CPU seconds of a training step against a bare loop of the same forwards and backwards.

    OMP_NUM_THREADS=1 python tests/benchmarks/step_seconds.py [mean_teacher|mixmatch] [BLOCKS]

WRN-28-2, 64 labelled and 64 unlabelled images of 32 x 32 pixels, float32, one thread, one process:
blocks of six steps of the package's loop and of the bare one in turn, the first step of each left
out; the median of the paired ratios. The bare loop has its images ready, and neither optimiser nor
averages. About 10 minutes for both on one core. Results: docs/results/.
"""

import statistics
import sys
import tempfile
import time

import torch
from torch.nn.functional import cross_entropy

import fewlabels
from fewlabels.models.classifier import Classifier
from fewlabels.training.phase import PhaseTrainer

STEPS = 6
RECIPE = {
    "data": {"source": "digits", "split": "official", "labels": 640},
    "model": {"backbone": "wrn28_2", "image_size": 32},
    "views": [{"name": "pad_and_crop"}, {"name": "flip"}],
    "optimizer": {"name": "adamw", "lr": 2e-3, "weight_decay": 0.02},
    "rounds": {"steps_per_epoch": STEPS},
    "evaluation": {"every": 0},
}


def package(name: str) -> float:
    """Seconds a step of the package's loop."""
    stamps = []
    steps = PhaseTrainer.steps

    def timed(self, phase):
        for step in steps(self, phase):
            stamps.append(time.process_time())
            yield step

    PhaseTrainer.steps = timed
    recipe = RECIPE | {"strategy": {"name": name, "labelled": 64, "batch": 64}}
    with tempfile.TemporaryDirectory() as folder:
        fewlabels.train(recipe, out=folder)
    PhaseTrainer.steps = steps
    return (stamps[-1] - stamps[0]) / (STEPS - 1)


def mean_teacher(student, teacher, images, labels):
    """Student and teacher see all images once."""
    logits = student(torch.cat([images, images])).logits
    with torch.no_grad():
        target = teacher(torch.cat([images, images])).logits.softmax(1)
    loss = cross_entropy(logits[:64], labels) + (logits.softmax(1) - target).square().mean()
    loss.backward()


def mixmatch(student, teacher, images, labels):
    """The student guesses for two views and learns from three batches."""
    with torch.no_grad():
        guessed = (student(images).logits.softmax(1) + student(images).logits.softmax(1)) / 2
    known, *others = (student(images).logits for _ in range(3))
    rest = (torch.cat(others).softmax(1) - torch.cat([guessed, guessed])).square().mean()
    (cross_entropy(known, labels) + rest).backward()


def bare(name: str) -> float:
    """Seconds a step of forwards and backwards alone, in the memory layout of the package."""
    torch.manual_seed(0)
    layout = {"memory_format": torch.channels_last}
    student, teacher = (
        Classifier("wrn28_2", classes=list("0123456789"), image_size=32).to(**layout).train()
        for _ in range(2)
    )
    images = torch.rand(64, 3, 32, 32).contiguous(**layout)
    labels = torch.randint(10, (64,))
    step = {"mean_teacher": mean_teacher, "mixmatch": mixmatch}[name]
    for number in range(STEPS):
        if number == 1:
            begin = time.process_time()
        student.zero_grad()
        step(student, teacher, images, labels)
    return (time.process_time() - begin) / (STEPS - 1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    blocks = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    for name in sys.argv[1:2] or ["mean_teacher", "mixmatch"]:
        pairs = [(package(name), bare(name)) for _ in range(blocks)]
        ratios = [ours / theirs for ours, theirs in pairs]
        ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
        each = " ".join(f"{ratio:.3f}" for ratio in ratios)
        print(
            f"{name}: {ours:.3f} s, bare {theirs:.3f} s; ratio {statistics.median(ratios):.3f} ({each})"
        )
