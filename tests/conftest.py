"What crosses notebooks: the command line, papermill, the book, a browser. Notebooks test themselves."
import os, shutil, signal, subprocess, sys, warnings
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests begun in the background of a shell ignore interrupts, and so would what they start


# what takes longest begins first, beside all others
LONGEST = ('test_soak', 'test_backends', 'test_sweep', 'test_book', 'test_runs', 'test_report', 'test_models', 'test_notebooks')


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: next((i for i, name in enumerate(LONGEST) if name in item.nodeid), len(LONGEST)))
    real = os.environ.get('MARSNB_DATA')
    for item in items:
        if 'real' in item.keywords and not (real and Path(real).exists()):
            item.add_marker(pytest.mark.skip(reason='MARSNB_DATA names no file of real terrain'))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    "A file stays in one process, so that its fixtures are made once; notebooks and long soaks share none, each goes where there is room."
    from xdist.scheduler import LoadFileScheduling
    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid): return nodeid if 'test_notebooks' in nodeid or 'test_soak' in nodeid else super()._split_scope(nodeid)
    return ByFile(config, log)


@pytest.fixture
def marsnb(tmp_path):
    "Runs the command marsnb in an empty folder, on the synthetic Mars, with records going to `runs` there."
    def run(*args, preexec_fn=None, **env):
        env = {k: v for k, v in os.environ.items() if k != 'MARSNB_DATA'} | {'MARSNB_RUNS': str(tmp_path/'runs')} | env
        return subprocess.run([BIN/'marsnb', *map(str, args)], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600, preexec_fn=preexec_fn)
    return run


@pytest.fixture
def inside(tmp_path, monkeypatch, capfd):
    "As `marsnb`, but in this process, which need not import everything first."
    from marsnb import cli, runs
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('MARSNB_DATA', '')  # so that what a command sets goes with the test
    monkeypatch.setattr(runs, 'RUNS', tmp_path/'runs'); monkeypatch.setattr(runs, 'BOOK_RUNS', tmp_path/'runs')
    def run(*args):
        monkeypatch.setattr(sys, 'argv', ['marsnb', *map(str, args)])
        with warnings.catch_warnings(record=True) as said:  # which a terminal would show
            try: cli.main(); code = 0
            except SystemExit as e: code = e.code or 0
        assert not said, said
        return SimpleNamespace(returncode=code, **dict(zip(('stdout', 'stderr'), capfd.readouterr())))
    return run


def copied(to, *names, without=()):
    "The folder `to` with copies of files and folders of the project, but for what was built and what is called one of `without`."
    for name in names:
        if (ROOT/name).is_dir(): shutil.copytree(ROOT/name, to/name, ignore=shutil.ignore_patterns('__pycache__', '_build', '.ipynb_checkpoints', *without))
        else: shutil.copy(ROOT/name, to/name)
    return to


def tracked(pattern):
    "Files that git tracks, or would, matching `pattern`."
    out = subprocess.run(['git', '-C', ROOT, 'ls-files', '--cached', '--others', '--exclude-standard', pattern], capture_output=True, text=True,
        check=True).stdout
    return [ROOT/p for p in out.splitlines() if (ROOT/p).exists()]
