"The notebooks are in step with the package, and the project's files agree with each other."
import ast, importlib.metadata, os, re, shutil, subprocess, sys

import nbformat, pytest, yaml
from packaging.requirements import Requirement

from conftest import BIN, ROOT, tracked


def test_package_is_in_step_with_notebooks(tmp_path):
    copy = tmp_path/'copy'
    for path in tracked('*'):
        if path.suffix in ('.ipynb', '.py', '.ini', '.toml') and 'tests' not in path.parts:
            (copy/path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy/path.relative_to(ROOT))
    for command in ('nbdev_export', 'nbdev_clean'): subprocess.run([BIN/command], cwd=copy, check=True, capture_output=True)
    changed = [str(p.relative_to(copy)) for p in copy.rglob('*') if p.is_file() and '__pycache__' not in p.parts and (not (ROOT/p.relative_to(copy)).exists() or p.read_bytes() != (ROOT/p.relative_to(copy)).read_bytes())]
    assert not changed, f'run nbdev_export and nbdev_clean: {changed}'


def test_environment_follows_lock():
    env = yaml.safe_load((ROOT/'environment.yml').read_text())
    conda, pip = env['dependencies'][:-1], env['dependencies'][-1]['pip']
    assert '--constraint requirements.lock' in pip and any(p.startswith('--editable .[') for p in pip)
    assert set(re.match(r'[a-z]+', c)[0] for c in conda) == {'python', 'pip'}, 'everything but Python comes through pip, under the lock'


def test_lock_holds_what_is_installed():
    lock = dict(l.split('==') for l in (ROOT/'requirements.lock').read_text().split())
    name = lambda n: re.sub(r'[-_.]+', '-', n).lower()
    lock = {name(k): v for k, v in lock.items()}
    todo, seen = ['marsnb[cpu,dev]'], set()
    while todo:  # everything that the project needs, and what that needs in turn
        need = Requirement(todo.pop())
        for r in map(Requirement, importlib.metadata.requires(need.name) or []):
            if any(r.marker is None or r.marker.evaluate({'extra': e}) for e in need.extras or {''}) and (key := (name(r.name), tuple(sorted(r.extras)))) not in seen:
                seen.add(key); todo.append(f'{r.name}[{",".join(r.extras)}]' if r.extras else r.name)
    missing = [n for n, _ in seen if n not in lock]
    assert not missing, f'not in requirements.lock: {missing}'
    differs = [n for n, _ in seen if importlib.metadata.version(n) != lock[n]]
    assert not differs, f'installed in another version than requirements.lock says: {differs}'


def test_no_path_of_a_machine():
    found = [str(p.relative_to(ROOT)) for p in tracked('*') if p.suffix in ('.ipynb', '.py', '.md', '.yml', '.toml', '.ini', '.json', '') and re.search(r'/(work|home|root|tmp)/[a-z]|/Users/', p.read_text(errors='ignore')) and 'tests' not in p.parts]
    assert not found


def test_template_and_recipe_have_the_same_fields():
    import dataclasses
    from marsnb.recipes import Recipe
    nb = nbformat.read(ROOT/'nbs'/'experiments'/'train.ipynb', 4)
    cell, = [c for c in nb.cells if 'parameters' in c.metadata.get('tags', [])]
    said = {n.target.id: (n.annotation.id, ast.literal_eval(n.value)) for n in ast.parse(cell.source).body}
    plain = Recipe()
    assert said == {f.name: (getattr(f.type, '__name__', f.type), getattr(plain, f.name)) for f in dataclasses.fields(Recipe)}
    assert all('  # ' in l for l in cell.source.splitlines() if not l.startswith('#')), 'every parameter is explained'
