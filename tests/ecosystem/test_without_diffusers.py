"""Where diffusers is not installed."""

import subprocess
import sys

from tests.ecosystem.conftest import ROOT


def test_the_import_says_what_to_install_and_the_rest_works():
    code = (
        "import sys; sys.modules['diffusers'] = None\n"
        "import f2d.integrations\n"
        "assert 'torch' not in sys.modules\n"
        "try:\n    from f2d.integrations import RestorationPipeline\n"
        "except ImportError as error:\n    print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=180)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == (
        "f2d.integrations.RestorationPipeline needs diffusers: pip install 'f2d[diffusers]'"
    )
