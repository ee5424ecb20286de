from fewlabels.testing import conformance


@conformance("strategy", "fixmatch", options={"labelled": 4, "mu": 2, "threshold": 0.0})
def test_fixmatch(check):
    check()
