"`marsnb reproduce`: the run of a record once more, bit for bit; other data are refused, other figures are told."
import json, os, subprocess

import pytest, yaml

from conftest import BIN
from test_sweep import TINY
from marsnb.data import save, synthetic


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    "The record of a tiny run, and what starts `marsnb` in its folder."
    d = tmp_path_factory.mktemp('made')
    save(d/'mars.npz', synthetic(60, 6))
    (d/'r.yml').write_text(yaml.safe_dump({'team': 'scratch', 'row': 'tiny', **TINY, 'epochs': 2}))
    (d/'tmp').mkdir()
    def run(*args, **env):
        env = os.environ | {'MARSNB_DATA': str(d/'mars.npz'), 'MARSNB_RUNS': str(d/'runs'), 'TMPDIR': str(d/'tmp')} | env
        return subprocess.run([BIN/'marsnb', *map(str, args)], cwd=d, env=env, capture_output=True, text=True, timeout=600)
    r = run('train', 'r.yml')
    assert r.returncode == 0, r.stderr
    return next((d/'runs').rglob('record.json')), run


def test_the_same_again(made):
    record, run = made
    before = {p: p.stat().st_mtime_ns for p in record.parents[4].rglob('*')}
    r = run('reproduce', record.parent)
    assert r.returncode == 0 and 'the same, to the bit' in r.stdout, r.stdout + r.stderr
    assert {p: p.stat().st_mtime_ns for p in before} == before, 'nothing that was there has changed'
    assert not [p for p in (record.parents[5]/'tmp').glob('marsnb-*')], 'the second run leaves nothing'


def test_other_data_are_refused(made, tmp_path):
    record, run = made
    r = run('reproduce', record, MARSNB_DATA='')
    assert r.returncode == 2 and 'other data' in r.stderr and len(r.stderr.strip().splitlines()) == 1, r.stderr
    assert run('reproduce', tmp_path).returncode == 2


@pytest.mark.parametrize('device, by, tolerance, code', [('the same', .01, .05, 1), ('another', .01, .05, 0), ('another', .01, .001, 1),
    ('another', .2, .05, 1)])
def test_other_figures_are_told(made, tmp_path, monkeypatch, device, by, tolerance, code):
    from click.testing import CliRunner
    from marsnb import cli, page, runs
    record = json.loads(made[0].read_text())
    def other(recipe, bar):
        new = json.loads(json.dumps(record))
        new['result']['test']['miou'] += by
        if device == 'another': new['environment']['device'] = device
        runs.folder(recipe).mkdir(parents=True)
        (runs.folder(recipe)/'record.json').write_text(json.dumps(new))
    monkeypatch.setattr(page, 'run', other)
    r = CliRunner().invoke(cli.cli, ['reproduce', str(made[0]), '--data', str(made[0].parents[5]/'mars.npz'), '--tolerance', str(tolerance)])
    assert r.exit_code == code and 'test miou' in r.output and ('NOT the same' in r.output) == bool(code), r.output
    assert ('device' in r.output) == (device == 'another'), r.output


def test_a_recipe_that_changed_is_told(made, tmp_path, monkeypatch):
    "Trained again after an edit, a row says that the record there is of another version, which stays until the new one is whole."
    from click.testing import CliRunner
    from marsnb import cli, page, recipes, runs
    monkeypatch.setattr(runs, 'RUNS', tmp_path); monkeypatch.delenv('MARSNB_DATA', raising=False); monkeypatch.delenv('MARSNB_RUNS', raising=False)
    home = runs.folder(recipes.load(recipes.RECIPES/'hendrix'/'baseline.yml')); home.mkdir(parents=True)
    (home/'record.json').write_text(json.dumps(json.loads(made[0].read_text()) | {'digest': 'edited'}))
    monkeypatch.setattr(page, 'run', lambda recipe, *args, **kwargs: None)
    r = CliRunner().invoke(cli.cli, ['train', 'hendrix/baseline'])
    assert r.exit_code == 0 and 'another version of the recipe' in r.output, r.output
