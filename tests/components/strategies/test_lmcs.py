"""LMCS: the master's losses, whose guesses are mixed, and who sees which labels when."""

import copy
import shutil
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from accelerate import Accelerator
from run_folders import newest_checkpoint, read_rows, remove_checkpoints_after
from safetensors.numpy import load_file

import fewlabels
from fewlabels.components.strategies.lmcs import LMCS, discrimination_loss, spread_evenly
from fewlabels.components.strategies.mixmatch import sharpen
from fewlabels.contracts import Clock, LabelState, Part, Round, View
from fewlabels.errors import FewLabelsError
from fewlabels.models.classifier import Classifier
from fewlabels.models.modes import evaluating, set_training
from fewlabels.recipe.recipe import recipe_from
from fewlabels.training.modules import TrainingModules

BASE = {
    "data": {"source": "digits", "split": "official", "labels": 20},
    "model": {"backbone": "convnet3", "image_size": 16, "backbone_options": {"width": 0.25}},
    "views": [{"name": "homography", "crop": [0.8, 1.0], "rotation": 10}],
    "optimizer": {"name": "adam", "lr": 2e-3},
    "strategy": {"name": "lmcs", "labelled": 20, "batch": 20, "ema": {"end": 0.9}},
    "weights": {"unlabelled": {"end": 75, "steps": 20}},
    "rounds": {"rounds": 4, "discover_every": 2, "steps_per_epoch": 8},
    "train": {"log_every": 1},
}
DISCOVERY = {"name": "confident", "by": "student"}


def train(folder, *overrides, **changes):
    return fewlabels.train({**BASE, **changes}, overrides, out=folder).folder


def rows(folder, kind):
    return read_rows(folder, kind)


def weights(folder, start=""):
    last = newest_checkpoint(folder)
    tensors = load_file(last / "modules.safetensors")
    return {k: v for k, v in tensors.items() if k.startswith(start)}


def setting(**options):
    """A strategy with its modules after one composition, and a batch of 4 + 4 images."""
    torch.manual_seed(0)
    strategy = LMCS(labelled=4, batch=4, **options)
    options = {"width": 0.25}
    student = Classifier("convnet3", classes=["a", "b", "c"], backbone_options=options)
    build = SimpleNamespace(view=None, size=9, classes=3, classifier=lambda: student)
    models = TrainingModules(strategy.modules(build), Accelerator(cpu=True))
    with torch.no_grad():
        for p in models.plain("teacher").parameters():
            p.add_(0.05 * torch.randn_like(p))
    train, compose = strategy.phases(Round(0, 0, 1, 0))

    def part(views, first):
        matrix = torch.eye(3).expand(4, 3, 3)
        made = [View(torch.rand(4, 3, 32, 32), matrix) for _ in range(views)]
        return Part(torch.arange(first, first + 4), torch.tensor([0, 1, 2, 0]), made)

    batch = {"labelled": part(1, 0), "unlabelled": part(2, 4)}
    return strategy, models, train, compose, batch


def begin(strategy, models, phase):
    labels = np.array([0, 1, 2, *[-1] * 6])
    found = LabelState(labels, labels, labels >= 0, None, None, changed=False)
    width = models.plain("student").feature_size
    features = 5 * np.eye(3, width)[np.arange(9) % 3] + np.random.default_rng(0).random((9, width))
    strategy.begin(
        phase, models, found, lambda model, what, rows: features.astype(np.float32)[rows]
    )
    return features


# ---------------------------------------------------------------------------- J_D


def test_contrast_is_0_on_a_centre_and_1_half_way():
    centres = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 90.0]])
    at = lambda *x: float(discrimination_loss(torch.tensor([x]), centres))  # noqa: E731
    assert at(4.0, 0.0) == 0
    assert at(2.0, 0.0) == 1
    assert at(1.0, 0.0) == pytest.approx(1 - ((3 - 1) / (3 + 1)) ** 2)


