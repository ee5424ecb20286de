"""Marks the one check of conformance that trains in two processes."""

import pytest


def pytest_collection_modifyitems(items):
    for item in items:
        if item.name.endswith("[two_processes_train_as_one]"):
            item.add_marker(pytest.mark.slow)
