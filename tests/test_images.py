"`marsnb predict` on images: whatever they are, whatever lies in the way; one clear line, nothing of the user's overwritten."
import csv

import cv2, keras, numpy as np, pytest

from marsnb import cli, images, machine
from marsnb.data import synthetic
from marsnb.models.unet import unet


@pytest.fixture(scope='module')
def tiles():
    return synthetic(8, 2).images


@pytest.fixture(scope='module')
def net(tmp_path_factory):
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp('net')/'net.keras'
    unet((64, 128, 1), 5, widths=(4, 8)).save(path)
    return path


@pytest.fixture
def predict(inside, net):
    "Runs `marsnb predict` in an empty folder, in this process; gives exit code, stdout and stderr."
    def run(*args, model=net):
        r = inside('predict', *args, *(['--model', model] if model else []))
        return r.returncode, r.stdout, r.stderr
    return run


def put(path, a):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), a)
    return path


def labels(path): return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def table(folder):
    with open(folder/'areas.csv', newline='') as f: return list(csv.DictReader(f))


def turned(a):
    "The JPEG of `a` with an EXIF that says: shown, I stand a quarter turn to the right."
    jpeg = cv2.imencode('.jpg', a)[1].tobytes()
    tiff = b'II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0'
    return jpeg[:2] + b'\xff\xe1' + (len(tiff) + 8).to_bytes(2, 'big') + b'Exif\0\0' + tiff + jpeg[2:]


