"""Sweeps with real processes: a killed worker, a killed sweep, a killed kernel, an interrupt, two
at once, a failing run, a full disk. Nothing is lost, nothing is done twice, and the figures are
those of plain papermill. `make test` has one interrupt and one kill; `make soak` the others."""
import contextlib, json, os, resource, signal, subprocess, time

import nbformat
import psutil
import pytest
import yaml

from conftest import BIN, ROOT
from marsnb.data import save, synthetic

TINY = {'clean': [], 'widths': [4, 8], 'epochs': 12}


@pytest.fixture(scope='module')
def mars(tmp_path_factory):
    path = tmp_path_factory.mktemp('mars')/'mars.npz'
    save(path, synthetic(60, 6))
    return path


@pytest.fixture(scope='module')
def plain(mars, tmp_path_factory):
    "The result that plain papermill gives for seed 0, and the pictures on its page."
    d = tmp_path_factory.mktemp('plain')
    (d/'r.yml').write_text(yaml.safe_dump({'team': 'scratch', 'row': 'tiny', **TINY, 'data': str(mars), 'out': str(d)}))
    template = ROOT/'nbs'/'experiments'/'train.ipynb'
    subprocess.run([BIN/'papermill', template, d/'page.ipynb', '-f', d/'r.yml', '--no-progress-bar', '--cwd', template.parent], check=True, capture_output=True)
    return records(d)[0]['result'], pictures(d/'page.ipynb')


@pytest.fixture
def sweep(mars, tmp_path):
    "Starts `marsnb sweep` with a sweep of tiny runs, its records going to `runs` in an empty folder."
    (tmp_path/'r.yml').write_text(yaml.safe_dump({'team': 'scratch', 'row': 'tiny', **TINY}))
    started = []
    def start(seeds=(0,), *args, **more):
        file = tmp_path/f'sweep{len(started)}.yml'
        file.write_text(yaml.safe_dump({'recipes': [str(tmp_path/'r.yml')], 'seeds': list(seeds), **more}))
        env = os.environ | {'MARSNB_DATA': str(mars), 'MARSNB_RUNS': str(tmp_path/'runs'), 'MARSNB_SAVE_SECONDS': '0'}
        started.append(subprocess.Popen([BIN/'marsnb', 'sweep', file, *map(str, args)], cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, start_new_session=True))
        return started[-1]
    yield start
    for p in started:
        if p.poll() is None: p.kill(); p.wait()


def pictures(page): return [o.data['image/png'] for c in nbformat.read(page, 4).cells for o in c.get('outputs', []) if 'image/png' in o.get('data', {})]


def records(folder): return [json.loads(p.read_text()) for p in sorted(folder.rglob('record.json'))]


def until(found, seconds=240):
    "Wait for something and give it."
    end = time.monotonic() + seconds
    while not (it := found()):
        assert time.monotonic() < end, 'waited in vain'
        time.sleep(.05)
    return it


def ended(process, code=0):
    out, _ = process.communicate(timeout=400)
    assert process.returncode == code and 'Traceback' not in out, out
    return out


def alive(p):
    with contextlib.suppress(psutil.NoSuchProcess): return p.is_running() and p.status() != psutil.STATUS_ZOMBIE


def holder(lock):
    "The process that holds the lock at the path `lock`: the kernel of the run."
    for p in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(lock) in {f.path for f in p.open_files()}: return p


def training(folder):
    "Kernel and state of the run of seed 0 below `folder`, as soon as it has a state. The kernel is looked for before: that takes its time on a busy machine."
    lock = until(lambda: next(folder.rglob('0/lock'), None))
    return until(lambda: holder(lock)), until(lambda: next(lock.parent.glob('state-*.npz'), None))


@pytest.fixture
def cluster(tmp_path, mars):
    "A scheduler and two workers on the loopback address, as somebody would start them."
    env = os.environ | {'MARSNB_RUNS': str(tmp_path/'runs'), 'MARSNB_SAVE_SECONDS': '0', 'OMP_NUM_THREADS': ''}
    dask = lambda *args: subprocess.Popen([BIN/'dask', *args, '--host', '127.0.0.1', '--no-dashboard'], cwd=tmp_path, env=env, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL)
    processes = [dask('scheduler', '--port', '0', '--scheduler-file', 's.json')]
    until((tmp_path/'s.json').exists)
    processes += [dask('worker', '--scheduler-file', 's.json', '--nthreads', '1', '--no-nanny', '--resources', 'GPU=1', '--name', name) for name in 'ab']
    yield until(lambda: json.loads((tmp_path/'s.json').read_text()).get('address')), processes
    for p in processes: p.kill(); p.wait()


