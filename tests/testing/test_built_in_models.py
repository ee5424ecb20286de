"""The losses, blocks and backbones of this package keep what each of their kind promises."""

import torch

from fewlabels.testing import conformance


@conformance("loss", "attention_consistency")
def test_attention_consistency(check):
    check()


@conformance("loss", "cbml", options={"negative_width": 0.1})
def test_cbml(check):
    check()


@conformance("loss", "cbml", options={"use_memory": True})
def test_cbml_against_a_memory(check):
    check()


@conformance("loss", "contrastive_clustering")
def test_contrastive_clustering(check):
    check()


@conformance("loss", "contrastive_clustering", options={"centre": "own"})
def test_contrastive_clustering_to_the_own_centre(check):
    check()


@conformance("loss", "feature_similarity")
def test_feature_similarity(check):
    check()


TWO_VIEWS = {
    "side": {"san.maps": torch.randn(12, 4, 3, 3, generator=torch.Generator().manual_seed(0))},
    "indices": torch.arange(6).repeat(2),
}


@conformance("loss", "map_agreement", inputs=TWO_VIEWS)
def test_map_agreement(check):
    check()


@conformance("loss", "multi_similarity")
def test_multi_similarity(check):
    check()


@conformance("loss", "pml:contrastive_loss", options={"use_memory": True})
def test_a_pair_loss_of_pytorch_metric_learning(check):
    check()


@conformance("loss", "pml:proxy_anchor_loss")
def test_a_class_loss_of_pytorch_metric_learning(check):
    check()


@conformance("block", "cbam", options={"reduction": 4})
def test_cbam(check):
    check()


@conformance("block", "position_pooling")
def test_position_pooling(check):
    check()


@conformance("block", "san", options={"hidden": 8})
def test_san(check):
    check()


@conformance(
    "block",
    "san",
    options={"hidden": 8, "predictor": "conv", "normalise": "sinkhorn", "scale": None},
)
def test_san_by_convolution_and_doubly_stochastic(check):
    check()


@conformance("backbone", "bninception")
def test_bninception(check):
    check()


@conformance("backbone", "convnet3", options={"width": 0.25})
def test_convnet3(check):
    check()


@conformance("backbone", "convnet5", options={"width": 0.25})
def test_convnet5(check):
    check()


@conformance("backbone", "convnet13", options={"width": 0.1})
def test_convnet13(check):
    check()


@conformance("backbone", "googlenet")
def test_googlenet(check):
    check()


@conformance("backbone", "shakeshake26_2x96d", options={"width": 0.1})
def test_shakeshake26(check):
    check()


@conformance("backbone", "wrn28_2", options={"width": 0.25})
def test_wrn28_2(check):
    check()