def test_printed_is_equation_3_6():
    rng = np.random.default_rng(0)
    features, centres = rng.normal(size=(5, 4)), rng.normal(size=(6, 4))
    total = 0.0
    for f in features:
        c0, c1 = sorted(centres, key=lambda c: np.linalg.norm(c - f))[:2]
        total += (np.linalg.norm(c0 - f) - np.linalg.norm(c1 - f)) ** 2
    given = discrimination_loss(torch.tensor(features), torch.tensor(centres), "printed")
    assert float(given) == pytest.approx(total / 5)


def test_printed_is_smallest_half_way_and_so_the_opposite_of_contrast():
    centres = torch.tensor([[0.0, 0.0], [4.0, 0.0]])
    middle, near = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.5, 0.0]])
    assert discrimination_loss(middle, centres, "printed") == 0
    assert discrimination_loss(near, centres, "printed") == 9
    assert discrimination_loss(middle, centres) > discrimination_loss(near, centres)


@pytest.mark.parametrize("form", ["contrast", "printed"])
def test_the_gradient_is_finite_on_a_centre(form):
    features = torch.zeros(2, 3, requires_grad=True)
    discrimination_loss(features, torch.stack([torch.zeros(3), torch.zeros(3)]), form).backward()
    assert torch.isfinite(features.grad).all()


def test_clusters_begin_with_the_classes_and_are_of_unlabelled_images():
    strategy, models, _, compose, _ = setting()
    features = begin(strategy, models, compose)  # three heaps, a labelled image of each in front
    expected = [features[3 + c :: 3].mean(0) for c in range(3)]
    np.testing.assert_allclose(models.plain("master").centres, expected, atol=1e-5)


def test_processes_cluster_features_of_one_set_of_statistics(monkeypatch):
    strategy, models, _, compose, _ = setting()
    done = []
    monkeypatch.setattr(models, "average_buffers", lambda: done.append("average"))
    master = models.plain("master")

    def extract(model, what, rows):
        done.append("estimate" if master._estimating else "cluster")
        return np.eye(3, models.plain("student").feature_size, dtype=np.float32)[rows % 3]

    labels = np.array([0, 1, 2, *[-1] * 6])
    found = LabelState(labels, labels, labels >= 0, None, None, changed=False)
    strategy.begin(compose, models, found, extract)
    assert done == ["estimate", "average", "cluster"]


def test_statistics_are_of_all_classes_where_most_images_are_labelled_and_sorted_by_class():
    strategy, models, _, compose, _ = setting()
    labels = np.repeat([0, 1, 2], 40)
    labels[3::4] = -1  # 90 of 120 have labels
    asked = []

    def extract(model, what, rows):
        asked.append(rows)
        return np.eye(3, models.plain("student").feature_size, dtype=np.float32)[rows // 40]

    found = LabelState(labels, labels, labels >= 0, None, None, changed=False)
    strategy.begin(compose, models, found, extract)
    known = asked[0][labels[asked[0]] >= 0]
    assert np.bincount(labels[known]).tolist() == pytest.approx([10, 10, 10], abs=1)


# ---------------------------------------------------------------------------- losses


@pytest.mark.parametrize("form", ["contrast", "printed"])
def test_the_losses_of_the_master(form):
    strategy, models, _, compose, batch = setting(form=form)
    begin(strategy, models, compose)
    master, teacher = models.plain("master").train(), models.plain("teacher").eval()
    images = [batch[name].views[0].images for name in ("labelled", "unlabelled")]
    with torch.no_grad():
        whole = copy.deepcopy(master)(torch.cat(images))
        by_batch = copy.deepcopy(teacher).train()  # normalised as the master is; no dropout here
        wanted = by_batch(torch.cat(images)).logits[4:].softmax(1)
    known, others = whole.logits.softmax(1).split(4)
    expected = {
        "master_supervised": -known[torch.arange(4), batch["labelled"].labels].log().mean(),
        "consistency": ((others - wanted) ** 2).sum() / (4 * 3),
        "discrimination": discrimination_loss(whole.features[4:], master.centres, form),
    }
    found = strategy.losses(compose, models, batch, Clock(0, 0, 0))
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name].detach(), value, rtol=1e-4, atol=1e-6)
    sum(found.values()).backward()
    learning = [p for p in master.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in learning)
    assert all(p.grad is None for n in ("student", "teacher") for p in models.plain(n).parameters())