@pytest.mark.soak
def test_a_killed_worker(sweep, cluster, plain, tmp_path):
    address, (_, *workers) = cluster
    p = sweep([0, 1, 2], '--scheduler', address, '--gpu', 1)
    kernel, state = training(tmp_path)
    victim = next(w for w in workers if w.pid in {q.pid for q in kernel.parents()})
    victim.send_signal(signal.SIGKILL)
    until(lambda: not alive(kernel), 10)
    assert not (state.parent/'record.json').exists(), 'killed mid-run'
    seen = {}
    while p.poll() is None:
        for r in tmp_path.rglob('record.json'): seen.setdefault(r, set()).add(r.stat().st_mtime_ns)
        time.sleep(.02)
    out = ended(p)
    assert len(records(tmp_path)) == 3 and all(len(times) == 1 for times in seen.values()) and out.count('done  ') == 3, 'all there, none done twice'
    assert records(tmp_path)[0]['result'] == plain[0], 'on another worker, after a kill, and yet what plain papermill gives'
    assert pictures(state.parent/'page.ipynb') == plain[1] != []
    assert not list(tmp_path.rglob('state-*')) and not [p for p in tmp_path.rglob('.*') if p.is_file()]


def test_interrupted_then_killed_then_resumed(sweep, plain, tmp_path):
    p = sweep([0], '--workers', 1)
    kernel, state = training(tmp_path)
    family = psutil.Process(p.pid).children(recursive=True) + [kernel]
    os.killpg(p.pid, signal.SIGINT)  # as a terminal does
    assert 'the same command goes on' in ended(p, 130)
    until(lambda: not any(map(alive, family)), 20)
    p, before = sweep([0], '--workers', 1), state.stat().st_mtime_ns
    until(lambda: state.stat().st_mtime_ns > before)
    family = psutil.Process(p.pid).children(recursive=True)
    p.kill()
    until(lambda: not any(map(alive, family)), 20)
    assert not records(tmp_path) and state.exists()
    out = ended(sweep([0], '--workers', 1))
    assert records(tmp_path)[0]['result'] == plain[0] and 'test miou' in out
    assert '1 were done before' in ended(sweep())


@pytest.mark.soak
def test_short_of_memory_then_told_to_end(sweep, plain, tmp_path):
    """Linux kills what takes too much memory: that run fails and says so, the other is
    done; the next call goes on, is told to end, and takes all its processes with it."""
    p = sweep([0, 1], '--workers', 1)
    kernel, state = training(tmp_path)
    kernel.kill()
    out = ended(p, 1)
    assert '1 done, 1 failed' in out and 'exit code -9, perhaps for want of memory' in out and [r['seed'] for r in records(tmp_path)] == [1]
    p, before = sweep([0, 1], '--workers', 1), state.stat().st_mtime_ns
    kernel = until(lambda: holder(state.parent/'lock'))
    until(lambda: state.stat().st_mtime_ns > before)
    family = psutil.Process(p.pid).children(recursive=True) + [kernel]
    p.terminate()
    assert 'stopped with 1 done, 1 running; the same command goes on' in ended(p, 143)
    until(lambda: not any(map(alive, family)), 20)
    assert '2 runs: 2 done; 1 were done before' in ended(sweep([0, 1], '--workers', 1))
    assert records(tmp_path)[0]['result'] == plain[0] and not list(tmp_path.rglob('state-*'))


@pytest.mark.soak
def test_two_sweeps_at_once(sweep, tmp_path):
    ps = [sweep([0, 1], '--workers', 1) for _ in range(2)]
    seen = {}
    while any(p.poll() is None for p in ps):
        for r in tmp_path.rglob('record.json'): seen.setdefault(r, set()).add(r.stat().st_mtime_ns)
        time.sleep(.02)
    assert all('2 runs: 2 done' in ended(p) for p in ps)
    assert len(seen) == 2 and all(len(times) == 1 for times in seen.values())


