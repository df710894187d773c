"Every notebook passes, on the synthetic Mars and in a process of its own."
import os, subprocess

import pytest

from conftest import BIN, ROOT, tracked


@pytest.mark.parametrize('path', [p for p in tracked('nbs/*.ipynb') if 'experiments' not in p.parts], ids=lambda p: p.stem)
def test_notebook(path, *flags):
    "On the synthetic Mars: the real file has tests of its own."
    env = {k: v for k, v in os.environ.items() if k != 'MARSNB_DATA'}
    r = subprocess.run([BIN/'nbdev_test', '--path', str(path), '--n_workers', '0', *flags], cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
    assert r.returncode == 0, (r.stdout + r.stderr)[-3000:]


@pytest.mark.soak
@pytest.mark.parametrize('path', [p for p in tracked('nbs/*.ipynb') if '"#| slow' in p.read_text(encoding='utf-8')], ids=lambda p: p.stem)
def test_notebook_with_its_slow_cells(path): test_notebook(path, '--flags', 'slow')
