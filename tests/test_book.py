"The built report in a browser: every page opens, nothing leaves the machine, pictures load, the confusion matrix is legible on a phone."
import os, re, shutil, subprocess

import pytest

from browsing import chromium, complaints, pages, visit, without_alternative
from conftest import BIN, ROOT, copied

ROWS = ['hendrix/baseline_no_aug', 'los_pinguinos/first']  # two of the default rows: enough to see every kind of page


@pytest.fixture(scope='module')
def browser(): yield from chromium()


def report(clone):
    env = {k: v for k, v in os.environ.items() if k not in ('MARSNB_DATA', 'MARSNB_RUNS')} | {'PYTHONPATH': str(clone)}
    r = subprocess.run([BIN/'marsnb', 'report', *ROWS], cwd=clone, env=env, capture_output=True, text=True)
    assert r.returncode == 0, (r.stdout + r.stderr)[-3000:]


def files(clone):
    return {p: p.read_bytes() for p in sorted(clone.rglob('*')) if p.is_file() and not {'_build', '__pycache__', '.ipynb_checkpoints'} & {*p.parts}
        and p.relative_to(clone).parts[0] != 'runs'}


@pytest.fixture(scope='module')
def html(tmp_path_factory):
    "The report of two rows, trained for an epoch in a clone, and of the committed records of the first of them and of our own systems."
    clone = copied(tmp_path_factory.mktemp('clone')/'marsnb', 'marsnb', 'nbs', 'book', 'requirements.lock', 'pyproject.toml', 'settings.ini')
    for row in (clone/'book'/'runs').glob('*/*/*'):
        if '/'.join(row.parts[-2:]) != ROWS[0] and row.parts[-2] != 'beyond': shutil.rmtree(row)
    for row in ROWS:
        with open(clone/'nbs'/'experiments'/'recipes'/f'{row}.yml', 'a') as f: f.write('epochs: 1\nshare: .2\n')
    before = files(clone)
    report(clone)
    assert files(clone) == before, 'the report must leave committed files alone'
    return clone/'book'/'_build'/'html'


@pytest.fixture(scope='module')
def book(html): return pages(html)


def test_all_pages_are_there(book):
    wanted = {'index', 'compare', 'claims', 'ideas', 'cost', 'failures', 'dataset', 'network', 'method', 'reproducing', 'clusters', 'references',
        *(p.stem for p in (ROOT/'nbs').glob('*.ipynb'))}
    assert not (missing := wanted - {p.stem for p in book}), missing


def test_every_page_shows_the_whole_contents(book, html):
    from bs4 import BeautifulSoup
    def shown(page): return [' '.join(a.text.split()) for a in BeautifulSoup(page.read_text(encoding='utf-8'), 'html.parser').select('nav.bd-links a')]
    first = shown(html/'index.html')
    assert len(first) > 30 and not (stale := [p.name for p in book if shown(p) != first]), stale


def test_second_report_does_no_work_twice(html):
    clone = html.parents[2]
    before = {p: p.stat().st_mtime_ns for p in (clone/'runs').rglob('*') if p.name in ('record.json', 'page.ipynb', 'dataset.ipynb')}
    report(clone)
    assert len(before) == 5 and all(p.stat().st_mtime_ns == t for p, t in before.items())


def test_pages_name_no_machine(book):
    for page in book: assert not re.search(r'(?<![\w.])/(work|root|home|tmp)/[a-z]', page.read_text()), page


def test_pages_refer_to_nothing_outside(book):
    "No script, style, picture or frame comes from elsewhere; links that a reader may click do."
    for page in book: assert not re.findall(r'<(?:script|img|iframe|link)[^>]+(?:src|href)="(?:https?:)?//[^"]+', page.read_text()), page


def test_every_page_opens_without_errors_or_requests(book, browser):
    assert len(book) > 15
    for page in book:
        visit(browser, page)
        assert browser.find_elements('css selector', 'h1'), page
        assert browser.execute_script("document.querySelectorAll('img').forEach(i => i.loading = 'eager'); return [...document.images].every(i => i.complete "
            "&& i.naturalWidth > 0)"), f'{page}: a picture is missing'
        said = complaints(browser)
        assert not said, (page, said)


def test_every_picture_says_what_is_seen(html):
    silent, n = without_alternative(html)
    assert n > 50 and not silent


@pytest.mark.parametrize('width', [1280, 400])
def test_confusion_matrix_is_legible(book, browser, width):
    tables = [p for p in book if '<table class="confusion' in p.read_text(encoding='utf-8')]  # pages of teams and of runs
    assert any(p.name == 'baseline_no_aug.html' for p in tables)
    for page in tables[:4]:
        visit(browser, page, width)
        inner = browser.execute_script('return document.documentElement.clientWidth')
        box, size = browser.execute_script('''const t = document.querySelector('table.confusion'), r = t.getBoundingClientRect();
            return [{left: r.left, right: r.right}, parseFloat(getComputedStyle(t.querySelector('td')).fontSize)]''')
        assert box['left'] >= 0 and box['right'] <= inner + 1 and size >= 9, (page.name, box, size)