def test_a_failing_run(sweep, tmp_path):
    out = ended(sweep([0], '--workers', 1, overrides=[{'model_args': {'block': 'dubble'}}, {'epochs': 1}]), 1)
    assert len(records(tmp_path)) == 1 and "did you mean double?" in out and '1 done, 1 failed' in out
    page, = tmp_path.rglob('failed.ipynb')
    assert page.with_suffix('.log').exists() and any(o.output_type == 'error' and o.ename == 'MarsError' for c in nbformat.read(page, 4).cells
        for o in c.get('outputs', []))
    out = ended(sweep([0], '--dry-run', overrides=[{'model_args': {'block': 'dubble'}}, {'epochs': 1}]))
    assert '1 of 2 done' in out and 'of training' in out


@pytest.mark.soak
@pytest.mark.parametrize('kilobytes, whole', [(8, []), (140, ['record.json'])], ids=['state', 'page'])
def test_a_full_disk(mars, tmp_path, kilobytes, whole):
    "Files may only grow to a few kB: with 8 the first state cannot be written, with 140 the page."
    (tmp_path/'r.yml').write_text(yaml.safe_dump({'team': 'scratch', 'row': 'tiny', **TINY, 'epochs': 1}))
    env = os.environ | {'MARSNB_DATA': str(mars), 'MARSNB_RUNS': str(tmp_path/'runs'), 'MARSNB_SAVE_SECONDS': '0'}
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024,) * 2)
    train = lambda **more: subprocess.run([BIN/'marsnb', 'train', 'r.yml'], cwd=tmp_path, env=env, capture_output=True, text=True, **more)
    r = train(preexec_fn=limit)
    assert r.returncode == 1 and 'File too large' in r.stderr and 'Traceback' not in r.stderr, r.stderr
    assert [p.name for p in tmp_path.rglob('record.json')] == whole and not list(tmp_path.rglob('page.ipynb')) and not [p for p in tmp_path.rglob('.*')
        if p.is_file()]
    assert train().returncode == 0 and len(list(tmp_path.rglob('page.ipynb'))) == len(records(tmp_path)) == 1


@pytest.mark.parametrize('text, words', [('recipe: [hendrix/*]', 'did you mean recipes?'), ('recipes: [hendrix/flagshp]', 'did you mean hendrix/flagship?'),
    ('recipes: [hendrix/flagship]\noverrides: [{epohcs: 3}]', 'did you mean epochs?'),
    ('recipes: [c.yml]', 'no such file'),
    ('a: &a [x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a]\nrecipes: [*b, *b]', 'unknown key a'),
    ('!!python/object/apply:os.system [touch x]', 'not YAML')])
def test_a_bad_sweep(inside, tmp_path, text, words):
    (tmp_path/'s.yml').write_text(text)
    (tmp_path/'c.yml').write_text('{team: hendrix, row: flagship, members: [hendrix/flagshp]}')
    r = inside('sweep', 's.yml')
    assert r.returncode == 2 and words in r.stderr and len(r.stderr.strip().splitlines()) == 1, r.stderr
    assert not (tmp_path/'runs').exists() and not (tmp_path/'x').exists()


def test_the_sweeps_that_come_with_the_project():
    from marsnb import plan, teams
    rows = lambda name: [f'{r.team}/{r.row}' for r in plan.plan([name]) if not r.seed]
    reported = teams.reported()
    assert set(rows('all')) == {f'{p.parent.name}/{p.stem}' for p in plan.find('*')}
    assert set(rows('seeds')) == {f'{t}/{r}' for t, r in zip(reported.team, reported.row)} | {r for r in rows('all') if r.startswith('beyond/')} and {r.seed
        for r in plan.plan(['seeds'])} == {0, 1, 2}
    assert {r.split('/')[0] for r in rows('default')} == set(teams.BASELINES)


def test_a_scheduler_that_is_not_there(marsnb, mars):
    r = marsnb('sweep', 'hendrix/baseline_no_aug', '--scheduler', 'tcp://127.0.0.1:1', MARSNB_DATA=str(mars))
    assert r.returncode == 2 and 'no scheduler' in r.stderr and 'Traceback' not in r.stderr
