from fewlabels.testing import conformance


@conformance("strategy", "fixmatch", options={"labelled": 4, "mu": 2, "threshold": 0.0})
def test_fixmatch(check):
    check()


@conformance(
    "strategy",
    "fixmatch",
    options={"labelled": 4, "mu": 2, "threshold": "adaptive"},
    recipe={"weights": {"fairness": 0.05}},
)
def test_fixmatch_with_adaptive_thresholds(check):
    check()