def make_equal(models):
    """Three equal extractors, whose running statistics are of other images than the batches."""
    student, teacher = models.plain("student"), models.plain("teacher")
    with torch.no_grad():
        student.train()(3 * torch.rand(8, 3, 32, 32))
    teacher.load_state_dict(student.state_dict())


def test_the_consistency_of_three_equal_extractors_is_0_whatever_their_running_statistics():
    strategy, models, _, compose, batch = setting()
    make_equal(models)
    begin(strategy, models, compose)
    models.plain("master").train()
    models.plain("teacher").eval()
    before = copy.deepcopy(models.plain("teacher").state_dict())
    found = strategy.losses(compose, models, batch, Clock(0, 0, 0))
    assert found["consistency"] < 1e-9
    after = models.plain("teacher").state_dict()
    assert all(torch.equal(v, before[k]) for k, v in after.items())
    assert not models.plain("teacher").training


def run_begin(strategy, models, compose, images):
    """Begin a composition with outputs that the models really give for these images."""
    labels = np.array([0, 1, 2, *[-1] * (len(images) - 3)])
    found = LabelState(labels, labels, labels >= 0, None, None, changed=False)

    def extract(model, what, rows):
        with evaluating(models.plain(model)), torch.no_grad():
            parts = [models.plain(model)(images[part]) for part in np.array_split(rows, 4)]
        return torch.cat([getattr(part, what) for part in parts]).numpy()

    strategy.begin(compose, models, found, extract)
    return extract("master", "features", np.arange(len(images)))


@pytest.mark.parametrize("frozen", [False, True])
def test_clusters_are_of_features_with_the_statistics_of_unmixed_images(frozen):
    strategy, models, _, compose, _ = setting()
    make_equal(models)
    master = models.plain("master")
    set_training(master, frozen)
    images = torch.rand(64, 3, 32, 32)
    clustered = run_begin(strategy, models, compose, images)
    set_training(master, frozen)
    with torch.no_grad():
        of_batch = master(images).features.numpy()
    shift = np.linalg.norm(of_batch - clustered) / np.linalg.norm(of_batch)
    assert shift < (1e-6 if frozen else 0.1)
    kept = models.plain("student").state_dict()
    same = [torch.equal(v, kept[k]) for k, v in master.current.state_dict().items() if "mean" in k]
    assert all(same) == frozen


def test_positions_are_spread_so_that_any_stretch_has_its_share_of_each_part():
    spread = spread_evenly(np.arange(100), np.arange(100, 400))
    assert sorted(spread) == list(range(400))
    for begin in range(0, 400, 40):
        part = spread[begin : begin + 40]
        assert 8 <= (part < 100).sum() <= 12
        assert np.diff(np.sort(part)).max() < 30


def test_the_students_losses_are_those_of_mixmatch_on_the_masters_guesses():
    strategy, models, train, compose, batch = setting(guess_by="master")
    begin(strategy, models, compose)
    begin(strategy, models, train)
    models.plain("student").train()
    master = models.plain("master").eval()
    views = [view.images for view in batch["unlabelled"].views]
    with torch.no_grad():
        expected = torch.stack([master(v).logits.softmax(1) for v in views]).mean(0)
    torch.testing.assert_close(strategy.guess(models, *views), expected)
    guesses = []
    base = super(LMCS, strategy).losses
    strategy.guess = lambda models, *images: guesses.append(images) or expected
    torch.manual_seed(3)
    ours = strategy.losses(train, models, batch, Clock(0, 0, 0))
    torch.manual_seed(3)
    theirs = base(train, models, batch, Clock(0, 0, 0))
    assert {k: v.item() for k, v in ours.items()} == {k: v.item() for k, v in theirs.items()}
    assert len(guesses) == 2
    assert sharpen(expected, 0.5).max() > expected.max()


