"Bad input through the command line: one clear line, exit code 2, nothing overwritten."
import resource, zipfile

import numpy as np
import pytest

from marsnb.data import save, synthetic
from marsnb.models.unet import unet


@pytest.fixture(scope='module')
def mars(tmp_path_factory):
    path = tmp_path_factory.mktemp('mars')/'mars.npz'
    save(path, synthetic(60, 7))
    return path


def refused(r, *words):
    assert r.returncode == 2, (r.returncode, r.stdout, r.stderr)
    lines = r.stderr.strip().splitlines()
    assert 1 <= len(lines) <= 2 and 'Traceback' not in r.stderr, r.stderr
    assert all(w in r.stderr for w in words), r.stderr


def broken(kind, mars, d):
    "A file spoilt in the way `kind`."
    z = np.load(mars); a, b = z['training_set'].astype(float), z['test_set'].astype(float)
    path = d/'bad.npz'
    if kind == 'text': path.write_text('no zip')
    elif kind == 'truncated': path.write_bytes(mars.read_bytes()[:9000])
    elif kind == 'key': np.savez(path, test_set=b)
    elif kind == 'shape': np.savez(path, training_set=a[:, :1], test_set=b)
    elif kind == 'label': a[3, 1, 0, 0] = 5; np.savez(path, training_set=a, test_set=b)
    elif kind == 'nan': a[3, 1, 0, 0] = np.nan; np.savez(path, training_set=a, test_set=b)
    elif kind == 'fraction': a[3, 1, 0, 0] = .5; np.savez(path, training_set=a, test_set=b)
    elif kind == 'bright': a[3, 0, 0, 0] = 256; np.savez(path, training_set=a, test_set=b)
    elif kind == 'pickle': np.savez(path, training_set=np.array([print], object), test_set=b)
    elif kind == 'empty': np.savez(path, training_set=a[:0], test_set=b)
    elif kind == 'huge':
        with open(d/'h', 'wb') as f: np.lib.format.write_array_header_1_0(f, {'descr': '<f8', 'fortran_order': False, 'shape': (800_000, 2, 64, 128)})
        with zipfile.ZipFile(path, 'w') as z: z.write(d/'h', 'training_set.npy')
    return path


@pytest.mark.parametrize('kind, word', [('missing', 'no such file'), ('text', 'not a readable npz'), ('truncated', 'not a readable npz'),
    ('key', 'no training_set'), ('shape', '(60, 1, 64, 128)'), ('label', 'tile 3'),
    ('nan', 'nan'), ('fraction', '0.5'), ('bright', '256'), ('pickle', 'pickle'), ('empty', '0 tiles'),
    ('huge', '800,000 tiles')])
def test_bad_data(inside, mars, tmp_path, kind, word):
    refused(inside('data', 'info', broken(kind, mars, tmp_path)), 'bad.npz', word)


@pytest.mark.parametrize('text, words', [('epoch: 3', 'did you mean epochs?'), ('model: unett', 'did you mean unet?'), ('lr: high', 'lr must be a number'),
    ('a: [', 'line'), ('out: /proc/none', '/proc/none')])
def test_bad_recipe(marsnb, tmp_path, text, words):
    (tmp_path/'r.yml').write_text(text)
    refused(marsnb('train', 'r.yml'), *([words] if isinstance(words, str) else words))
    assert not list(tmp_path.rglob('record.json'))


def test_bad_prediction(marsnb, mars, tmp_path):
    (tmp_path/'x.keras').write_text('no network'); (tmp_path/'predictions.npz').write_text('mine')
    refused(marsnb('predict', '--model', 'x.keras', '--data', mars), 'x.keras')
    refused(marsnb('predict', '--model', 'nowhere.keras', '--data', mars), 'nowhere.keras')
    refused(marsnb('predict', '--model', 'x.keras', '--data', 'nowhere.npz'), 'nowhere.npz')
    refused(marsnb('predict', '--model', 'x.keras', '--data', mars, '--out', '/proc/none/p.npz'), '/proc/none')
    assert (tmp_path/'predictions.npz').read_text() == 'mine'


def test_predictions_replace_nothing_that_they_are_made_from(inside, mars, tmp_path):
    (tmp_path/'mars.npz').write_bytes(mars.read_bytes()); (tmp_path/'link.npz').symlink_to('mars.npz'); (tmp_path/'x.keras').write_text('no network')
    for named in ('--out', 'mars.npz'), ('--submission', 'link.npz'), ('--out', 'x', '--submission', './x'), ('--model', 'x.keras', '--out', 'x.keras'):
        refused(inside('predict', '--data', 'mars.npz', *named), 'files of their own')
    assert (tmp_path/'mars.npz').read_bytes() == mars.read_bytes() and (tmp_path/'x.keras').read_text() == 'no network' and len(list(tmp_path.iterdir())) == 3


def test_predictions_without_room(marsnb, mars, tmp_path):
    "Files may only grow to a kilobyte."
    unet((64, 128, 1), 5, widths=(4, 8)).save(tmp_path/'x.keras')
    r = marsnb('predict', '--model', 'x.keras', '--data', mars, '--submission', 's.csv', preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE,
        (1024,) * 2))
    assert r.returncode == 1 and len(r.stderr.splitlines()) == 1 and 'File too large' in r.stderr, r.stderr
    assert [p.name for p in tmp_path.iterdir()] == ['x.keras']


@pytest.mark.parametrize('command', [('sweep', 'default', '--dry-run', '--workers', -1), ('sweep', 'default', '--dry-run', '--gpu', 'nan'),
    ('report', 'nowhere', '--gpu', -1), ('reproduce', 'nowhere', '--tolerance', -1)])
def test_a_number_out_of_range(inside, command):
    r = inside(*command)
    assert r.returncode == 2 and command[-2] in r.stderr and 'Invalid value' in r.stderr and 'Traceback' not in r.stderr, r.stderr


def test_help(marsnb):
    r = marsnb('--help')
    assert r.returncode == 0 and all(c in r.stdout for c in ('train', 'report', 'predict', 'data'))
