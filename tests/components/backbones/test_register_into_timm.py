"""One line makes timm know our backbones."""

import subprocess
import sys

CODE = """
import sys
from fewlabels.components.backbones import register_into_timm
assert not {"torch", "timm"} & set(sys.modules), "the import is light"
import timm
assert not timm.is_model("wrn28_2"), "known before"
names = register_into_timm()
assert all(map(timm.is_model, names)), names
assert timm.create_model("wrn28_2", num_classes=3, width=0.25).num_classes == 3
assert register_into_timm() == names, "once more"
print(*names)
"""
NAMES = "bninception convnet13 convnet3 convnet5 googlenet shakeshake26_2x96d wrn28_2"


def test_timm_makes_each_backbone_after_one_call_and_not_before():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(NAMES.split()) == set(done.stdout.split())
