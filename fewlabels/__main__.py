"""``python -m fewlabels COMMAND``, for launchers that want a module."""

import sys

from fewlabels.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
