#!/usr/bin/env bash
# What needs a GPU to be known: the quickstart, two steps of every strategy in each precision with finite losses, a run
# that is stopped and goes on, and images per second of two full-scale recipes on stand-in images.
#
#   bash tests/benchmarks/gpu.sh > gpu.txt    # at most 8 minutes on one GPU; 10 on two cores, where it is tried first
#
# In an environment with fewlabels installed. The result belongs into docs/results/gpu.md, with the day and the device.
set -uo pipefail
cd "$(dirname "$0")/../.."
out="$(mktemp -d)"
trap 'rm -rf "$out"' EXIT
failed=0

announce() { echo; echo "== $*  ($SECONDS s)"; }

announce "the device"
python -c 'import torch; print(torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")'

announce "the quickstart"
fewlabels run recipes/quickstart.yaml --out "$out" || failed=1

announce "two steps of every strategy"
python tests/benchmarks/gpu_steps.py || failed=1

announce "a run that is stopped goes on"
short=(recipes/studies/digits_mean_teacher.yaml rounds.steps_per_epoch=100 train.checkpoint_every=20)
fewlabels run "${short[@]}" name=whole --out "$out" > "$out/log" || failed=1
fewlabels run "${short[@]}" name=halves --out "$out" > "$out/log" 2>&1 &
until ls "$out"/halves/checkpoints/step-* > "$out/steps" 2> "$out/none" || ! kill -0 $!; do sleep 0.2; done
kill -TERM $!
wait $!
status=$?
[ $status -eq 143 ] || failed=1  # 128 and the number of TERM
echo "stopped with status $status, with $(ls "$out/halves/checkpoints" | tail -n 1)"
fewlabels run --resume "$out/halves" > "$out/log" || failed=1
cat > "$out/compare.py" <<'END'
import sys
from safetensors.torch import load_file
one, two = (load_file(f"{folder}/model/model.safetensors") for folder in sys.argv[1:])
difference = max((one[k].double() - two[k].double()).abs().max().item() for k in one)
print("largest difference of a weight:", difference, "(at most 1e-3)")
sys.exit(0 if difference <= 1e-3 else 1)
END
python "$out/compare.py" "$out/whole" "$out/halves" || failed=1

cat > "$out/speed.py" <<'END'
import sys
from fewlabels.recipe.recipe import load_recipe
from fewlabels.rehearsal.costs import cost_steps
from fewlabels.rehearsal.measure import rehearse_recipe
from fewlabels.rehearsal.memory import name_device, remember_imports
from fewlabels.rehearsal.report import format_page
recipe, imported = load_recipe(sys.argv[1], ended=True), remember_imports()
found = rehearse_recipe(recipe)
print(format_page(found, {}, imported, name_device()))
for stage, step in cost_steps(found).items():
    print(f"{stage}: {step.plan.images / step.whole.seconds:.0f} images per second")
END
announce "images per second: MixMatch, WRN-28-2, 64 + 64 images of 32 px"
python "$out/speed.py" recipes/tables/table_3.1/mixmatch.yaml || failed=1
announce "images per second: TAC-CCL on CUB, GoogLeNet, 80 images and 20 pairs of 227 px"
python "$out/speed.py" recipes/tac_ccl_cub.yaml || failed=1
announce "done; failed: $failed"
exit $failed
