from fewlabels.testing import conformance


@conformance("discovery", "label_propagation")
def test_label_propagation(check):
    check()


@conformance("discovery", "label_propagation", options={"mutual": True, "balance": False})
def test_label_propagation_on_mutual_neighbours(check):
    check()


@conformance("discovery", "label_propagation", options={"weigh": True})
def test_label_propagation_that_weighs(check):
    check()
