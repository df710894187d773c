"The notebooks are in step with the package, and the project's files agree with each other."
import ast, importlib.metadata, os, re, shutil, subprocess, sys, tomllib

import nbformat, pytest, yaml
from packaging.requirements import Requirement

from conftest import BIN, ROOT, tracked


NOTEBOOKS = sorted((ROOT/'nbs').glob('*.ipynb'))
normal = lambda name: re.sub(r'[-_.]+', '-', name).lower()


def copied(copy, *suffixes):
    "The project's files of these kinds, in the folder `copy`."
    for path in tracked('*'):
        if path.suffix in suffixes and 'tests' not in path.parts:
            (copy/path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy/path.relative_to(ROOT))
    return copy


def cells(notebook):
    "The code of `notebook`, cell by cell, without what is for IPython alone."
    return ['\n'.join(l for l in c.source.splitlines() if not l.lstrip().startswith(('%', '!'))) for c in nbformat.read(notebook, 4).cells
        if c.cell_type == 'code']


def test_package_is_in_step_with_notebooks(tmp_path):
    copy = copied(tmp_path/'copy', '.ipynb', '.py', '.ini', '.toml')
    for command in ('nbdev_export', 'nbdev_clean'): subprocess.run([BIN/command], cwd=copy, check=True, capture_output=True)
    changed = [str(p.relative_to(copy)) for p in copy.rglob('*') if p.is_file() and '__pycache__' not in p.parts and (not (ROOT/p.relative_to(copy)).exists()
        or p.read_bytes() != (ROOT/p.relative_to(copy)).read_bytes())]
    assert not changed, f'run nbdev_export and nbdev_clean: {changed}'


def test_environment_follows_lock():
    env = yaml.safe_load((ROOT/'environment.yml').read_text())
    conda, pip = env['dependencies'][:-1], env['dependencies'][-1]['pip']
    assert '--constraint requirements.lock' in pip and any(p.startswith('--editable .[') for p in pip)
    assert set(re.match(r'[a-z]+', c)[0] for c in conda) == {'python', 'pip'}, 'everything but Python comes through pip, under the lock'


def test_lock_holds_what_is_installed():
    lock = dict(l.split('==') for l in (ROOT/'requirements.lock').read_text().split())
    lock = {normal(k): v for k, v in lock.items()}
    todo, seen = ['marsnb[cpu,dev]'], set()
    while todo:  # everything that the project needs, and what that needs in turn
        need = Requirement(todo.pop())
        for r in map(Requirement, importlib.metadata.requires(need.name) or []):
            if any(r.marker is None or r.marker.evaluate({'extra': e}) for e in need.extras or {''}) and (key := (normal(r.name),
                    tuple(sorted(r.extras)))) not in seen:
                seen.add(key); todo.append(f'{r.name}[{",".join(r.extras)}]' if r.extras else r.name)
    missing = [n for n, _ in seen if n not in lock]
    assert not missing, f'not in requirements.lock: {missing}'
    differs = [n for n, _ in seen if importlib.metadata.version(n) != lock[n]]
    assert not differs, f'installed in another version than requirements.lock says: {differs}'


def test_no_path_of_a_machine():
    found = [str(p.relative_to(ROOT)) for p in tracked('*') if p.suffix in ('.ipynb', '.py', '.md', '.yml', '.toml', '.ini', '.json', '')
        and re.search(r'/(work|home|root|tmp)/[a-z]|/Users/', p.read_text(errors='ignore')) and 'tests' not in p.parts]
    assert not found


def test_no_output_of_a_notebook_warns():
    found = [(p.name, str(o)[:200]) for p in sorted((ROOT/'nbs').rglob('*.ipynb')) for c in nbformat.read(p, 4).cells for o in c.get('outputs', [])
        if o.output_type == 'error' or o.output_type == 'stream' and (o.name == 'stderr' or 'WARNING' in o.text)]
    assert not found


def test_notebooks_import_marsnb_before_keras():
    "For what it asks of TensorFlow is read when that is imported."
    for p in sorted((ROOT/'nbs').rglob('*.ipynb')):
        imported = [m for c in nbformat.read(p, 4).cells if c.cell_type == 'code' for m in re.findall(r'^(?:import|from) (marsnb|keras)', c.source, re.M)]
        assert 'keras' not in imported or imported[0] == 'marsnb', p.name


