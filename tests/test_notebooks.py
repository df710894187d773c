"Every notebook passes, on the synthetic Mars and in a process of its own, forked from one that has imported what all of them need."
import os

import pytest

from conftest import ROOT, tracked
from marsnb import page


def executed(path, flags, log):
    "What the process of a notebook does: `nbdev_test`, on the synthetic Mars, since the real file has tests of its own; what it says goes to `log`."
    said = os.open(log, os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2): os.dup2(said, stream)
    os.environ.pop('MARSNB_DATA', None)
    os.chdir(ROOT)
    from nbdev.test import nbdev_test
    nbdev_test.__wrapped__(path=path, flags=flags, n_workers=0)


@pytest.mark.parametrize('path', [p for p in tracked('nbs/*.ipynb') if 'experiments' not in p.parts], ids=lambda p: p.stem)
def test_notebook(path, tmp_path, flags=''):
    p = page.start(executed, str(path), flags, str(tmp_path/'said'))
    p.join(600); p.kill()
    assert p.exitcode == 0, (tmp_path/'said').read_text()[-3000:]


@pytest.mark.soak
@pytest.mark.parametrize('path', [p for p in tracked('nbs/*.ipynb') if '"#| slow' in p.read_text(encoding='utf-8')], ids=lambda p: p.stem)
def test_notebook_with_its_slow_cells(path, tmp_path): test_notebook(path, tmp_path, 'slow')
