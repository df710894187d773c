"From recipe to record through papermill: from the record alone, the same after a kill; and predictions from what a run leaves."
import json, os, shutil, signal, subprocess, time

import nbformat
import numpy as np
import pytest
import yaml

from conftest import BIN, ROOT, copied
from marsnb.data import load, save, synthetic

TEMPLATE = ROOT/'nbs'/'experiments'/'train.ipynb'


@pytest.fixture(scope='module')
def mars(tmp_path_factory):
    path = tmp_path_factory.mktemp('mars')/'mars.npz'
    save(path, synthetic(120, 9))
    return path


def command(mars, out, page, **more):
    (out).mkdir(parents=True, exist_ok=True)
    (out/'override.yml').write_text(yaml.safe_dump({'data': str(mars), 'out': str(out), 'width': 4, 'epochs': 12, 'tta': ['flips'], 'temperature': True,
        'thresholds': True, 'post': ['borders'], 'predict_background': False, **more}))
    return [BIN/'papermill', TEMPLATE, page, '-f', ROOT/'nbs'/'experiments'/'recipes'/'hendrix'/'baseline_no_aug.yml', '-f', out/'override.yml',
        '--no-progress-bar', '--cwd', TEMPLATE.parent]


def papermill(mars, out, page, **more):
    r = subprocess.run(command(mars, out, page, **more), capture_output=True, text=True)
    return r, [json.loads(p.read_text()) for p in out.rglob('record.json')]


@pytest.fixture(scope='module')
def run(mars, tmp_path_factory):
    out = tmp_path_factory.mktemp('run')
    r, (record,) = papermill(mars, out, out/'page.ipynb')
    assert r.returncode == 0, r.stderr[-2000:]
    return out, record


def test_page_from_record_without_training(run, mars, tmp_path):
    home = next(run[0].rglob('record.json')).parent
    before = (home/'record.json').stat().st_mtime_ns
    weights, = run[0].rglob('best.keras'); kept = weights.stat().st_mtime_ns
    r, _ = papermill(mars, run[0], tmp_path/'page.ipynb')
    assert r.returncode == 0 and (home/'record.json').stat().st_mtime_ns == before and weights.stat().st_mtime_ns == kept
    pictures = lambda p: [o.data['image/png'] for c in nbformat.read(p, 4).cells for o in c.get('outputs', []) if 'image/png' in o.get('data', {})]
    assert pictures(tmp_path/'page.ipynb') == pictures(run[0]/'page.ipynb') != []


def test_unknown_parameter_stops_the_notebook(mars, tmp_path):
    r, records = papermill(mars, tmp_path, tmp_path/'page.ipynb', epohcs=3)
    assert r.returncode != 0 and 'did you mean epochs?' in r.stderr and not records


def test_a_package_that_cannot_be_imported(tmp_path):
    d = copied(tmp_path/'marsnb', 'marsnb', 'nbs/experiments', 'pyproject.toml', 'requirements.lock')
    (d/'marsnb'/'models'/'context.py').write_text('kears.Input')
    r = subprocess.run([BIN/'marsnb', 'train', 'hendrix/baseline_no_aug'], cwd=d, env=os.environ | {'PYTHONPATH': str(d), 'MARSNB_DATA': ''},
        capture_output=True, text=True)
    assert r.returncode == 1 and 'context.py' in r.stderr and "name 'kears' is not defined" in r.stderr and len(r.stderr.strip().splitlines()) == 1, r.stderr


def test_trained_again_when_asked(marsnb, mars, tmp_path):
    (tmp_path/'r.yml').write_text('{team: scratch, row: tiny, widths: [2, 4], epochs: 1}')
    train = lambda *more: marsnb('train', 'r.yml', *more, MARSNB_DATA=str(mars))
    first, second = train(), train()
    assert first.returncode == second.returncode == 0 and 'done before' not in first.stdout
    assert second.stdout.strip() == first.stdout.splitlines()[0] + '; done before'
    next(tmp_path.rglob('best.keras')).unlink()
    assert train().stdout.strip().endswith('its network is not here: --again trains it anew')
    path, = tmp_path.rglob('record.json'); record = json.loads(path.read_text()); record['environment']['code'] = 'another'; path.write_text(json.dumps(record))
    assert '--again' in train().stdout and train('--again').stdout == first.stdout and json.loads(path.read_text())['environment']['code'] != 'another'


@pytest.mark.soak
def test_killed_run_goes_on_and_ends_alike(run, mars, tmp_path):
    p = subprocess.Popen(command(mars, tmp_path, tmp_path/'page.ipynb'), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        env=os.environ | {'MARSNB_SAVE_SECONDS': '0'})
    try:
        deadline = time.monotonic() + 240
        while not (found := list(tmp_path.rglob('state-*.npz'))) and time.monotonic() < deadline: time.sleep(.05)
        assert found, 'no state was saved'
    finally: os.killpg(p.pid, signal.SIGKILL); p.wait()
    assert not list(tmp_path.rglob('record.json'))
    r, (resumed,) = papermill(mars, tmp_path, tmp_path/'page.ipynb')
    assert resumed['result'] == run[1]['result'] and not list(tmp_path.rglob('state-*.npz'))


def test_predict(run, mars, tmp_path):
    weights, = run[0].rglob('best.keras')
    r = subprocess.run([BIN/'marsnb', 'predict', '--model', weights, '--data', mars, '--out', tmp_path/'p.npz', '--submission', tmp_path/'s.csv'],
        capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    p = np.load(tmp_path/'p.npz')['predictions']
    assert p.shape == (9, 64, 128) and p.dtype == np.uint8
    kept = np.load(next(run[0].rglob('unlabelled.npz')))['predictions']
    assert np.array_equal(p, kept), 'the command predicts what the run predicted'
    header, *rows = (tmp_path/'s.csv').read_text().splitlines()
    assert header == ','.join(['id', *map(str, range(8192))]) and len(rows) == 9
    assert np.array_equal(np.array(rows[4].split(',')[1:], int).reshape(64, 128), p[4])


def test_paths_are_those_of_the_user(marsnb, mars, tmp_path):
    shutil.copy(mars, tmp_path/'mars.npz')
    about = 'team: scratch, row: here, out: results, clean: [], widths: [2], epochs: 1'
    (tmp_path/'named.yml').write_text(f'{{{about}, data: mars.npz}}')
    (tmp_path/'meant.yml').write_text(f'{{{about}, lr: 0.1}}')
    for r in (marsnb('train', 'named.yml'), marsnb('train', 'meant.yml', MARSNB_DATA='mars.npz')): assert r.returncode == 0, r.stderr
    assert len(list((tmp_path/'results'/'mars-quick').rglob('record.json'))) == 2


@pytest.mark.real
def test_real_file():
    tiles = load(os.environ['MARSNB_DATA'])
    from marsnb import clean
    assert tiles.images.shape == (2615, 64, 128) and len(clean.outliers(tiles.images, tiles.masks)) == 110
