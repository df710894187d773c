"""Training and the book are stopped, killed, have no room, no memory or may not write: there is what
was there before, or all of the new; nothing runs on, and the next call goes on. Run by `make soak`."""
import contextlib, os, re, resource, shutil, signal, subprocess, time

import psutil
import pytest
import yaml

import made_up
from conftest import BIN, copied
from marsnb.data import save, synthetic
from test_convert import unprivileged
from test_sweep import TINY, alive, holder, records, until

pytestmark = pytest.mark.soak


def room(kilobytes): return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024,) * 2)


def begin(folder, *args, **more):
    "`marsnb` with `args` in `folder`, all that does not last in its folder `tmp`."
    (folder/'tmp').mkdir(exist_ok=True)
    env = {k: v for k, v in os.environ.items() if not k.startswith('MARSNB_')} | {'TMPDIR': str(folder/'tmp')} | more.pop('env')
    return subprocess.Popen([BIN/'marsnb', *map(str, args)], cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, **more)


def ended(p, code):
    out, err = p.communicate(timeout=600)
    assert p.returncode == code and 'Traceback' not in out + err, out + err
    return out + err


def newer(path, began):
    with contextlib.suppress(FileNotFoundError): return path.stat().st_mtime_ns > began


def hit(p, number, victim=None):
    "Send `number` to `victim`, or to `p`, or with Ctrl-C to all that a terminal reaches; all processes of `p` are to end."
    family = psutil.Process(p.pid).children(recursive=True)
    if victim: victim.send_signal(number)
    elif number == signal.SIGINT: os.killpg(p.pid, number)
    else: p.send_signal(number)
    p.wait(60)
    until(lambda: not any(map(alive, family)), 20)


# the book

@pytest.fixture(scope='module')
def clone(tmp_path_factory):
    "A clone with made-up records and one notebook, its report built."
    d = copied(tmp_path_factory.mktemp('clone')/'marsnb', 'marsnb', 'nbs/experiments', 'book', 'nbs/00_core.ipynb', 'requirements.lock', 'pyproject.toml',
        without=['runs'])
    made_up.suite(d/'book'/'runs', rows=6)
    ended(book(d), 0)
    return d


def book(clone, **more): return begin(clone, 'book', env={'PYTHONPATH': str(clone)}, **more)


def html(clone): return {f.relative_to(clone/'book'/'_build'/'html'): f.read_bytes() for f in (clone/'book'/'_build'/'html').rglob('*') if f.is_file()}


def pages(clone): return {name: re.sub(r'\?v=\w+', '', content.decode()) for name, content in html(clone).items() if name.suffix == '.html'}


def one_more(clone, name): made_up.record(clone/'book'/'runs'/'ai4mars-gpu'/'hendrix'/name/'0', 0, .7)


def test_book_stopped_and_killed(clone, tmp_path):
    "A further row changes every page, for each shows the contents."
    before, build = html(clone), clone/'book'/'_build'
    one_more(clone, 'new')
    (clone/'runs'/'pages'/'dataset.key').unlink()
    executed = lambda: list((clone/'runs'/'pages').glob('.*-dataset.ipynb'))
    written = lambda: newer(build/'made'/'_build'/'html'/'cost.html', began)  # the third page
    sphinx = lambda p: next(q for q in psutil.Process(p.pid).children(recursive=True) if 'jupyter_book' in ' '.join(q.cmdline()))
    for number, begun, whom, code in ((signal.SIGTERM, executed, None, 143), (signal.SIGKILL, executed, None, -9), (signal.SIGTERM, written, None, 143),
            (signal.SIGINT, written, None, 130), (signal.SIGKILL, written, None, -9), (signal.SIGKILL, written, sphinx, 1)):
        began = time.time_ns()
        p = book(clone)
        until(lambda: begun() or p.poll() is not None)
        hit(p, number, whom and whom(p))
        assert ('exit code -9' in ended(p, code)) == bool(whom) and html(clone) == before, (number, code)
        assert number == signal.SIGKILL or not list(clone.rglob('.[0-9]*-*'))
    ended(book(clone), 0)
    assert not list(clone.rglob('.[0-9]*-*')) and not list(build.glob('.*')) and not list((clone/'tmp').glob('tmp*'))
    shutil.copytree(clone, tmp_path/'clone', ignore=shutil.ignore_patterns('_build', 'tmp'))
    ended(book(tmp_path/'clone'), 0)
    assert pages(clone) == pages(tmp_path/'clone') and any(p.stem == 'new' for p in pages(clone))
    assert all((build/'html'/p.parent/src).exists() for p, text in pages(clone).items() for src in re.findall(r'<img[^>]* src="([^":]+)"',
        text)), 'all pictures'