def test_template_and_recipe_have_the_same_fields():
    import dataclasses
    from marsnb.recipes import Recipe
    nb = nbformat.read(ROOT/'nbs'/'experiments'/'train.ipynb', 4)
    cell, = [c for c in nb.cells if 'parameters' in c.metadata.get('tags', [])]
    said = {n.target.id: (n.annotation.id, ast.literal_eval(n.value)) for n in ast.parse(cell.source).body}
    plain = Recipe()
    assert said == {f.name: (getattr(f.type, '__name__', f.type), getattr(plain, f.name)) for f in dataclasses.fields(Recipe)}
    assert all('  # ' in l for l in cell.source.splitlines() if not l.startswith('#')), 'every parameter is explained'


def test_ruff_finds_nothing():
    r = subprocess.run([BIN/'ruff', 'check', '--no-cache', 'marsnb'], cwd=ROOT, capture_output=True, text=True)
    assert r.returncode == 0, r.stdout + r.stderr


# what is needed but imported nowhere, and why
TOOLS = {'distributed': 'dask.distributed', 'jupyter-book': 'builds the report', 'pydata-sphinx-theme': 'its look, kept below a version',
    'tensorflow': 'as tensorflow-cpu, for other machines', 'tensorboard': 'Keras imports it where a recipe says tensorboard: true',
    'jupyterlab': 'make lab', 'execnb': 'of nbdev, kept below a version', 'fastcore': 'of nbdev, kept below a version',
    'ghapi': 'of nbdev, kept below a version', 'ruff': 'its command'}


MAY_BE_MISSING = {'torch', 'ipywidgets'}  # measured beside us where it is installed; for JupyterLab, which comes with dev


def imports(source):
    "The packages that the Python text `source` imports, without those of the project and of Python itself."
    nodes = list(ast.walk(ast.parse(source)))
    names = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names} | {n.module for n in nodes if isinstance(n, ast.ImportFrom) and not n.level}
    return {n.split('.')[0] for n in names} - {'marsnb'} - {p.stem for p in (ROOT/'tests').glob('*.py')} - sys.stdlib_module_names


@pytest.fixture(scope='module')
def used():
    "The packages that the project imports, and those among them that the package itself does."
    own = set().union(*(imports(p.read_text()) for p in tracked('marsnb/*.py')))
    return own.union(*(imports(p.read_text()) for p in tracked('tests/*.py')), *(imports(s) for p in tracked('*.ipynb') for s in cells(p))), own


@pytest.fixture(scope='module')
def wanted():
    "What pyproject.toml asks for: {name: requirement}, of the package and its extras, and of those who develop it."
    project = tomllib.loads((ROOT/'pyproject.toml').read_text())['project']
    of = lambda lists: {normal(r.name): r for r in map(Requirement, sum(lists, []))}
    extras = project['optional-dependencies']
    return of([project['dependencies'], *(v for k, v in extras.items() if k != 'dev')]), of([extras['dev']])


def test_every_dependency_is_imported(used, wanted):
    gives = {}
    for package, names in importlib.metadata.packages_distributions().items():
        for name in names: gives.setdefault(normal(name), set()).add(package)
    unused = {w for w in wanted[0] | wanted[1] if not gives.get(w, set()) & used[0]}
    assert unused == set(TOOLS), f'imported nowhere: {unused - set(TOOLS)}; no tool any more: {set(TOOLS) - unused}'


def test_every_import_is_a_dependency(used, wanted):
    given = importlib.metadata.packages_distributions()
    missing = lambda packages, asked: {p for p in packages - MAY_BE_MISSING if not {normal(n) for n in given.get(p, ())} & set(asked)}
    assert not missing(used[1], wanted[0]), 'marsnb imports it: it belongs to the dependencies'
    assert not missing(used[0], wanted[0] | wanted[1]), 'notebooks or tests import it: it belongs to dev'


def test_lock_is_what_dependencies_allow(wanted):
    lock = {normal(name): version for name, version in (l.split('==') for l in (ROOT/'requirements.lock').read_text().split())}
    assert not {str(r) for name, r in (wanted[0] | wanted[1]).items() if name in lock and lock[name] not in r.specifier}


