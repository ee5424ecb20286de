"""``accelerate launch -m fewlabels.run RECIPE``: the same as ``python -m fewlabels run RECIPE``."""

import sys

from fewlabels.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
