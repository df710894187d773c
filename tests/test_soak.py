"""What is too slow for `make test`: every row of the reports end to end, and 120 short runs, each in one sweep
whose memory is watched; and sweeps that are killed again and again, wherever it hurts. Run by `make soak`."""
import contextlib, json, os, random, resource, signal, subprocess, time
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml

from conftest import BIN
from marsnb.data import save, synthetic
from marsnb.recipes import RECIPES, load, trains
from test_sweep import TINY, alive, records, until

pytestmark = pytest.mark.soak
SHARED = Path('/dev/shm')


@pytest.fixture(scope='module')
def mars(tmp_path_factory):
    path = tmp_path_factory.mktemp('mars')/'mars.npz'
    save(path, synthetic(120, 12))
    return path


def start(folder, mars, sweep, *args, **more):
    "`marsnb sweep` of the mapping `sweep`, with records in `folder` and what it says in `folder`/said."
    folder.mkdir(exist_ok=True)
    (folder/'sweep.yml').write_text(yaml.safe_dump(sweep))
    env = os.environ | {'MARSNB_DATA': str(mars), 'MARSNB_RUNS': str(folder/'runs'), 'MARSNB_SAVE_SECONDS': '0', 'TMPDIR': str(folder/'tmp'),
        'JUPYTER_RUNTIME_DIR': str(folder/'tmp')}
    (folder/'tmp').mkdir(exist_ok=True)
    with open(folder/'said', 'w') as said:
        return subprocess.Popen([BIN/'marsnb', 'sweep', folder/'sweep.yml', *map(str, args)], cwd=folder, env=env, stdout=said, stderr=subprocess.STDOUT,
            start_new_session=True, **more)


def family(p):
    try: return psutil.Process(p.pid).children(recursive=True)
    except psutil.NoSuchProcess: return []


def part(p, q):
    "What the process `q` is in the sweep `p`: the sweep itself with its scheduler, a worker, what a worker forks its kernels from; None for others."
    if q.pid == p.pid: return 'sweep'
    said = ' '.join(q.cmdline())
    if q.ppid() == p.pid and 'spawn_main' in said: return 'worker'
    if 'forkserver' in said and q.parent().ppid() == p.pid: return 'forkserver'


def watched(p, folder):
    "Wait for `p`; gives [(runs done, {part and pid: MB})] of the processes that last, once a second, and all processes there were."
    seen, processes = [], {}
    while p.poll() is None:
        members = family(p)
        processes |= {q.pid: q for q in members}
        mb = {}
        for q in [psutil.Process(p.pid), *members]:
            with contextlib.suppress(psutil.Error, AttributeError):
                if kind := part(p, q): mb[f'{kind} {q.pid}'] = q.memory_info().rss / 2**20
        seen.append((sum(1 for _ in (folder/'runs').rglob('record.json')), mb))
        time.sleep(1)
    return seen, list(processes.values())


def slope(seen, who):
    "MB more for each run, over the later half of the runs."
    n, mb = np.array([(n, m[who]) for n, m in seen if who in m and n >= seen[-1][0] / 2]).T
    return np.polyfit(n, mb, 1)[0] if np.ptp(n) else 0.


def growth(seen):
    "The `slope` of all who were there in the later half, which is also printed."
    last = {who: mb for n, each in seen if n >= seen[-1][0] / 2 for who, mb in each.items()}
    grows = {who: slope(seen, who) for who in last}
    print(f'{seen[-1][0]} runs; MB more a run:', {who: f'{s:.3f}' for who, s in grows.items()}, 'at the end:', {who: round(mb) for who, mb in last.items()})
    return grows


def orphans(shared):
    "Blocks of shared memory that came after those named in `shared` and that no process uses."
    used = set()
    for q in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError): used |= {m.path for m in q.memory_maps()}
    return {str(f) for f in SHARED.iterdir()} - shared - used if SHARED.exists() else set()


def test_every_row(mars, tmp_path):
    """Most of the time goes into tracing networks, so each is whole once: further
    rows with the same have three levels of it, and all else that they say."""
    rows, whole = sorted(RECIPES.glob('*/*.yml')), {}
    for f in rows:
        r = load(f)
        whole.setdefault(str([r.model, r.widths, r.model_args] if trains(r) else f), f)
    again = [str(f) for f in rows if f not in whole.values()]
    (tmp_path/'again.yml').write_text(yaml.safe_dump({'recipes': again, 'overrides': [{'epochs': 1, 'widths': [8, 16, 32]}]}))
    p = start(tmp_path, mars, {'recipes': [str(f) for f in whole.values()], 'overrides': [{'epochs': 1}]}, tmp_path/'again.yml')
    seen, processes = watched(p, tmp_path)
    said = (tmp_path/'said').read_text()
    assert p.returncode == 0, said[-3000:]
    found = {(r['team'], r['row']): r for r in records(tmp_path/'runs')}
    assert {(f.parent.name, f.stem) for f in rows} <= set(found)
    for r in found.values(): assert 0 <= r['result']['test']['miou'] <= 1 and r['cost']['parameters'] > 0
    pages = list((tmp_path/'runs').rglob('page.ipynb'))
    assert len(pages) >= len(rows) and all('image/png' in f.read_text() and '"output_type": "error"' not in f.read_text() for f in pages)
    until(lambda: not any(map(alive, processes)), 20)
    left = [f for f in (tmp_path/'tmp').rglob('*') if f.is_file() and 'dask' not in str(f)] + [f for f in (tmp_path/'runs').rglob('*')
        if f.name.startswith(('.', 'state-', 'failed'))]
    assert not left, left
    assert all(s < 1 for s in growth(seen).values())


