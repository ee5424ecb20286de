"""What tests of several folders share."""

import socket

import pytest
from children import run_together

from fewlabels.registry import REGISTRIES

pytest_plugins = ["hub_fixtures"]


@pytest.fixture
def port():
    """A free port for processes to meet at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def in_one_and_two_processes(tmp_path):
    """Runs a recipe in one process and in two; the two run folders."""

    def run(recipe):
        path = tmp_path / "recipe.yaml"
        path.write_text(recipe.to_yaml())
        for number in (1, 2):
            codes, said = run_together(["run", path, "--out", tmp_path / str(number)], number)
            assert codes == [0] * number, said
        return tmp_path / "1" / "recipe", tmp_path / "2" / "recipe"

    return run


@pytest.fixture(scope="session")
def built_in():
    """Loads all components: one first loaded into a test's own registry would be lost with it."""
    for registry in REGISTRIES.values():
        for name in registry.names():
            if not registry.find_plugin(name):
                registry.get(name)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a distribution of version 0.3 on the path, as an installer does; gives its folder."""

    def put(distribution, modules, kind="discovery", **names):
        site = tmp_path / distribution
        info = site / f"{distribution.replace('-', '_')}-0.3.dist-info"
        info.mkdir(parents=True)
        for module, code in modules.items():
            (site / f"{module}.py").write_text(code)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 0.3\n"
        )
        lines = "".join(f"{name} = {place}\n" for name, place in names.items())
        (info / "entry_points.txt").write_text(f"[fewlabels.{kind}]\n{lines}")
        monkeypatch.syspath_prepend(str(site))
        return str(site)

    return put
