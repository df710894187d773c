"`marsnb data convert` is stopped, killed, has no room or may not write: there is what was there before, or all of the new; and the next call goes on."
import ctypes, os, resource, signal, subprocess

import cv2
import numpy as np
import pytest

from conftest import BIN
from marsnb import convert
from test_sweep import until


@pytest.fixture(scope='module')
def release(tmp_path_factory):
    "A release of 3200 frames, thirteen blocks of them: one picture under many names, enough for a conversion to be stopped midway."
    d, r = tmp_path_factory.mktemp('release'), np.random.default_rng(0)
    for where, x in ('images/edr', r.integers(0, 256, (128, 128), np.uint8)), ('labels/train', np.repeat(r.integers(0, 4, (8, 128), np.uint8), 16, 0)):
        (d/'msl'/where).mkdir(parents=True)
        cv2.imwrite(str(d/'x.png'), x)
        for i in range(3200): os.link(d/'x.png', d/'msl'/where/f'NLA_{i:09d}EDR_F{51000 + i:07d}NCAM00355M1.png')
        (d/'x.png').unlink()
    return d


@pytest.fixture(scope='module')
def wanted(release, tmp_path_factory):
    "What the command is to leave, made without a fault."
    d = tmp_path_factory.mktemp('wanted')
    convert.convert(release, d/'mars.npz')
    return files(d)


@pytest.fixture
def before(tmp_path):
    "What another conversion left, to stay until the new one is whole."
    for name in ('mars.npz', 'mars_groups.npz'): (tmp_path/name).write_text(f'the old {name}')
    return files(tmp_path)


def files(folder): return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def start(release, out, **more):
    return subprocess.Popen([BIN/'marsnb', 'data', 'convert', release, out], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def test_stopped_and_killed(release, wanted, before, tmp_path):
    parts = lambda name: list(tmp_path.glob(f'.mars.npz.*.parts/{name}'))
    for number, code, begun in ((signal.SIGTERM, 143, '000000.npz'), (signal.SIGINT, 130, '000256.npz'), (signal.SIGKILL, -9, '.*-tiles.npz')):
        p = start(release, tmp_path/'mars.npz')
        until(lambda: parts(begun) or p.poll() is not None)
        done = len(parts('[0-9]*.npz'))
        p.send_signal(number)
        out, err = p.communicate()
        assert (p.returncode, out, err.strip()) == (code, '', '') and files(tmp_path) == before, (err, done)
        assert number == signal.SIGKILL or not parts('.*'), 'a half-written block'
    assert done == 13, 'none of them is made twice'
    (tmp_path/'.mars.npz.0123456789ab.parts').mkdir()  # of a conversion with other settings that nobody finished
    p = start(release, tmp_path/'mars.npz')
    assert not p.communicate()[1] and p.returncode == 0
    assert files(tmp_path) == wanted and len(list(tmp_path.iterdir())) == 2


def test_a_full_disk(release, before, tmp_path):
    "Files may only grow to 1 MB: no block fits."
    p = start(release, tmp_path/'mars.npz', preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2**20,) * 2))
    err = p.communicate()[1]
    assert p.returncode == 1 and len(err.splitlines()) == 1 and 'File too large' in err and '000000.npz' in err
    assert files(tmp_path) == before and not [f for f in tmp_path.rglob('.*') if f.is_file()]


def unprivileged():
    "Root, too, may only write where permissions say so."
    ctypes.CDLL(None).prctl(24, 1)  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE


def test_a_read_only_folder(release, tmp_path):
    (tmp_path/'out').mkdir(0o555)
    p = start(release, tmp_path/'out'/'mars.npz', preexec_fn=unprivileged)
    err = p.communicate()[1]
    assert p.returncode == 2 and 'cannot be written to' in err and len(err.splitlines()) == 1 and not list((tmp_path/'out').iterdir())