@pytest.mark.parametrize("by", ["both", "master", "ema", "student"])
def test_who_guesses_from_the_first_composition_on(by):
    strategy, models, train, compose, batch = setting(guess_by=by)
    models.plain("student").train()
    for name in ("teacher", "master"):
        models.plain(name).eval()
    views = [view.images for view in batch["unlabelled"].views]
    begin(strategy, models, train)
    first = strategy.guess(models, *views)
    torch.testing.assert_close(first, super(LMCS, strategy).guess(models, *views))
    begin(strategy, models, compose)
    with torch.no_grad():  # student, teacher and master now answer differently
        models.plain("master").average.backbone.fc.bias[0] += 1
    begin(strategy, models, train)
    guides = {"both": ["master", "student"], "ema": ["teacher"]}.get(by, [by])
    with torch.no_grad(), models.freeze_statistics("student"):
        each = [models.plain(guide)(v).logits.softmax(1) for v in views for guide in guides]
    torch.testing.assert_close(strategy.guess(models, *views), torch.stack(each).mean(0))


# ---------------------------------------------------------------------------- whole runs


def test_with_its_own_guesses_and_no_discovery_it_is_mixmatch_bit_for_bit(tmp_path):
    ours = train(tmp_path / "ours", "strategy.guess_by=student")
    same = {k: v for k, v in BASE["strategy"].items() if k != "name"}
    theirs = train(tmp_path / "theirs", strategy={"name": "mixmatch", **same})
    for start in ("student/", "teacher/"):
        one, two = weights(ours, start), weights(theirs, start)
        assert one
        assert one.keys() == two.keys()
        assert all((one[k] == two[k]).all() for k in one)
    end, other = rows(ours, "end")[0], rows(theirs, "end")[0]
    assert (end["steps"], end["images"], end["other_steps"]) == (32, 640, 32)
    assert (other["steps"], other["images"], other["other_steps"]) == (32, 640, 0)


@pytest.mark.parametrize("look_ahead", [True, False])
def test_the_master_sees_what_is_discovered_one_generation_before_the_student(
    tmp_path, monkeypatch, look_ahead
):
    seen = {}
    losses = LMCS.losses

    def watched(self, phase, models, batch, clock):
        for name, part in batch.items():
            own = seen.setdefault((phase.name, clock.round, name), {})
            own.update(zip(part.indices.tolist(), part.labels.tolist(), strict=True))
        return losses(self, phase, models, batch, clock)

    monkeypatch.setattr(LMCS, "losses", watched)
    folder = train(
        tmp_path,
        f"strategy.look_ahead={str(look_ahead).lower()}",
        "strategy.unlabelled=rest",
        "rounds.steps_per_epoch=8",
        "rounds.limit=4",
        "rounds.rounds=6",
        "model.backbone_options.width=0.06",
        discovery=DISCOVERY,
    )
    given = set(seen["train", 0, "labelled"])
    assert len(given) == 20
    omega = [dict(seen["train", 0, "labelled"])]  # Omega_0, then Omega_g
    for round_ in (2, 4, 6):
        table = pq.read_table(folder / "ledger" / f"round-{round_:03d}-confident.parquet")
        new = table.to_pydict()
        omega.append({**omega[-1], **dict(zip(new["row"], new["label"], strict=True))})
    assert [len(o) for o in omega] == [20, 40, 80, 80]  # the last finds nothing: limit 4
    everything = set(range(1200))
    for round_ in range(8):
        generation = round_ // 2
        late = omega[max(0, generation - 1) if look_ahead else generation]
        for phase, labels in [("train", late), ("composition", omega[generation])]:
            assert seen[phase, round_, "labelled"] == labels, (phase, round_)
            others = seen[phase, round_, "unlabelled"]
            assert set(others) <= everything - set(labels)
    if look_ahead:  # what the master alone has labels for is still unlabelled to the student
        fresh = set(omega[2]) - set(omega[1])
        assert fresh & set(seen["train", 4, "unlabelled"])
        assert not fresh & set(seen["composition", 4, "unlabelled"])


