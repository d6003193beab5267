"""What the repository tells the public: its workflows fit the Makefile, and SECURITY.md states the app's own limits."""

import re
from pathlib import Path

import pytest

from f2d.app.guard import LARGEST_CALL
from f2d.app.limits import Limits
from f2d.images.reading import _FORMATS

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / ".github").rglob("*.yml"))
pytestmark = pytest.mark.skipif(not FILES, reason="a source archive has no .github")


def test_workflows_test_every_python_that_is_promised_and_call_targets_that_exist():
    yaml = pytest.importorskip("yaml")
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    promised = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())
    assert jobs["test"]["strategy"]["matrix"]["python"] == promised
    makefile = (ROOT / "Makefile").read_text().replace("$(VENV)", ".venv")
    commands = "\n".join(step["run"] for job in jobs.values() for step in job["steps"] if "run" in step)
    commands += "\n" + (ROOT / ".github/actions/setup/action.yml").read_text()
    called = set(re.findall(r"\bmake ([\w./-]+)", commands))
    assert {"lint", "pytest", "docs", "wheels", "test-wheels", ".venv/installed"} == called
    assert [name for name in called if not re.search(rf"^{re.escape(name)}:", makefile, re.MULTILINE)] == []
    assert re.findall(r"python(3\.\d+)", commands) == promised  # of the wheels


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_forms_and_workflows_are_yaml_with_a_name(path):
    content = pytest.importorskip("yaml").safe_load(path.read_text())
    assert content.get("name") or path.name == "config.yml"


def test_security_states_the_limits_that_the_app_has():
    text = " ".join((ROOT / "SECURITY.md").read_text().split())
    limits = Limits()
    assert f"at most {limits.upload // 2**20} MiB and a picture at most {limits.megapixels:g} megapixels" in text
    assert f"Any other request has at most {LARGEST_CALL // 2**20} MiB" in text
    assert limits.together == 1 and f"One restoration runs at a time, {limits.waiting} requests may wait" in text
    assert f"at most {limits.disk // 2**30} GiB" in text and f"deleted {limits.keep} seconds after" in text


def test_security_names_the_formats_that_are_read():
    formats = re.search(r"decoders of Pillow for (.+?), up to", (ROOT / "SECURITY.md").read_text())[1]
    assert {name.upper().replace(" ", "") for name in re.split(", | and ", formats)} == set(_FORMATS)
