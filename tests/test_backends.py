"A recipe under JAX with no TensorFlow to be found, and its network read by TensorFlow."
import importlib.util, json, os, subprocess, sys

import numpy as np
import pytest

from conftest import ROOT

TRAIN = '''
import sys
sys.modules['tensorflow'] = None  # as if it were not installed
import dataclasses, json, keras, numpy as np
from marsnb import infer, recipes, runs
recipe = recipes.Recipe(team='ours', row='tiny', widths=[4], epochs=2, clean=[], out=sys.argv[1],
    augment={'flips': 1, 'rock_paste': 1}, ema=.9, consistency={'confidence': .3, 'augment': {'cutmix': 1}}, adaptive={'alpha': .1},
    losses={'ce': 1, 'lovasz': .5}, schedule='cosine', optimizer_args={'clipnorm': 1.}, tta=['flips'], temperature=True, post=['components'])
ready = recipes.prepare(recipe)
parts = ready.parts._replace(train=ready.parts.train[:32], val=ready.parts.val[:8], test=ready.parts.test[:8])
ready = ready._replace(tiles=ready.tiles._replace(unlabelled=ready.tiles.unlabelled[:8]), parts=parts, ids=parts.train)
record = runs.make_record(recipe, ready)
assert record['environment']['backend'] == 'jax'
net = infer.open_model(runs.work_folder(recipe)/'best.keras')
np.save(sys.argv[1] + '/said.npy', infer.probabilities(net, ready.tiles.unlabelled))
np.save(sys.argv[1] + '/seen.npy', ready.tiles.unlabelled)
print(json.dumps(record['result']['test']))
'''


@pytest.mark.soak
@pytest.mark.skipif(not importlib.util.find_spec('jax'), reason='JAX is not installed')
def test_jax_alone(tmp_path):
    env = {k: v for k, v in os.environ.items() if k != 'MARSNB_DATA'} | {'KERAS_BACKEND': 'jax', 'PYTHONPATH': str(ROOT),
        'XLA_FLAGS': '--xla_backend_optimization_level=0', 'JAX_COMPILATION_CACHE_DIR': str(tmp_path/'programs')}  # compiled once, run once
    said, programs = [], []
    for place in ('a', 'b'):
        (tmp_path/place).mkdir()
        r = subprocess.run([sys.executable, '-c', TRAIN, str(tmp_path/place)], env=env, capture_output=True, text=True)
        assert r.returncode == 0, r.stderr[-3000:]
        said.append(json.loads(r.stdout.splitlines()[-1]))
        programs.append({f.name for f in (tmp_path/'programs').iterdir() if f.name.endswith('-cache')})
    assert programs[0] == programs[1] and any('train_step' in name for name in programs[0]), 'what is compiled is kept'
    assert said[0] == said[1], 'the same seed gives the same figures under JAX, too'
    from marsnb import infer
    best, = (tmp_path/'a').rglob('best.keras')
    with_tf = infer.probabilities(infer.open_model(best), np.load(tmp_path/'a'/'seen.npy'))
    assert np.abs(with_tf - np.load(tmp_path/'a'/'said.npy')).max() < 1e-5


SHARE = '''
import json, sys
from types import SimpleNamespace
import numpy as np
from marsnb import recipes, train
from marsnb.data import synthetic
tiles = synthetic(32, 8, 0)
recipe = recipes.make({'widths': [4, 4], 'augment': {'flips': 1}, 'batch': 16})
def losses(devices, free, last=32):
    train.deterministic(0)
    train.free_memory = lambda: free
    with train.data_parallel(devices):
        model = train.Resident(recipes.build(recipe), tiles.images, tiles.masks, recipes.loss(recipe), recipes.augmentation(recipe))
        history = train.fit(model, SimpleNamespace(train=np.arange(24), val=np.arange(24, last)), epochs=2, batch=16)
        return [h[k] for h in history for k in ('loss', 'val_loss')], 0 if model.streamed else len(model.images.value.sharding.device_set)
print(json.dumps([losses(devices, free) for free in (float('inf'), 0) for devices in (1, 2)] + [losses(2, float('inf'), last=31)]))
'''


@pytest.mark.soak
@pytest.mark.skipif(not importlib.util.find_spec('jax'), reason='JAX is not installed')
def test_a_batch_shared_by_two_devices():
    env = os.environ | {'KERAS_BACKEND': 'jax', 'PYTHONPATH': str(ROOT),
        'XLA_FLAGS': '--xla_backend_optimization_level=0 --xla_force_host_platform_device_count=2'}
    env['NPROC'] = '8'  # threads for XLA: with as many as cores, two devices that wait for each other can take all there are on a machine of two
    r = subprocess.run([sys.executable, '-c', SHARE], env=env, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr[-3000:]
    (one, on), (two, both), *streamed, (odd, _) = json.loads(r.stdout.splitlines()[-1])
    assert (on, both) == (1, 2) and np.allclose(one, two, rtol=0, atol=1e-5) and one[0] > one[2]
    assert odd[::2] == two[::2] and np.isfinite(odd).all(), 'a tile more is needed to share the validation tiles evenly'
    assert streamed == [[one, 0], [two, 0]], 'tiles that do not fit are streamed, with the same losses'
    assert r.stderr.count('sent there batch by batch') == 2


ROWS = '''
import sys
sys.modules['tensorflow'] = None
import dataclasses, json, keras
from marsnb import recipes, summary
from marsnb.data import synthetic
rows = {f'{p.parent.name}/{p.stem}': recipes.load(p) for p in recipes.RECIPES.glob('*/*.yml')}
networks = {str([r.model, r.widths, r.model_args]): row for row, r in rows.items() if recipes.trains(r)}  # rows that share a network train it once
for row in networks.values():
    keras.utils.set_random_seed(0)
    print(row, *summary.train_briefly(recipes.build(dataclasses.replace(rows[row], width=4)), synthetic(8, 1), epochs=3), flush=True)
'''


@pytest.mark.soak
@pytest.mark.skipif(not importlib.util.find_spec('jax'), reason='JAX is not installed')
def test_the_networks_of_all_rows_learn_under_jax():
    env = os.environ | {'KERAS_BACKEND': 'jax', 'PYTHONPATH': str(ROOT), 'XLA_FLAGS': '--xla_backend_optimization_level=0'}
    r = subprocess.run([sys.executable, '-c', ROWS], env=env, capture_output=True, text=True)
    assert r.returncode == 0, r.stderr[-3000:]
    losses = {row: [float(v) for v in said] for row, *said in map(str.split, r.stdout.splitlines())}
    assert len(losses) > 30 and not [row for row, said in losses.items() if not said[-1] < said[0]]
