"""The real client of the Hub in a process of its own, which has its environment from the start."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from tempfile import TemporaryDirectory


@contextmanager
def started(url, cache, **more):
    """A process that imports the client with its environment set; ``call(function, *arguments)``.

    It works in an empty folder, so that no folder of the user is taken for a repository's name.
    """
    chosen = {
        "HF_ENDPOINT": url,
        "HF_HOME": str(cache),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_ETAG_TIMEOUT": "1",
        "HF_HUB_DOWNLOAD_TIMEOUT": "1",
        "NO_PROXY": "127.0.0.1",
        "OMP_NUM_THREADS": "1",
        "HF_TOKEN": "hf_test",
        **more,
    }
    before = dict(os.environ)
    os.environ.update(chosen)
    try:
        context = multiprocessing.get_context("spawn")
        with (
            TemporaryDirectory() as empty,
            ProcessPoolExecutor(1, context, initializer=os.chdir, initargs=(empty,)) as pool,
        ):
            pool.submit(int).result()  # the process has its environment
            os.environ.clear()
            os.environ.update(before)
            yield lambda function, *arguments: pool.submit(function, *arguments).result()
    finally:
        os.environ.clear()
        os.environ.update(before)