def test_each_composition_begins_with_a_new_optimiser_and_clock_and_the_schedules_rate(tmp_path):
    folder = train(
        tmp_path, "train.checkpoint_every=1", "train.keep_checkpoints=999", "schedule.name=cosine",
        "rounds.rounds=3", "rounds.steps_per_epoch=2", "strategy.composition_ema=0.999",
    )  # fmt: skip
    places = {int(place.name[5:]): place for place in (folder / "checkpoints").iterdir()}

    def steps_of(phase, at):
        state = torch.load(places[at] / "optimizers.pt", weights_only=True)[phase]["state"]
        (count,) = {int(moments["step"]) for moments in state.values()}
        return count

    assert [steps_of("composition", at) for at in (3, 4, 7, 8, 11, 12)] == [1, 2] * 3
    assert [steps_of("train", at) for at in (2, 6, 10)] == [2, 4, 6]
    rates = [r["lr"] for r in rows(folder, "train") if r["phase"] == "composition"]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < rates[0] / 2
    # The average of the decision network forgets its start in each of them.
    for step in (3, 7, 11):
        tensors = load_file(places[step] / "modules.safetensors")
        decision = {k: v for k, v in tensors.items() if k.startswith("master/decision.backbone.fc")}
        assert decision
        for key, value in decision.items():
            np.testing.assert_array_equal(value, tensors[key.replace("decision", "average")])


@pytest.mark.slow
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path):
    whole = train(
        tmp_path / "whole", "train.checkpoint_every=1", "train.keep_checkpoints=999",
        "schedule.name=cosine", "rounds.discover_every=1", "rounds.rounds=2",
        "rounds.steps_per_epoch=4", discovery=DISCOVERY,
    )  # fmt: skip
    assert rows(whole, "end")[0]["other_steps"] == 12
    for stop in (6, 8, 10, 14, 21):  # in a composition, between rounds, in the student's phase
        stopped = tmp_path / f"stopped-{stop}"
        shutil.copytree(whole, stopped)
        remove_checkpoints_after(stopped, stop)
        again = fewlabels.train(resume=stopped).folder
        one, two = weights(whole), weights(again)
        assert all((one[k] == two[k]).all() for k in one)
        assert rows(whole, "train") == rows(again, "train")
        assert rows(whole, "end")[0]["score"] == rows(again, "end")[0]["score"]


def test_a_new_beginning_has_no_master_yet(tmp_path):
    folder = train(tmp_path, "rounds.restart=round", "rounds.rounds=3", "train.checkpoint_every=1",
                   "train.keep_checkpoints=999", "rounds.steps_per_epoch=2")  # fmt: skip
    at = {}
    for place in (folder / "checkpoints").iterdir():
        tensors = load_file(place / "modules.safetensors")
        at[int(place.name[5:])] = bool(tensors["master/composed"])
    assert at == {1: False, 2: False, 3: True, 4: True, 5: False, 6: False, 7: True, 8: True,
                  9: False, 10: False, 11: True, 12: True}  # fmt: skip


def test_learning_rate_factors_may_name_the_master_or_the_student(tmp_path):
    run = train(tmp_path, "rounds.rounds=1", "rounds.steps_per_epoch=2",
                "optimizer.factors={master.converters: 0, student.backbone.conv1: 0}")  # fmt: skip
    found = weights(run, "master/converters")
    assert np.allclose(found["master/converters.0.weight"], np.eye(16) / 3)
    with pytest.raises(FewLabelsError, match="no trained parameter's path starts with 'master.x'"):
        train(tmp_path, "optimizer.factors={master.x: 0.1}")


@pytest.mark.slow
@pytest.mark.parametrize("frozen", ["none", "statistics"])
def test_two_processes_compose_as_one(in_one_and_two_processes, frozen):
    recipe = recipe_from(
        {**BASE, "discovery": DISCOVERY},
        ["rounds.discover_every=1", "rounds.rounds=2", "rounds.steps_per_epoch=4",
         f"model.freeze_batchnorm={frozen}"],
    )  # fmt: skip
    one, two = in_one_and_two_processes(recipe)
    assert rows(two, "run")[0]["processes"] == 2
    mine, theirs = (
        [r["loss"] for r in rows(f, "train") if r["phase"] == "composition"] for f in (one, two)
    )
    assert len(mine) == 12
    if frozen == "none":  # batch norms see half of a batch each, so the losses are others
        centres = [weights(folder, "master/centres")["master/centres"] for folder in (one, two)]
        assert np.linalg.norm(centres[0] - centres[1]) < 0.2 * np.linalg.norm(centres[0])
        return
    # MixMatch mixes within a process's rows, so the students that are composed differ a little.
    np.testing.assert_allclose(theirs[:4], mine[:4], rtol=0.2)