def test_images_of_every_kind(marsnb, net, tiles, tmp_path):
    "In a process of its own, as a user would; grey, colour, 16 bits, alpha, turned, tiny, flat, of one name; one is broken."
    t = tiles[0]
    kinds = {'grey.png': t, 'colour.jpg': np.dstack([t, t // 2, t]), 'deep.tif': np.uint16(t) * 16, 'clear.png': np.dstack([t] * 4), 'tiny.bmp': t[:3, :5],
        'flat.webp': np.tile(t[:9], (1, 5)), 'same/grey.png': tiles[1], 'grey.jpg': t[:, :77]}
    for name, a in kinds.items(): put(tmp_path/'in'/name, a)
    (tmp_path/'in'/'turned.jpg').write_bytes(turned(t)); (tmp_path/'in'/'broken.png').write_bytes((tmp_path/'in'/'grey.png').read_bytes()[:-200])
    (tmp_path/'in'/'notes.txt').write_text('no picture')
    r = marsnb('predict', 'in', 'in/same', '--model', net, '--sure', 0)
    assert r.returncode == 1 and [l for l in r.stderr.splitlines() if 'whole frame' not in l] == ['in/broken.png: not a readable picture'], r.stderr
    assert {l.partition(': ')[0] for l in r.stderr.splitlines() if 'whole frame' in l} == {f'in/{n}' for n in ('flat.webp', 'grey.jpg', 'tiny.bmp',
        'turned.jpg')}, 'which have another shape or are too small'
    assert r.stdout.splitlines() == ['terrain: 9 maps and areas.csv; 1 of 10 images skipped']
    shapes = {n: labels(tmp_path/'terrain'/f'{n}_labels.png').shape for n in ('grey', 'grey-2', 'grey-3', 'colour', 'deep', 'clear', 'tiny', 'flat', 'turned')}
    assert shapes == {'grey': (64, 77), 'grey-2': (64, 128), 'grey-3': (64, 128), 'colour': (64, 128), 'deep': (64, 128), 'clear': (64, 128), 'tiny': (3, 5),
        'flat': (9, 640), 'turned': (128, 64)}
    assert len(list((tmp_path/'terrain').iterdir())) == 2 * 9 + 1 and not [p for p in tmp_path.rglob('*') if p.name.startswith('.')]
    expected = images.infer.predict(images.load_predictor(net).net, t[None])[0]
    # an image of one tile gets what the tile gets
    for n in ('grey-2', 'deep', 'clear'): assert (labels(tmp_path/'terrain'/f'{n}_labels.png') == expected).mean() > .999, n
    rows = table(tmp_path/'terrain')
    for n, (high, wide) in shapes.items(): assert sum(int(r['pixels']) for r in rows if r['output'] == n) == high * wide
    assert {r['file'] for r in rows if r['output'] == 'grey-3'} == {'../in/same/grey.png'}


def test_mask_scale_and_probabilities(predict, tiles, tmp_path):
    stem = 'NLA_411614926EDR_F0051986NCAM00355M1'
    put(tmp_path/'edr'/f'{stem}.JPG', np.kron(tiles[:2].reshape(128, 128), np.ones((2, 2), np.uint8))); put(tmp_path/'edr'/'other.png', tiles[0])
    rover, far = np.zeros((2, 256, 256), np.uint8); rover[200:, :50] = 1; far[:30] = 255
    put(tmp_path/'mxy'/f'{stem.replace("EDR", "MXY")}.png', rover); put(tmp_path/'rng'/f'{stem.replace("EDR", "RNG")}.png', far)
    code, _, err = predict('edr', '--mask', 'mxy', '--mask', 'rng', '--sure', 0, '--scale', .5, '--probabilities', '--tta', '--out', 'maps')
    assert code == 0 and 'other.png: no mask of its name; assessed as a whole' in err
    assert np.array_equal(labels(tmp_path/'maps'/f'{stem}_labels.png') == 255, (rover | far) > 0) and (labels(tmp_path/'maps'/'other_labels.png') < 5).all()
    p = np.load(tmp_path/'maps'/f'{stem}_probabilities.npz')['probabilities']
    assert p.shape == (128, 128, 5) and np.allclose(p.astype(float).sum(-1), 1,
        atol=.01) and np.load(tmp_path/'maps'/'other_probabilities.npz')['probabilities'].shape == (32, 64, 5)
    assert predict('edr', '--sure', 1, '--no-background', '--out', 'unsure')[0] == 0 and (labels(tmp_path/'unsure'/'other_labels.png') == 255).all()
    assert predict('edr', '--sure', 0, '--no-background', '--out', 'unsure')[0] == 0 and labels(tmp_path/'unsure'/'other_labels.png').min() > 0


def test_a_second_call(predict, tiles, tmp_path):
    "Maps again under the same names, keeps what other images gave, writes over nothing that is not its own."
    put(tmp_path/'a'/'x.png', tiles[0]); put(tmp_path/'b'/'x.png', tiles[1])
    assert predict('a')[0] == 0 and predict('b/x.png')[0] == 0
    first = labels(tmp_path/'terrain'/'x_labels.png')
    assert {(r['file'], r['output']) for r in table(tmp_path/'terrain')} == {('../a/x.png', 'x'), ('../b/x.png', 'x-2')}
    code, out, _ = predict('b', 'a')
    assert code == 0 and np.array_equal(labels(tmp_path/'terrain'/'x_labels.png'), first) and len(table(tmp_path/'terrain')) == 14
    mine = put(tmp_path/'mine'/'x_map.png', tiles[2]); kept = mine.read_bytes()
    code, _, err = predict('a', '--out', 'mine')
    assert code == 2 and 'x_map.png' in err and mine.read_bytes() == kept and len(list(mine.parent.iterdir())) == 1
    mine.rename(tmp_path/'mine'/'areas.csv')
    code, _, err = predict('a', '--out', 'mine')
    assert code == 2 and 'areas.csv' in err and (tmp_path/'mine'/'areas.csv').read_bytes() == kept


@pytest.mark.parametrize('args, word', [((), 'name images'), (('x.png', '--data', 'mars.npz'), 'name images'), (('nowhere.png',), 'nowhere.png'),
    (('empty',), 'empty'), (('x.png', '--mask', 'nowhere'), 'nowhere'),
    (('x.png', '--mask', 'in'), 'in: no mask'), (('x.png', '--scale', 0), '--scale'),
    (('x.png', '--scale', 'nan'), '--scale'), (('x.png', '--scale', 900), '--scale'), (('x.png', '--sure', 2), '--sure'),
    (('x.png', '--submission', 's.csv'), '--submission'), (('--data', 'mars.npz', '--scale', 1), '--scale'),
    (('x.png', '--out', 'x.png'), 'x.png'), (('in', '--out', 'in'), 'holds the images'),
    (('bad.png',), 'none of 1'), (('x.png', '--mask', 'tall.png'), 'another shape')])
def test_refused(predict, tiles, tmp_path, args, word):
    put(tmp_path/'x.png', tiles[0]); put(tmp_path/'in'/'y.png', tiles[0]); put(tmp_path/'tall.png', tiles[0].T); (tmp_path/'empty').mkdir()
    (tmp_path/'bad.png').write_text('no picture')
    before = {p: p.read_bytes() for p in tmp_path.rglob('*') if p.is_file()}
    code, out, err = predict(*args)
    assert code == 2 and word in err and 'Traceback' not in err and 1 <= len(err.splitlines()) <= 2, err
    assert {p: p.read_bytes() for p in tmp_path.rglob('*') if p.is_file()} == before


def test_defaults_agree():
    assert next(o.help for o in cli.predict.params if o.name == 'sure').endswith(f'[default: {images.MIN_PROBABILITY}]')


def test_no_network_is_said(predict, tiles, tmp_path, monkeypatch):
    monkeypatch.setattr(images, 'FLAGSHIP', tmp_path/'none.keras')
    put(tmp_path/'x.png', tiles[0])
    code, _, err = predict('x.png', model=None)
    assert code == 2 and '--model' in err and len(err.splitlines()) == 1
    code, _, err = predict('x.png', model='x.png')
    assert code == 2 and 'x.png: not a network' in err and len(err.splitlines()) == 1


def test_a_very_wide_image_takes_little_more_than_its_bytes(predict, net, tiles, tmp_path):
    wide = put(tmp_path/'wide.png', cv2.resize(tiles[0], (30_000, 2_000)))
    assert predict(put(tmp_path/'small.png', tiles[0]))[0] == 0
    before = machine.peak_memory()
    assert predict(wide, '--scale', .0625)[0] == 0 and labels(tmp_path/'terrain'/'wide_labels.png').shape == (2_000, 30_000)
    assert machine.peak_memory() - before < 3 * 60_000_000