# those of the MPL are used as they are
ALLOWING = re.compile(r'MIT|BSD|0BSD|3-Clause BSD|Apache|ISC|Zlib|CC0|PSF|Python Software Foundation|MPL-2|Mozilla Public License 2|Public Domain')
DOCUTILS = 'GNU General Public License (GPL)'  # of a file for Emacs that is not installed


def test_licences_allow_apache_2():
    from marsnb import report
    table = report.licences()
    assert set(table.index[table.licence == '']) <= {'tensorflow'}, 'not installed, or under no licence'
    pieces = lambda name, said: [p for p in re.split(r' AND | OR |; ', said) if p and not (name == 'docutils' and p == DOCUTILS)]
    wrong = {n: said for n, said in table.licence.items() for p in pieces(n, said) if not ALLOWING.match(p)}
    assert not wrong
    assert 'report.licences()' in (ROOT/'book'/'reproducing.md').read_text()


# exported functions that no notebook can call, and what calls them instead
ELSEWHERE = {'book': ('test_book.py', 'summary_pages run_page run_pages stage setup render build'), 'bench': ('../Makefile', 'main')}


def said_in(tree):
    "All names and short texts in the syntax `tree`: a recipe names functions in texts."
    for n in ast.walk(tree):
        if isinstance(n, ast.Name): yield n.id
        elif isinstance(n, ast.Attribute): yield n.attr
        elif isinstance(n, ast.keyword) and n.arg: yield n.arg
        elif isinstance(n, ast.Constant) and isinstance(n.value, str) and len(n.value) < 200: yield from re.findall(r'\w+', n.value)


@pytest.mark.parametrize('notebook', NOTEBOOKS, ids=lambda p: p.stem)
def test_every_exported_function_is_used_in_its_notebook(notebook):
    "By a cell that is not exported, or by a function that such a cell uses."
    name = next((m[1] for s in cells(notebook) if (m := re.search(r'#\|\s*default_exp\s+(\S+)', s))), None)
    if not name: return
    body = ast.parse((ROOT/'marsnb'/f'{name.replace(".", "/")}.py').read_text()).body
    uses = {n.name: set(said_in(n)) for n in body if isinstance(n, (ast.FunctionDef, ast.ClassDef))} | {n.targets[0].id: set(said_in(n.value)) for n in body
        if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name) and n.targets[0].id != '__all__'}
    todo = {w for s in cells(notebook) if not re.search(r'(?m)^#\|\s*export', s) for w in said_in(ast.parse(s))} & set(uses)
    done = set()
    while todo: done.add(w := todo.pop()); todo |= (uses[w] & set(uses)) - done
    where, others = ELSEWHERE.get(name, ('', ''))
    assert not where or name in (ROOT/'tests'/where).read_text()
    unused = {n.name for n in body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and not n.name.startswith('_')} - done
    assert unused == set(others.split())


@pytest.fixture
def alone(tmp_path):
    "Runs a command in a folder, in a home of its own."
    (tmp_path/'home').mkdir()
    env = {k: v for k, v in os.environ.items() if not k.startswith('GIT_')} | {'HOME': str(tmp_path/'home'), 'GIT_CONFIG_NOSYSTEM': '1', 'GIT_AUTHOR_NAME': 'a',
        'GIT_AUTHOR_EMAIL': 'a@b', 'GIT_COMMITTER_NAME': 'a', 'GIT_COMMITTER_EMAIL': 'a@b'}
    def run(where, *command):
        where.mkdir(exist_ok=True)
        if command[0] == 'make': shutil.copy(ROOT/'Makefile', where)
        return subprocess.run(command, cwd=where, env=env, check=True, capture_output=True, text=True).stdout
    yield run
    assert not list((tmp_path/'home').iterdir()), 'the home folder is not touched'


