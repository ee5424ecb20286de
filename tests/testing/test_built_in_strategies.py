"""The strategies of this package keep what every strategy promises."""

from fewlabels.testing import conformance

FEW = {"labelled": 8, "batch": 8}
PAIRS = {"batch": 8, "per_class": 2}
MIXES = {
    "two_processes_train_as_one": "a process mixes the images that it has itself, as is usual; "
    "mixing with those of the others would send every image to every process"
}

LONE = {
    "two_processes_train_as_one": "four labels, one a class, do not tell how sure the closed form is "
    "to be, so that a rounding decides; test_closed_form.py has more labels"
}


@conformance("strategy", "ict", options=FEW, exempt=MIXES)
def test_ict(check):
    check()


@conformance("strategy", "lmcs", options=FEW, exempt=MIXES)
def test_lmcs(check):
    check()


@conformance("strategy", "fine_tune", options=FEW, exempt=LONE)
def test_fine_tune(check):
    check()


@conformance("strategy", "lda")
def test_lda(check):
    check()


@conformance("strategy", "nearest_mean")
def test_nearest_mean(check):
    check()


@conformance("strategy", "mean_teacher", options=FEW)
def test_mean_teacher(check):
    check()


@conformance("strategy", "metric", options={**PAIRS, "momentum": 0.9, "average": 0.9})
def test_metric(check):
    check()


@conformance(
    "strategy",
    "metric",
    options={**PAIRS, "memory": None},
    recipe={
        "losses": "pml:proxy_anchor_loss",
        "optimizer": {"name": "sgd", "lr": 0.1, "factors": {"loss": 10}},
    },
)
def test_metric_with_a_loss_that_learns(check):
    check()


@conformance("strategy", "mixmatch", options=FEW, exempt=MIXES)
def test_mixmatch(check):
    check()


@conformance("strategy", "mixup", options=FEW, exempt=MIXES)
def test_mixup(check):
    check()


@conformance("strategy", "pi_model", options=FEW)
def test_pi_model(check):
    check()


@conformance("strategy", "pseudo_label", options=FEW)
def test_pseudo_label(check):
    check()


@conformance("strategy", "rotation", options={"epochs": 2, "batch": 8})
def test_rotation(check):
    check()


@conformance("strategy", "snowball", options=FEW)
def test_snowball(check):
    check()


@conformance("strategy", "supervised", options=FEW)
def test_supervised(check):
    check()


@conformance(
    "strategy",
    "tac_ccl",
    options=PAIRS,
    recipe={
        "blocks": {"name": "cbam", "after": "conv2", "reduction": 4},
        "losses": ["multi_similarity", "contrastive_clustering", "attention_consistency"],
    },
)
def test_tac_ccl(check):
    check()


@conformance("strategy", "temporal_ensembling", options=FEW)
def test_temporal_ensembling(check):
    check()


@conformance("strategy", "vat", options=FEW)
def test_vat(check):
    check()
