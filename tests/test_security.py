"""What SECURITY.md promises, read from the code itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [path for folder in ("harness", "decoders", "baselines") for path in sorted((ROOT / folder).rglob("*.py"))]
FORBIDDEN = {
    *(f"os.{name}" for name in ("system", "popen", "execv", "execvp", "spawnl", "spawnv")),
    *("eval", "subprocess.getoutput", "subprocess.getstatusoutput", "pty.spawn"),
    *("pickle.load", "pickle.loads", "joblib.load", "marshal.loads", "shelve.open", "dill.load", "yaml.load"),
    *("tarfile.extractall", "shutil.unpack_archive", "pandas.read_pickle", "pd.read_pickle"),
}
ONLY_IN = {
    "exec": "request/model_file.py",  # the file a user names
    "torch.jit.load": "weights/convert.py",  # a file that passed its hash
    "pickle.Unpickler": "weights/convert.py",  # the restricted reader
}


def uses(text: str) -> Iterator[tuple[str, ast.Call]]:
    """Every call by the dotted name it is written with."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def faults(path: str, text: str) -> list[str]:
    found = []
    for name, call in uses(text):
        options = {one.arg: ast.unparse(one.value) for one in call.keywords}
        if name in FORBIDDEN or name.endswith((".extractall", ".extract")):
            found.append(f"{name} is called")
        if name in ONLY_IN and not path.endswith(ONLY_IN[name]):
            found.append(f"{name} belongs to {ONLY_IN[name]}")
        if options.get("shell", "False") != "False" or "create_subprocess_shell" in name:
            found.append(f"{name} gets a shell")
        if name == "torch.load" and options.get("weights_only") != "True":
            found.append("torch.load without weights_only=True")
        if options.get("allow_pickle", "False") != "False":
            found.append(f"{name} allows pickles")
        if name.startswith("subprocess.") and call.args and isinstance(call.args[0], ast.Constant | ast.JoinedStr):
            found.append(f"{name} gets one text, not a list of words")
        if options.get("use_safetensors", "True") != "True":
            found.append(f"{name} reads pickles")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_unpickled_and_no_process_gets_a_shell(path: Path) -> None:
    assert faults(str(path), path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "text",
    [
        "os.system('ls')",
        "subprocess.run('ls', shell=True)",
        "subprocess.run(f'ls {x}')",
        "subprocess.run(['ls'], shell=asked)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "pickle.loads(data)",
        "archive.extractall(folder)",
        "eval(text)",
        "exec(text)",
        "torch.jit.load(path)",
    ],
)
def test_each_breach_would_be_noticed(text: str) -> None:
    assert faults("harness/x.py", text)


WATCH = """
import sys
from importlib import metadata
from harness.cli import app
from harness.registry import decoder_entries, name_clashes
from harness.metrics.registry import METRICS, plug_ins
from harness.cli.maintain import _listing
assert {"evil-decoder"} <= decoder_entries().keys() and {"evil_metric"} == plug_ins().keys()
name_clashes(decoder_entries())
for what in ("decoders", "metrics"):
    assert any(str(row["name"]).startswith("evil") for row in _listing(what)), what
app(["doctor", "--help"], standalone_mode=False)
assert "evil" not in sys.modules
from harness.registry import build_decoder
from harness.decoder import DecoderOptions
try:
    build_decoder("evil-decoder", DecoderOptions())
except Exception as error:
    print("LOADED", error)
"""


def test_a_plug_in_that_nobody_names_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')\n")
    info = tmp_path / "evil-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    points = "[msbench.decoders]\nevil-decoder = evil:make\n[msbench.metrics]\nevil_metric = evil:METRIC\n"
    (info / "entry_points.txt").write_text(points)
    done = subprocess.run(
        [sys.executable, "-c", WATCH],
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": "", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "LOADED decoder evil-decoder of evil: loading evil:make raised SystemExit: imported" in done.stdout