def test_git_hooks(alone, tmp_path):
    clone, tree, none = tmp_path/'clone', tmp_path/'tree', tmp_path/'none'
    alone(none, 'make', 'hooks')
    assert {p.name for p in none.iterdir()} == {'Makefile'}
    alone(clone, 'git', 'init', '-q'); alone(clone, 'git', 'commit', '-q', '--allow-empty', '-m', 'first'); alone(clone, 'git', 'worktree', 'add', '-q', tree)
    alone(tree, 'make', 'hooks')
    assert 'nbdev_merge %O %A %B %P' in alone(clone, 'git', 'config', '--local', 'merge.nbdev-merge.driver')
    hook = clone/'.git'/'hooks'/'post-merge'
    assert 'nbdev_trust' in hook.read_text() and os.access(hook, os.X_OK)
    hook.write_text('#!/bin/sh\nexit 0\n')
    alone(clone, 'make', 'hooks')
    assert 'nbdev_trust' not in hook.read_text(), "somebody's own hook stays"
    alone(clone, 'git', '-c', 'init.defaultBranch=x', 'checkout', '-q', '-b', 'other'); alone(clone, 'git', 'commit', '-q', '--allow-empty', '-m', 'second')
    alone(tree, 'git', 'merge', '-q', 'other')
    assert '*.ipynb merge=nbdev-merge' in (ROOT/'.gitattributes').read_text()


ARCHITECTURE = '''#| export
@architecture
def bare(shape, n_classes, widths=(8, 16)):
    "A convolution."
    inp = keras.Input(shape)
    return inp, heads(inp, [conv(inp, widths[0])], n_classes)'''
LOSS = '''#| export
def brier(weights=None):
    "Squared error of the probabilities."
    return lambda y, logits: ops.mean((ops.softmax(logits) - ops.one_hot(y, logits.shape[-1])) ** 2)'''
TRY = '''
import numpy as np
from marsnb import plan, recipes
recipe, = plan.plan(['scratch/mine'])
net = recipes.build(recipe)
assert net.name == 'bare' and net.count_params() < 1000
y = np.zeros((1, 64, 128), 'uint8')
print(float(recipes.loss(recipe)(y + 1, net(np.ones((1, 64, 128, 1), 'float32')))))
'''


def test_the_steps_in_contributing(tmp_path):
    "An architecture, a loss and a recipe, added as CONTRIBUTING.md says, to a copy."
    said = (ROOT/'CONTRIBUTING.md').read_text()
    for name in re.findall(r'`((?:nbs|tests|book|marsnb)/[\w./]+)`', said): assert (ROOT/name).exists(), name
    copy = copied(tmp_path/'copy', '.ipynb', '.py', '.ini', '.toml', '.yml')
    def edit(name, change):
        assert name in said
        nb = nbformat.read(copy/name, 4); change(nb); nbformat.write(nb, copy/name)
    def put(source, before=''):
        def change(nb):
            i = next((i for i, c in enumerate(nb.cells) if before and before in c.source), len(nb.cells))
            nb.cells.insert(i, nbformat.v4.new_code_cell(source))
        return change
    def replaced(a, b):
        def change(nb):
            cell, = [c for c in nb.cells if a in c.source]
            cell.source = cell.source.replace(a, b)
        return change
    edit('nbs/06_models.context.ipynb', put(ARCHITECTURE)); edit('nbs/06z_models.all.ipynb', replaced('import deeplab,', 'import bare, deeplab,'))
    edit('nbs/07_losses.ipynb', put(LOSS, 'LOSSES = (')); edit('nbs/07_losses.ipynb', replaced('LOSSES = (ce,', 'LOSSES = (brier, ce,'))
    recipe = copy/'nbs'/'experiments'/'recipes'/'scratch'/'mine.yml'
    recipe.parent.mkdir(); recipe.write_text('team: scratch\nrow: mine\nnote: Ours.\nmodel: bare\nlosses: {ce: 1, brier: 0.5}\n')
    assert 'nbs/experiments/recipes/<team>/<row>.yml' in said
    for command in ('nbdev_export', 'nbdev_clean'):
        assert command in said
        subprocess.run([BIN/command], cwd=copy, check=True, capture_output=True)
    r = subprocess.run([sys.executable, '-c', TRY], cwd=copy, env=os.environ | {'PYTHONPATH': str(copy)}, capture_output=True, text=True)
    assert r.returncode == 0 and float(r.stdout) > 0, r.stderr[-2000:]
