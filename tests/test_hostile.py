"""Hostile and broken input: arrays, frames, recipes, sweeps, records, networks. Each ends in one clear line, takes little memory, runs
no code and touches nothing; what is merely odd is read. Hypothesis spoils what is whole: it is refused, or means what it meant."""
import io, itertools, json, os, pickle, shutil, tempfile, zipfile
from pathlib import Path

import cv2, h5py, numpy as np, pytest, yaml
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image

from marsnb import convert, data, machine, netfile, plan, recipes, report, runs
from marsnb.core import MarsError
from made_up import record as made_up_record

some = lambda n: settings(max_examples=n, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


def tree(folder): return {p: p.is_file() and (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob('*')}


@pytest.fixture(autouse=True)
def nothing_else_happens(tmp_path, monkeypatch):
    "Nobody touches the folder one is in, nor a file that was there; nobody takes a GiB."
    mine = tmp_path/'mine'
    mine.mkdir(); (mine/'notes.txt').write_text('mine')
    monkeypatch.chdir(mine)
    monkeypatch.delenv('MARSNB_DATA', raising=False)
    monkeypatch.setattr(runs, 'RUNS', tmp_path/'runs'); monkeypatch.setattr(runs, 'BOOK_RUNS', tmp_path/'runs')
    before, peak = tree(mine), Path('/proc/self/clear_refs')
    if peak.exists(): peak.write_text('5')  # the most memory so far is forgotten
    start = machine.peak_memory()
    yield
    assert tree(mine) == before and not list(tmp_path.rglob('*pwned*'))
    assert machine.peak_memory() < start + 2 ** 30


def refused(f, *args, words=()):
    with pytest.raises(MarsError) as e: f(*args)
    assert 0 < len(str(e.value)) < 600 and '\n' not in str(e.value) and all(w in str(e.value) for w in words), e.value


def harmless(f, *args):
    "What `f` gives, or None where it refuses."
    try: return f(*args)
    except MarsError as e: assert str(e)


class Evil:
    def __reduce__(self): return os.system, ('touch pwned',)


spoil = st.tuples(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=6), st.none() | st.floats(0, 1))


def spoilt(whole, how):
    "The bytes `whole` with some flipped, and cut."
    out, (flips, cut) = bytearray(whole), how
    for where, bits in flips: out[int(where * len(out))] ^= bits
    return bytes(out if cut is None else out[:int(cut * len(out))])


# arrays

r = np.random.default_rng(0)
TRAIN = np.stack([r.integers(0, 256, (5, 64, 128)), r.integers(0, 5, (5, 64, 128))], 1).astype(np.uint8)
TEST = r.integers(0, 256, (3, 64, 128)).astype(np.uint8)


def npy(a, version=None):
    f = io.BytesIO()
    np.lib.format.write_array(f, a, version)
    return f.getvalue()


def npz(train=TRAIN, test=TEST, how=zipfile.ZIP_DEFLATED, **more):
    "An npz as bytes; members are arrays, or bytes as they are."
    f = io.BytesIO()
    with zipfile.ZipFile(f, 'w', how) as z:
        for name, a in {'training_set.npy': train, 'test_set.npy': test, **more}.items(): z.writestr(name, a if isinstance(a, bytes) else npy(a))
    return f.getvalue()


def header(text, length=None, version=1):
    text = text.encode().ljust(118) + b'\n'
    return b'\x93NUMPY' + bytes([version, 0]) + (length or len(text)).to_bytes(2 if version == 1 else 4, 'little') + text


def locked():
    b = bytearray(npz())
    for mark, at in ((b'PK\x03\x04', 6), (b'PK\x01\x02', 8)):
        i = -1
        while (i := b.find(mark, i + 1)) >= 0: b[i + at] |= 1
    return bytes(b)


def twice():
    with pytest.warns(UserWarning), zipfile.ZipFile(f := io.BytesIO(), 'w') as z:
        for a in (TRAIN, 0 * TRAIN): z.writestr('training_set.npy', npy(a))
    return f.getvalue()


SHAPE = "{'descr': '|u1', 'fortran_order': False, 'shape': (5, 2, 64, 128), }"
BAD_ARRAYS = {'objects': lambda: npz(np.array([Evil()], object)), 'objects of the right shape': lambda: npz(header(SHAPE.replace('|u1', '|O'))
    + pickle.dumps(Evil())), 'a record': lambda: npz(np.zeros((5, 2, 64, 128), [('a', 'u1')])),
              'text': lambda: npz(np.full((5, 2, 64, 128), '1')), 'complex': lambda: npz(TRAIN + 1j), 'dates': lambda: npz(TRAIN.astype('M8[s]')),
              'no dimension': lambda: npz(np.array(3)), 'no tiles': lambda: npz(TRAIN[:0]),
              'a huge header': lambda: npz(header(SHAPE, 2 ** 31, 2) + bytes(10 ** 6), how=zipfile.ZIP_STORED),
              'a bomb of a header': lambda: npz(header(SHAPE, 2 ** 29, 2) + bytes(2 ** 26)), 'a deep header': lambda: npz(header('(' * 100)),
              'a header of code': lambda: npz(header("__import__('os').system('touch pwned')")),
              'a negative shape': lambda: npz(header(SHAPE.replace('5', '-5'))), 'a shape of 10^18': lambda: npz(header(SHAPE.replace('5', '10**18'))),
              'many tiles': lambda: npz(header(SHAPE.replace('5', '190000'))),
              'many tiles by columns': lambda: npz(header(SHAPE.replace('5', '190000').replace('False', 'True'))),
              'a bomb': lambda: npz(header(SHAPE.replace('5', '3000')) + bytes(3000 * 2 * 64 * 128)), 'more than it says': lambda: npz(npy(TRAIN) + b'x'),
              'an unknown version': lambda: npz(b'\x93NUMPY\x09\x00' + npy(TRAIN)[8:]), 'no npy': lambda: npz(b'x' * 1000), 'nothing': lambda: npz(b''),
              'members twice': twice, 'locked': locked, 'no zip': lambda: b'x' * 1000, 'empty': lambda: b'',
              'paths inside': lambda: npz().replace(b'training_set.npy', b'../../../pwned.x'), 'names to print': lambda: npz().replace(b'training_set.npy',
              b'a\x1b[2J\n\rb\x00\x07\x08set.x'), 'lzma that lies': lambda: npz(how=zipfile.ZIP_LZMA)[:400] + npz(how=zipfile.ZIP_LZMA)[450:],
              'a number that is no class': lambda: npz(np.where(np.arange(5)[:, None, None, None] == 3, 7, TRAIN)),
              'infinite': lambda: npz(np.where(TRAIN > 1, np.inf, TRAIN))}


@pytest.mark.parametrize('kind', BAD_ARRAYS)
def test_bad_arrays(kind, tmp_path):
    (tmp_path/'x.npz').write_bytes(BAD_ARRAYS[kind]())
    if kind == 'names to print': assert 'no training_set' in pytest.raises(MarsError, data.load, tmp_path/'x.npz').value.args[0]
    else: refused(data.load, tmp_path/'x.npz', words=['x.npz'])


ODD_ARRAYS = {'big-endian': lambda a: a.astype('>i4'), 'big-endian floats': lambda a: a.astype('>f8'), 'by columns': np.asfortranarray,
    'floats by columns': lambda a: np.asfortranarray(a.astype(float)), 'half floats': lambda a: a.astype('f2'),
    'long doubles': lambda a: a.astype(np.longdouble), 'signed': lambda a: a.astype('i8'), 'a header of version 2': lambda a: npy(a, (2, 0))}


@pytest.mark.parametrize('kind', ODD_ARRAYS)
@pytest.mark.parametrize('how', (zipfile.ZIP_STORED, zipfile.ZIP_LZMA))
def test_odd_arrays(kind, how, tmp_path):
    (tmp_path/'x.npz').write_bytes(npz(ODD_ARRAYS[kind](TRAIN), ODD_ARRAYS[kind](TEST), how))
    tiles = data.load(tmp_path/'x.npz')
    assert np.array_equal(np.stack(tiles[:2], 1), TRAIN) and np.array_equal(tiles.unlabelled, TEST) and all(a.dtype == np.uint8 for a in tiles[:3])


def test_truth_values(tmp_path):
    (tmp_path/'x.npz').write_bytes(npz(TRAIN > 2, TEST > 99))
    assert np.array_equal(np.stack(data.load(tmp_path/'x.npz')[:2], 1), TRAIN > 2)


BAD_GROUPS = {'objects': lambda: np.array([Evil()], object), 'floats': lambda: np.zeros(5), 'too few': lambda: np.arange(4),
    'no dimension': lambda: np.array(3), '64 bits': lambda: np.arange(5) + 2 ** 40, 'text': lambda: np.full(5, 'a'),
    'a bomb': lambda: header(SHAPE.replace('5, 2, 64, 128', '10**9,')) + bytes(2 ** 26)}


@pytest.mark.parametrize('kind', BAD_GROUPS)
def test_bad_groups(kind, tmp_path):
    (tmp_path/'x.npz').write_bytes(npz()); (tmp_path/'x_groups.npz').write_bytes(npz(**{'groups.npy': BAD_GROUPS[kind]()}))
    refused(data.load, tmp_path/'x.npz', words=['x_groups.npz'])


@pytest.mark.parametrize('how', (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
def test_spoilt_arrays(how, tmp_path):
    whole = npz(how=how)
    @some(60)
    @given(spoil)
    def check(how):
        (tmp_path/'x.npz').write_bytes(spoilt(whole, how))
        if tiles := harmless(data.load, tmp_path/'x.npz'): assert np.array_equal(np.stack(tiles[:2], 1), TRAIN) and np.array_equal(tiles.unlabelled, TEST)
    check()


# frames

FRAME = cv2.GaussianBlur(r.integers(0, 256, (128, 256), np.uint8), None, 3)
CODE = np.kron(r.integers(0, 4, (8, 16)), np.ones((16, 16))).astype(np.uint8)
png = lambda a: cv2.imencode('.png', a)[1].tobytes()
jpg = lambda a: cv2.imencode('.jpg', a)[1].tobytes()


def by_pil(mode, form, **more):
    Image.fromarray(FRAME).convert(mode).save(f := io.BytesIO(), form, **more)
    return f.getvalue()


def turned():
    exif = Image.Exif(); exif[0x112] = 6
    return by_pil('L', 'JPEG', exif=exif)


def release(folder, frame, label=png(CODE), suffix='.png'):
    "A release with two whole frames, one of them of the test stops, and one that is `frame`."
    stems = sorted((f'NLA_41161492{i}EDR_F{51000 + i:07d}NCAM00355M1' for i in range(9)), key=lambda s: convert.withheld(s, .3))
    for s, x, y, end in ((stems[0], png(FRAME), png(CODE), '.png'), (stems[-1], png(FRAME), png(CODE), '.png'), (stems[1], frame, label, suffix)):
        for where, b, e in (('images/edr', x, end), ('labels/train', y, '.png')):
            (folder/'msl'/where).mkdir(parents=True, exist_ok=True); (folder/'msl'/where/f'{s}{e}').write_bytes(b)
    return folder


def claimed(wide, high):
    "A PNG that says it has these rows and columns."
    import struct, zlib
    head = b'IHDR' + struct.pack('>IIBBBBB', wide, high, 8, 0, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + struct.pack('>I', 13) + head + struct.pack('>I', zlib.crc32(head)) + png(FRAME)[33:]


BAD_FRAMES = {'cut png': lambda: png(FRAME)[:-500], 'cut jpeg': lambda: jpg(FRAME)[:-500], 'png of noise': lambda: png(FRAME)[:60]
    + bytes(r.integers(0, 256, 3000, np.uint8)), 'empty': lambda: b'', 'text': lambda: b'no picture', 'pickle': lambda: pickle.dumps(Evil()),
    'svg': lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', '1x1': lambda: png(FRAME[:1, :1]),
    'flat': lambda: png(np.zeros((4, 30_000), np.uint8)), '30,000 wide': lambda: png(np.zeros((2_000, 30_000), np.uint8)),
    'claims 30,000 x 30,000': lambda: claimed(30_000, 30_000), 'claims 0 x 0': lambda: claimed(0, 0), 'claims 2^31': lambda: claimed(2 ** 31 - 1,
    2 ** 31 - 1)}
ODD_FRAMES = {'16 bits': lambda: png(FRAME.astype(np.uint16) * 257), 'alpha': lambda: by_pil('LA', 'PNG'), 'colour': lambda: by_pil('RGB', 'PNG'),
    'colour and alpha': lambda: by_pil('RGBA', 'PNG'), 'palette': lambda: by_pil('P', 'PNG'),
    'cmyk': lambda: by_pil('CMYK', 'JPEG', quality=100), 'turned by EXIF': turned, 'progressive': lambda: by_pil('L', 'JPEG', progressive=True)}
BAD_LABELS = {'colours': lambda: png(np.dstack([CODE, CODE, 255 - CODE])), 'other codes': lambda: png(CODE + 7),
    '16 bits of codes': lambda: png(CODE.astype(np.uint16) + 256), 'another shape': lambda: png(CODE[:, :100]), 'cut': lambda: png(CODE)[:60]}


@pytest.mark.parametrize('kind', [*BAD_FRAMES, *BAD_LABELS])
def test_bad_frames(kind, tmp_path):
    "Are left out and named; the others are converted."
    frame, label = (BAD_FRAMES[kind](), png(CODE)) if kind in BAD_FRAMES else (png(FRAME), BAD_LABELS[kind]())
    before = tree(release(tmp_path/'in', frame, label, '.jpg' if frame[:2] == b'\xff\xd8' else '.png'))
    said = convert.convert(tmp_path/'in', tmp_path/'out'/'mars.npz', test=.3)
    assert len(said['broken']) == 1 and len(said['broken'][0]) < 300 and said['training tiles'] == 1, said
    assert tree(tmp_path/'in') == before and {p.name for p in (tmp_path/'out').iterdir()} == {'mars.npz', 'mars_groups.npz'}


@pytest.mark.parametrize('kind', ODD_FRAMES)
def test_odd_frames(kind, tmp_path):
    said = convert.convert(release(tmp_path/'in', ODD_FRAMES[kind](), suffix='.jpg' if kind in ('cmyk', 'turned by EXIF', 'progressive') else '.png'),
        tmp_path/'mars.npz', test=.3)
    images = data.load(tmp_path/'mars.npz').images
    assert not said['broken'] and len(images) == 2 and np.abs(images[0].astype(int) - images[1]).mean() < 6, 'what it was, upright'


def test_no_pictures(tmp_path):
    folder = release(tmp_path/'in', png(FRAME))
    os.mkfifo(folder/'msl/images/edr/pipe.png'); (folder/'msl/labels/train/folder.png').mkdir()
    assert not convert.convert(folder, tmp_path/'mars.npz', test=.3)['broken']
    refused(convert.convert, folder, tmp_path/'x.npz', .01, .3, ('sky',), words=['sky'])


@pytest.mark.parametrize('whole', (png(FRAME), jpg(FRAME)), ids=('png', 'jpeg'))
def test_spoilt_frames(whole, tmp_path):
    @some(40)
    @given(spoil)
    def check(how):
        (tmp_path/'x.png').write_bytes(spoilt(whole, how))
        if found := harmless(convert.tiles_of, tmp_path/'x.png'): assert found[0].shape[1:] == (64, 128) and found[0].dtype == np.uint8
    check()


# recipes and sweeps

def bomb(inner, layers=12, merge=False):
    names = [f'x{i}' for i in range(layers)]
    first = f'{names[0]}: &{names[0]} {inner}\n'
    return first + ''.join(f'{b}: &{b} ' + (f'{{<<: [{", ".join([f"*{a}"] * 9)}]}}\n' if merge else f'[{", ".join([f"*{a}"] * 9)}]\n') for a,
        b in itertools.pairwise(names))


BAD_YAML = ['a: &a [*a]', 'lr: &a {b: *a}', bomb('[1, 1]'), bomb('{a: 1}', merge=True), f'{bomb("[1]", 9)}lr: *x8',
    '!!python/object/apply:os.system [touch pwned]', 'lr: !!python/name:os.system', 'lr: !!python/object/new:tests.Evil {}', 'model: !evil x',
    '[' * 5_000, '{a: ' * 5_000, '- ' * 40_000, '"' + '\\n' * 49_000, 'a: |' + ' ' * 100_000, 'lr: 2020-13-45', f'lr: {"9" * 5000}',
    f'seed: {"9" * 400}', 'lr: 1e999', 'lr: .nan', 'lr: -.inf', 'seed: -1', 'seed: 99999999999', 'lr: 0x', 'lr: [1]', 'lr: true', 'epochs: 1.5',
    'widths: 8', 'widths: []', 'widths: [a]', 'widths: [0]', 'widths: [1000000000]', 'widths: [.nan]', 'class_weights: [a, b, c, d, e]',
    'class_weights: {}', 'losses: [ce]', 'losses: {ce: .inf}', 'losses: {1: 2, a: 3}', 'model_args: {when: 2020-01-01}', 'augment: !!set {a, b}',
    'data: "a\\0b"', 'out: "a\\0b"', 'team: ../../pwned', 'row: ..', 'row: a/b', 'row: "a\\nb"', 'team: Ünicode', 'row: "\\ud800"', 'team: маrs',
    'row: "a\\u202eb"', 'profile: ../cpu', '? [a]\n: 1', '1: 2', 'null', '- 1', '"text"', 'a: b: c', '\t', '%YAML 9.9\n---\na: 1', '--- 1\n--- 2',
    '\x00', '\ufeffé: 1', f'members: [{", ".join(["hendrix/flagship"] * 200)}]', 'batch: 0', '__class__: 1', '_x: 1']


@pytest.mark.parametrize('text', BAD_YAML, ids=lambda t: ascii(t[:30]))
def test_bad_recipes_and_sweeps(text, tmp_path):
    (tmp_path/'x.yml').write_bytes(text.encode('utf-8', 'surrogatepass'))
    if recipe := harmless(recipes.load, tmp_path/'x.yml'): assert recipe == recipes.Recipe() and text in ('null', '\t', '"\\n'), 'only what says nothing passes'
    refused(plan.plan, [str(tmp_path/'x.yml')], words=[] if 'x.yml' in text else ['x.yml'])


@pytest.mark.parametrize('members, word', [(['../../etc/passwd'], 'team/row'), (['scratch/me'], 'no such'), (['hendrix/none'], 'no such'),
    ([{'recipe': 'hendrix/flagship', 'seed': 'x'}], 'seed'), ([[]], 'team/row'), ([{'recipe': {}}], 'team/row'), ([3], 'team/row'),
    (['hendrix/flagship\n'], 'team/row')])
def test_bad_ensembles(members, word, tmp_path):
    (tmp_path/'x.yml').write_text(yaml.safe_dump({'team': 'scratch', 'row': 'me', 'members': members}))
    refused(plan.plan, [str(tmp_path/'x.yml')], words=[word])


def test_cycles_of_ensembles(tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, 'RECIPES', tmp_path)
    (tmp_path/'t').mkdir()
    for a, b in ('ab', 'bc', 'ca', 'dd'): (tmp_path/'t'/f'{a}.yml').write_text(f'{{team: t, row: {a}, members: [t/{b}, t/{b}]}}')
    for name in 'ad': refused(plan.plan, [f't/{name}'], words=['member of itself'])


BAD_SWEEPS = [{'recipes': ['../../etc/passwd']}, {'recipes': ['/etc/passwd']}, {'recipes': ['*/../../*']}, {'recipes': ['nowhere/x.yml']},
    {'recipes': ['a\0.yml']}, {'recipes': ['[' * 1000]}, {'recipes': ['x' * 90_000]}, {'recipes': ['*'], 'seeds': list(range(5000))},
    {'recipes': ['*'], 'seeds': [10 ** 30]}, {'recipes': ['*'], 'overrides': [{'team': '../pwned'}]}, {'recipes': ['*'], 'overrides': [{1: 2}]},
    {'recipes': ['*'], 'grid': {'lr': [1.] * 200, 'batch': [1] * 200}}, {'recipes': ['*'], 'random': {'lr': {'low': 10 ** 400, 'high': 10 ** 401}}},
    {'recipes': ['*'], 'random': {'lr': {'low': -1e308, 'high': 1e308}}}, {'recipes': ['*'], 'random': {'n': 10 ** 12, 'lr': [1.]}},
    {'recipes': ['*'], 'random': {'n': True}}, {'recipes': [['*']]}, {'recipes': '*'}]


@pytest.mark.parametrize('sweep', BAD_SWEEPS, ids=lambda s: ascii(s)[:60])
def test_bad_sweeps(sweep, tmp_path):
    (tmp_path/'s.yml').write_text(yaml.safe_dump(sweep))
    refused(plan.plan, [str(tmp_path/'s.yml')])


anything = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.dates() | st.binary(max_size=5),
    lambda x: st.lists(x, max_size=4) | st.dictionaries(st.text(max_size=5) | st.integers(), x, max_size=4), max_leaves=9)


@some(120)
@given(st.dictionaries(st.sampled_from(list(recipes.FIELDS)) | st.text(max_size=5), anything, max_size=4))
def test_any_values(values):
    "Make a recipe that lies where it should, or are refused."
    recipe = harmless(recipes.make, values)
    if recipe:
        root = Path(recipe.out or runs.RUNS).expanduser().resolve()
        assert len(recipes.digest(recipe)) == 8 and runs.folder(recipe).parents[3] == root and recipes.make(recipes.differs(recipe)) == recipe
        harmless(recipes.members, recipe)


@some(150)
@given(st.text(st.sampled_from('{}[]:,&*!|>-?#"\'\n\t ab1.~%@<=')) | st.text(max_size=40))
def test_any_text(text):
    with tempfile.TemporaryDirectory() as d:
        path = Path(d)/'x.yml'
        path.write_bytes(text.encode('utf-8', 'surrogatepass'))
        for f in (recipes.load, plan.read): harmless(f, str(path))


@some(60)
@given(st.dictionaries(st.sampled_from(list(plan.KEYS)), anything, max_size=4), st.dictionaries(st.sampled_from(['n', 'seed', 'lr', 'batch']),
    anything | st.fixed_dictionaries({'low': anything, 'high': anything}), max_size=3))
def test_any_sweep(values, random):
    harmless(plan._overrides, values | {'random': random} if isinstance(values.get('overrides', []), list) and isinstance(values.get('grid', {}), dict) else {},
        'x')


# records

def whole(folder): return made_up_record(folder/'made-up'/'hendrix'/'tiny'/'0', 0, .5, tiles=4)


@pytest.mark.parametrize('text', ['', '{', '[]', '3', 'null', '{"format": 2}', '{"format": 99}', '{"format": "1"}', '{"format": 1}', '{"format": 1, "a": NaN}',
    '{"format": 1, "a": 1e999}', '[' * 100_000, '{"a":' * 100_000, '"\\ud800"', '9' * 5000, '{"format": 1, "digest": 3, "result": []}', ' ' * 2 ** 25,
    b'\xff\xfe'], ids=lambda t: ascii(t[:20]))
def test_bad_records(text, tmp_path):
    home = whole(tmp_path)
    (home/'record.json').write_bytes(text if isinstance(text, bytes) else text.encode())
    for f in (runs.read, report.flat): refused(f, home, words=['record.json'])


def swapped(value, seed, new):
    "The nested `value` with one of its parts, which `seed` draws, replaced by `new`."
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    if not keys or seed % 3 == 0: return new
    k = list(keys)[seed // 3 % len(keys)]
    out = dict(value) if isinstance(value, dict) else list(value)
    out[k] = swapped(value[k], seed // 3 // len(keys), new)
    return out


def test_spoilt_records(tmp_path):
    home = whole(tmp_path)
    said = json.loads((home/'record.json').read_text())
    def use():
        record = runs.read(home)
        harmless(plan.again, record, tmp_path)
        assert runs.repeats(record, record) and not runs.unlike(record, record)
        report.flat(home)
    @some(60)
    @given(spoil)
    def bits(how):
        (home/'record.json').write_bytes(spoilt(json.dumps(said).encode(), how)); harmless(use)
    @some(150)
    @given(st.integers(1, 10 ** 9), anything.filter(lambda v: not isinstance(v, float) or v == v))
    def parts(seed, new):
        try: text = json.dumps({k: v for k, v in said.items()} | swapped({k: v for k, v in said.items() if k != 'format'}, 3 * seed + 1, new))
        except TypeError: return
        (home/'record.json').write_text(text); harmless(use)
    bits(); parts()


# networks

@pytest.fixture(scope='module')
def nets(tmp_path_factory):
    "Folder with a whole network, one with a Lambda, and the latter as HDF5."
    import keras
    d = tmp_path_factory.mktemp('nets')
    x = keras.Input((64, 128, 1))
    keras.Model(x, keras.layers.Conv2D(5, 1, name='logits')(x)).save(d/'good.keras')
    keras.Model(x, keras.layers.Lambda(lambda t: (__import__('os').system('touch pwned'), t)[1], output_shape=(64, 128, 1))(x)).save(d/'lambda.keras')
    shutil.copy(d/'lambda.keras', d/'lambda')
    keras.models.load_model(d/'lambda.keras', safe_mode=False).save(d/'lambda.h5')
    (d/'h5.keras').write_bytes((d/'lambda.h5').read_bytes())
    Path('pwned').unlink(missing_ok=True)  # to call the function is to run it
    return d


def parts(path):
    with zipfile.ZipFile(path) as z: return {n: z.read(n) for n in z.namelist()}


def packed(path, members):
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as z:
        for n, b in members.items(): z.writestr(n, b)
    return path


def config(change): return lambda p: p | {'config.json': json.dumps(change(json.loads(p['config.json']))).encode()}


def layer(**more):
    def change(c):
        c['config']['layers'][1].update(more)
        return c
    return config(change)


def arrays(*made):
    with h5py.File(f := io.BytesIO(), 'w') as h: h.create_dataset(*made, chunks=True, compression='gzip')
    return lambda p: p | {'model.weights.h5': f.getvalue()}


BAD_NETS = {'a call': config(lambda c: {'module': 'os', 'class_name': 'system', 'config': {'command': 'touch pwned'}, 'registered_name': None}),
    'a function': layer(module='builtins', class_name='function', config='exec', registered_name='function'),
    'a download': config(lambda c: {'module': 'keras.utils', 'class_name': 'get_file', 'config': {'fname': 'pwned', 'origin': 'file:///etc/passwd',
    'cache_dir': '.'}, 'registered_name': None}),
    'a file read': layer(class_name='StringLookup', config={'name': 'logits', 'vocabulary': '/etc/passwd'}),
    'a SavedModel': layer(class_name='TFSMLayer', config={'name': 'logits', 'filepath': '/'}), 'torch': layer(class_name='TorchModuleWrapper',
    config={'module': 'gASV'}),
    'a pickle for weights': lambda p: {k: v for k, v in p.items() if 'weights' not in k} | {'model.weights.npz': npz(np.array([Evil()], object))},
    'paths inside': lambda p: p | {'../../pwned': b''}, 'torch zip': lambda p: {'archive/data.pkl': pickle.dumps(Evil())},
    'npz': lambda p: {'a.npy': npy(TEST)},
    'a bomb': lambda p: p | {'config.json': p['config.json'] + b' ' * 2 ** 26}, 'a bomb of weights': lambda p: p
    | {'model.weights.h5': p['model.weights.h5'] + bytes(2 ** 26)}, 'claimed weights': arrays('a', (2 ** 32,), 'f8'), 'no weights': lambda p: p
    | {'model.weights.h5': b''},
    'a huge layer': layer(config={'name': 'logits', 'filters': 10 ** 9, 'kernel_size': [1, 1]}), 'a deep description': lambda p: p
    | {'config.json': b'[' * 100_000}, 'no description': lambda p: p | {'config.json': b'{}'}, 'NaN': lambda p: p | {'config.json': b'NaN'}}


def opened(path):
    from marsnb import infer
    netfile.check(path)
    return infer.open_model(path)


@pytest.mark.parametrize('kind', BAD_NETS)
def test_bad_networks(kind, nets, tmp_path): refused(opened, packed(tmp_path/'x.keras', BAD_NETS[kind](parts(nets/'good.keras'))), words=['x.keras'])


@pytest.mark.parametrize('name', ('lambda.keras', 'lambda.h5', 'h5.keras', 'lambda', 'pickle.keras', 'none.keras'))
def test_files_that_are_no_networks(name, nets):
    (nets/'pickle.keras').write_bytes(pickle.dumps(Evil()))
    refused(opened, nets/name, words=[name])


def test_spoilt_networks(nets, tmp_path):
    good = (nets/'good.keras').read_bytes()
    assert opened(nets/'good.keras').output_shape == (None, 64, 128, 5)
    @some(40)
    @given(spoil)
    def check(how):
        (tmp_path/'x.keras').write_bytes(spoilt(good, how))
        if net := harmless(opened, tmp_path/'x.keras'): assert net.output_shape == (None, 64, 128, 5)
    check()


# the command line

@pytest.mark.parametrize('args', [('data', 'info', 'bad.npz'), ('data', 'convert', 'release', 'out/mars.npz'), ('train', 'bomb.yml'), ('sweep', 'bomb.yml'),
    ('reproduce', 'record.json'), ('predict', '--model', 'bad.keras', '--data', 'good.npz', '--out', 'out/p.npz')], ids=lambda a: ' '.join(a[:2]))
def test_commands(args, marsnb, tmp_path):
    "Each says it in one line without control characters, and ends with exit code 2."
    (tmp_path/'bad.npz').write_bytes(BAD_ARRAYS['names to print']()); (tmp_path/'good.npz').write_bytes(npz())
    (tmp_path/'bad.keras').write_bytes(pickle.dumps(Evil()))
    (tmp_path/'bomb.yml').write_text(bomb('[1]')); (tmp_path/'record.json').write_text('{"format": 9}')
    for p in ('images/edr', 'labels/train'): (tmp_path/'release'/'msl'/p).mkdir(parents=True); (tmp_path/'release'/'msl'/p/'a.png').write_bytes(b'x')
    before = tree(tmp_path)
    r = marsnb(*args)
    assert r.returncode == 2 and len(r.stderr.strip().splitlines()) == 1 and r.stderr.strip().isprintable(), (r.returncode, r.stderr)
    after = {p: v for p, v in tree(tmp_path).items() if tmp_path/'out' not in (p, *p.parents)}
    assert after == before
