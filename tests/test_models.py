"""Every architecture, at tiny widths: builds, learns, is saved and read by the other backend, and refuses what does not fit."""
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from functools import partial

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest

from marsnb import blocks as B, summary
from marsnb.core import MarsError
from marsnb.data import synthetic
from marsnb.models import all as models

EVERY = [f for f in vars(models).values() if inspect.isfunction(f)]
# what the architectures do not use by default: each block, attention, gate and option in some network of its own
VARIANTS = {
    'group': partial(models.unet, block=partial(B.double, norm=B.group, after=[B.se, B.spatial_drop]), stem=B.denoise, l2=1e-4),
    'layer': partial(models.unet, block=partial(B.res, norm=B.layer), bridge=partial(B.pyramid, bins=(1, 2)), merge=B.gate_add, down=B.down_blur),
    'instance': partial(models.unet, block=partial(B.multi, norm=B.instance), bridge=partial(B.dilated, after=[B.se, B.drop]), patch=2),
    'modules': partial(models.double_unet, bridge=partial(B.inception, after=[B.se, B.context, B.automaton]),
    micro_bridge=partial(B.double, after=[B.context])),
    'deep': partial(models.unet_pp, deep=True),
    'guided': partial(models.unet3plus, deep=True, guided=True, attn=B.se, filt=partial(B.conv, norm=None, act=None)),
}
NETWORKS = {f.__name__: f for f in EVERY} | VARIANTS
WIDTHS, SHAPE = (4, 8), (32, 64, 1)
OTHER = {'tensorflow': 'jax', 'jax': 'tensorflow'}.get(keras.backend.backend())
READ = """
import sys, glob, numpy as np, keras
assert 'marsnb' not in sys.modules
for path in sorted(glob.glob(sys.argv[1] + '/*.keras')):
    model = keras.models.load_model(path)  # safe_mode, no module of ours
    got = model.predict_on_batch(np.load(sys.argv[1] + '/x.npy'))
    got = got if isinstance(got, list) else [got]
    want = np.load(path.replace('.keras', '.npz'))
    chances = lambda x: np.asarray(keras.ops.softmax(x))
    apart = max(float(np.abs(chances(g) - chances(want[k])).max()) for g, k in zip(got, want))
    print(keras.backend.backend(), path, apart)
"""


@pytest.fixture(scope='module')
def tiles():
    t = synthetic(8, 1)
    return t._replace(images=t.images[:, ::2, ::2], masks=t.masks[:, ::2, ::2])


@pytest.mark.parametrize('name', NETWORKS)
def test_learns(name, tiles):
    keras.utils.set_random_seed(1)
    model = NETWORKS[name](SHAPE, 5, widths=WIDTHS)
    loss = summary.train_briefly(model, tiles, epochs=4)
    assert np.isfinite(loss).all() and loss[-1] < loss[0]
    summary.plot_model(model, ax := plt.figure().subplots()); assert model.name in ax.get_title(); plt.close()
    out = model(tiles.images[:2, ..., None] / np.float32(255), training=False)
    assert all(o.shape == (2, 32, 64, 5) and o.dtype == 'float32' for o in (out if isinstance(out, list) else [out]))


@pytest.mark.soak  # the other backend compiles every architecture
@pytest.mark.skipif(not OTHER or not importlib.util.find_spec(OTHER), reason='the other backend is not installed')
def test_other_backend_reads_the_same(tiles, tmp_path):
    x = tiles.images[:2, ..., None] / np.float32(255)
    np.save(tmp_path/'x.npy', x)
    for name, f in NETWORKS.items():
        keras.utils.set_random_seed(1)
        model = f(SHAPE, 5, widths=WIDTHS)
        summary.train_briefly(model, tiles, epochs=1)
        out = model(x, training=False)
        model.save(tmp_path/f'{name}.keras')
        np.savez(tmp_path/f'{name}.npz', *[np.asarray(o) for o in (out if isinstance(out, list) else [out])])
    env = {**os.environ, 'KERAS_BACKEND': OTHER, 'TF_CPP_MIN_LOG_LEVEL': '3', 'XLA_FLAGS': '--xla_backend_optimization_level=0'}  # compiled once, run once
    r = subprocess.run([sys.executable, '-c', READ, str(tmp_path)], capture_output=True, text=True, env=env)
    assert r.returncode == 0, r.stderr[-2000:]
    said = [line.split() for line in r.stdout.splitlines() if line.startswith(OTHER)]
    assert len(said) == len(NETWORKS) and not {path: d for _, path, d in said if not float(d) < 1e-5}


@pytest.mark.parametrize('f', EVERY, ids=lambda f: f.__name__)
def test_sizes_and_channels(f):
    assert f((24, 40, 3), 4, widths=(4, 4)).outputs[0].shape == (None, 24, 40, 4)
    with pytest.raises(MarsError) as e: f((30, 50, 1), 5, widths=(2, 2, 2, 2))
    sizes = re.findall(r'\d+x\d+', str(e.value).split('take')[1])
    assert sizes and '\n' not in str(e.value)
    h, w = map(int, sizes[-1].split('x'))
    assert f((h, w, 1), 5, widths=(2, 2, 2, 2)).input_shape == (None, h, w, 1)


@pytest.mark.parametrize('f', EVERY, ids=lambda f: f.__name__)
@pytest.mark.parametrize('bad', [{'widths': (4, 0)}, {'widths': ()}, {'widths': (4,) * 9}, {'widths': 4}, {'n_classes': 0}, {'shape': (32, 64)},
    {'blok': B.res}, {'block': 'res'}],
                         ids=lambda b: '-'.join(f'{k}={v}'[:20] for k, v in b.items()))
def test_refuses_before_anything_is_built(f, bad, monkeypatch):
    monkeypatch.setattr(keras, 'Input', lambda *a, **k: pytest.fail('something was built'))
    with pytest.raises(MarsError) as e: f(**{'shape': SHAPE, 'n_classes': 5} | bad)
    assert '\n' not in str(e.value)
    if 'blok' in bad: assert 'did you mean block' in str(e.value)
