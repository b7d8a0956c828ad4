"""What Jupyter shows, bars, tables, plots, the example notebook, the examples and the README."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import xml.dom.minidom
from pathlib import Path

import pytest
from conftest import HERE, MIB, Swarm, need_fuse

import vmtorrent

ROOT = HERE.parent
EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*.py") if path.name != "boot.py")


def parsed(html: str) -> xml.dom.minidom.Document:
    """It is well-formed, also as XML, and asks for nothing elsewhere."""
    assert "http:" not in html and "https:" not in html and "<script" not in html
    return xml.dom.minidom.parseString(html.replace("<br>", "<br/>"))


def test_an_appliance_shows_its_pieces_and_figures(swarm: Swarm) -> None:
    with vmtorrent.launch(swarm.torrent, **swarm.options) as vm:
        colours = []
        for _ in range(2):
            page = parsed(vm._repr_html_())
            assert "disk.img" in page.toxml() and "99th percentile" in page.toxml()
            colours.append([r.getAttribute("fill") for r in page.getElementsByTagName("rect")])
            vm.pread(2 * MIB)
            vm.pwrite(b"x" * 4096, 5 * MIB)
        assert len(colours[1]) > len(colours[0]) and set(colours[1]) > set(colours[0])
        profile = vm.profile()
    page = parsed(profile._repr_html_())
    assert len(page.getElementsByTagName("rect")) > 100


def test_names_from_outside_are_escaped(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(b"x" * 1000)
    image = vmtorrent.publish(tmp_path / "disk.img", name="<script>alert(1)<&")
    (tmp_path / "<script>alert(1)<&").write_bytes(b"x" * 1000)
    with vmtorrent.seed(image, tmp_path, listen="127.0.0.1:0", local_discovery=False) as seed:
        assert "&lt;script&gt;" in parsed(seed._repr_html_()).toxml()
    assert "&lt;script&gt;" in parsed(seed._repr_html_()).toxml()


@pytest.mark.extras
def test_a_bar_shows_how_much_is_here(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    vmtorrent.publish(swarm.disk, progress=True)
    assert "hashing: 100%" in shown.getvalue()
    with vmtorrent.launch(swarm.torrent, progress=True, **swarm.options) as vm:
        vm.pread(6 * MIB)
        while vm.stats().present_bytes < 6 * MIB:
            pass
    assert "disk.img: 100%" in shown.getvalue() and "peers=" in shown.getvalue()


@pytest.mark.extras
def test_a_profile_is_a_table_and_a_plot(swarm: Swarm) -> None:
    import matplotlib

    matplotlib.use("Agg")
    with vmtorrent.launch(swarm.torrent, **swarm.options) as vm:
        vm.pread(MIB)
        profile = vm.profile()
    table = profile.to_pandas()
    assert list(table.columns) == ["path", "offset", "runs", "mean_s", "std_s", "min_s", "max_s"]
    assert len(table) == 64 and table["offset"].max() == MIB - 16384
    assert set(table["path"]) == {"disk.img"}
    ax = profile.plot()
    assert len(ax.collections[0].get_offsets()) == 64
    import matplotlib.pyplot as plt

    plt.close("all")


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, swarm: Swarm) -> None:
    with vmtorrent.launch(swarm.torrent, **swarm.options) as vm:
        profile = vm.profile()
    for module in ("pandas", "matplotlib", "matplotlib.pyplot", "tqdm", "tqdm.auto"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"vmtorrent\[pandas\]"):
        profile.to_pandas()
    with pytest.raises(ImportError, match=r"vmtorrent\[plot\]"):
        profile.plot()
    with pytest.raises(ImportError, match=r"vmtorrent\[progress\]"):
        vmtorrent.publish(swarm.disk, progress=True)
    with pytest.raises(ImportError, match=r"vmtorrent\[progress\]"):
        vmtorrent.launch(swarm.torrent, progress=True, **swarm.options)


@pytest.mark.extras
@pytest.mark.timeout(180)
def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbclient
    import nbformat

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(ROOT / "examples" / "tour.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute(cwd=str(tmp_path))
    shown = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    pictures = [o for o in shown if "text/html" in o.get("data", {}) and "<svg" in o["data"]["text/html"]]
    assert len(pictures) >= 2
    assert not [o for o in shown if o.output_type == "error"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs(example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_fuse()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    done = subprocess.run([sys.executable, str(example)], capture_output=True, text=True, timeout=100, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_first_example_of_the_readme_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    text = (ROOT / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    shown = re.search(r"```text\n(.*?)```", text, re.DOTALL)
    assert code is not None and shown is not None
    done = subprocess.run([sys.executable, "-c", code[1]], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == shown[1]


def test_the_example_that_boots_runs_with_any_vmm(swarm: Swarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_fuse()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    guest = "import sys, time; print('host', open(sys.argv[1], 'rb').read(1).hex(), 'login: ', flush=True); time.sleep(99)"
    command = [sys.executable, str(ROOT / "examples" / "boot.py"), swarm.torrent, "--peer", swarm.seed.peer]
    done = subprocess.run(
        [*command, "--", sys.executable, "-c", guest, "{disk}"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "disk.img shows 'login: '" in done.stdout