def test_book_without_room(clone):
    before = html(clone)
    one_more(clone, 'another')
    for kilobytes in 30, 100: assert 'File too large' in ended(book(clone, preexec_fn=room(kilobytes)), 1) and html(clone) == before
    (clone/'book'/'_build').chmod(0o555)
    try: assert len(ended(book(clone, preexec_fn=unprivileged), 2).splitlines()) == 1 and html(clone) == before
    finally: (clone/'book'/'_build').chmod(0o755)
    ended(book(clone), 0)
    assert any(p.stem == 'another' for p in pages(clone)) and not list((clone/'book'/'_build').glob('.*'))


# training

@pytest.fixture
def marsnb(tmp_path):
    "Starts `marsnb` on a tiny Mars; r.yml is a tiny recipe."
    save(tmp_path/'mars.npz', synthetic(60, 6))
    (tmp_path/'r.yml').write_text(yaml.safe_dump({'team': 'scratch', 'row': 'tiny', **TINY}))
    env = {'MARSNB_DATA': str(tmp_path/'mars.npz'), 'MARSNB_RUNS': str(tmp_path/'runs'), 'MARSNB_SAVE_SECONDS': '0'}
    return lambda *args, **more: begin(tmp_path, *args, env=env, **more)


def test_train_stopped(marsnb, tmp_path):
    "The third time it is Linux that ends the kernel, as where memory is short."
    for number, code, whom in (signal.SIGTERM, 143, None), (signal.SIGINT, 130, None), (signal.SIGKILL, 1, lambda: holder(next(tmp_path.rglob('lock')))):
        began, p = time.time_ns(), marsnb('train', 'r.yml')
        until(lambda: [f for f in tmp_path.rglob('state-*') if newer(f, began)] or p.poll() is not None)
        hit(p, number, whom and whom())
        assert ('perhaps for want of memory' in ended(p, code)) == bool(whom)
        assert not records(tmp_path) and not list((tmp_path/'tmp').iterdir()) and not [f for f in (tmp_path/'runs').rglob('.*') if f.is_file()]
    ended(marsnb('train', 'r.yml'), 0)
    assert len(records(tmp_path)) == 1 and not list(tmp_path.rglob('state-*'))


def test_sweep_without_room(marsnb, tmp_path):
    (tmp_path/'runs').mkdir(mode=0o555)
    said = ended(marsnb('sweep', 'r.yml', '--workers', 1, preexec_fn=unprivileged), 1)
    assert 'cannot be written to' in said and '1 failed' in said
    assert 'cannot be written to' in ended(marsnb('train', 'r.yml', preexec_fn=unprivileged), 2) and not list((tmp_path/'runs').iterdir())
    (tmp_path/'runs').chmod(0o755)
    assert 'File too large' in ended(marsnb('sweep', 'r.yml', '--workers', 1, preexec_fn=room(1)), 1)
    assert '1 failed' in ended(marsnb('sweep', 'r.yml', '--workers', 1, preexec_fn=room(8)), 1) and not records(tmp_path)
    assert '1 done' in ended(marsnb('sweep', 'r.yml', '--workers', 1), 0)


def test_a_network_too_wide(marsnb, tmp_path):
    "Its process may take a gigabyte more: the run fails and says why, the next one is done."
    (tmp_path/'s.yml').write_text(yaml.safe_dump({'recipes': ['r.yml'], 'overrides': [{'widths': [8, 4096], 'profile': 'gpu'}, {'epochs': 1}]}))
    p = marsnb('sweep', 's.yml', '--workers', 1)
    lock = until(lambda: next(tmp_path.glob('runs/mars-gpu/*/*/0/lock'), None))
    kernel = until(lambda: holder(lock))
    kernel.rlimit(psutil.RLIMIT_AS, (kernel.memory_info().vms + 2**30,) * 2)
    said = ended(p, 1)
    assert re.search('failed .*(OOM|memory|MemoryError|bad_alloc)', said) and '1 done, 1 failed' in said and len(records(tmp_path)) == 1