def test_120_runs(tmp_path):
    """As short as runs can be: neither scheduler, workers nor what kernels are forked from grow with them, nor
    their open files, of which most systems allow 1024; and nothing stays in the folders for what does not last."""
    save(tmp_path/'mars.npz', synthetic(60, 1))
    (tmp_path/'r.yml').write_text(yaml.safe_dump({'team': 'scratch', 'row': 'tiny', 'clean': [], 'widths': [2], 'epochs': 1}))
    shared = {str(f) for f in SHARED.iterdir()} if SHARED.exists() else set()
    p = start(tmp_path, tmp_path/'mars.npz', {'recipes': [str(tmp_path/'r.yml')], 'seeds': list(range(120))},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024)))
    seen, processes = watched(p, tmp_path)
    assert p.returncode == 0 and len(records(tmp_path/'runs')) == 120, (tmp_path/'said').read_text()[-3000:]
    until(lambda: not any(map(alive, processes)), 20)
    left = [f for f in (tmp_path/'tmp').rglob('*') if f.name not in ('dask-scratch-space', 'global.lock', 'purge.lock')] + [f
        for f in (tmp_path/'runs').rglob('*') if f.name.startswith(('.', 'state-', 'failed'))]
    assert not left and not orphans(shared), left
    grows = growth(seen)
    assert len(grows) == 5 and all(s < .05 for s in grows.values())


def test_killed_again_and_again(mars, tmp_path):
    """Twelve times something of a sweep is killed, whatever it is: the sweep itself, a worker,
    a kernel, the process they are forked from. What comes out is what comes out in peace."""
    (tmp_path/'r.yml').write_text(yaml.safe_dump({'team': 'scratch', 'row': 'tiny', **TINY}))
    sweep = {'recipes': [str(tmp_path/'r.yml')], 'seeds': [0, 1, 2, 3]}
    assert start(tmp_path/'peace', mars, sweep).wait() == 0
    chance, kills, p, began = random.Random(0), 0, start(tmp_path/'war', mars, sweep), time.monotonic()
    processes = {}
    while kills < 12 and time.monotonic() < began + 600:
        time.sleep(chance.uniform(4, 12))
        if p.poll() == 0: break
        if p.returncode is not None: p = start(tmp_path/'war', mars, sweep)
        members = family(p)
        processes |= {q.pid: q for q in members}
        victim = chance.choice([psutil.Process(p.pid), *members])
        try: victim.kill(); kills += 1
        except psutil.NoSuchProcess: pass
    for _ in range(4):
        if p.wait(300) != 0: p = start(tmp_path/'war', mars, sweep)
    assert p.wait() == 0 and kills > 5, (tmp_path/'war'/'said').read_text()[-3000:]
    assert [r['result'] for r in records(tmp_path/'war')] == [r['result'] for r in records(tmp_path/'peace')] and len(records(tmp_path/'war')) == 4
    until(lambda: not any(map(alive, processes.values())), 20)
    assert not [f for f in (tmp_path/'war'/'runs').rglob('.*') if f.is_file()]


def test_a_lost_scheduler(mars, tmp_path):
    "The sweep says so and ends; the next one goes on."
    (tmp_path/'r.yml').write_text(yaml.safe_dump({'team': 'scratch', 'row': 'tiny', **TINY}))
    sweep = {'recipes': [str(tmp_path/'r.yml')], 'seeds': [0, 1]}
    env = os.environ | {'MARSNB_RUNS': str(tmp_path/'runs'), 'MARSNB_SAVE_SECONDS': '0'}
    dask = lambda *args: subprocess.Popen([BIN/'dask', *args, '--host', '127.0.0.1', '--no-dashboard'], cwd=tmp_path, env=env, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL)
    scheduler = dask('scheduler', '--port', '0', '--scheduler-file', 's.json')
    until((tmp_path/'s.json').exists)
    worker = dask('worker', '--scheduler-file', 's.json', '--nthreads', '1')
    try:
        p = start(tmp_path, mars, sweep, '--scheduler', json.loads((tmp_path/'s.json').read_text())['address'])
        until(lambda: list(tmp_path.rglob('state-*.npz')))
        scheduler.send_signal(signal.SIGKILL)
        assert p.wait(120) == 1
        said = (tmp_path/'said').read_text()
        assert 'the same command goes on' in said and 'Traceback' not in said, said
        assert start(tmp_path, mars, sweep).wait() == 0 and len(records(tmp_path)) == 2
    finally:
        for q in (scheduler, worker): q.kill(); q.wait()
