"The report from made-up records: it says what the records say, acts on nothing that stands in them, and reads well on a phone."
import json, re, resource, shutil, time

import nbformat
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup

import made_up
from browsing import chromium, complaints, pages, visit, without_alternative
from conftest import ROOT
from marsnb import book, ladder, metrics, report, teams, verdicts

ACTS = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script><svg onload="window.hacked=1">'
EVIL = ACTS + '[x](javascript:window.hacked=1) ![y](http://evil.example/y.png) {raw}`html` <iframe src="http://evil.example"></iframe> &lt;script&gt; "\'`*_'
FENCE = f'```{{raw}} html\n{ACTS}\n```\n\n```{{include}} ../../../../conftest.py\n```\n\n[z](../../../../conftest.py) ![w](http://evil.example/w.png)\n'


@pytest.fixture(scope='module')
def browser(): yield from chromium()


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    "A book of made-up records of two suites; the folder and the table."
    folder = tmp_path_factory.mktemp('book')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verdicts, 'CACHE', folder/'draws')
        patch.setattr(book, 'PAGES', folder/'pages')  # other tests make those of this clone meanwhile
        made_up.suite(folder/'records', rows=14, seeds=2)
        made_up.suite(folder/'records', rows=2, suite='synthetic-quick')
        table = report.records(folder/'records')
        book.build(table, folder, library=[])
        yield folder, table


def html(built): return built[0]/'_build'/'html'


def tables(page):
    "The tables of the HTML file `page`, figures as numbers."
    for t in BeautifulSoup(page.read_text(encoding='utf-8'), 'html.parser').select('table.dataframe'):
        head, *rows = [[c.get_text() for c in r.select('th, td')] for r in t.select('tr')]
        yield pd.DataFrame([[pd.to_numeric(c.replace(',', ''), errors='coerce') if re.fullmatch(r'[+-]?[\d.,]+|', c) else c for c in r] for r in rows],
            columns=head)


def the_table(page, first):
    "The table of `page` whose first heading is `first`."
    return next(t for t in tables(page) if t.columns[0] == first)


def test_every_figure_of_the_ladder_is_that_of_its_records(built):
    records, shown = report.headline_runs(built[1]), the_table(html(built)/'compare.html', 'row')
    assert len(shown) == 14 and shown.miou.is_monotonic_decreasing
    for (team, row), runs in records.groupby(['team', 'row']):
        line = shown[shown.row == report.title(team, row)].iloc[0]
        cm = sum(np.array(json.loads((p/'record.json').read_text())['result']['test']['confusion']) for p in runs.path)
        assert (line.miou, line.score, line['big rock']) == tuple(round(float(v), 3) for v in (metrics.miou(cm), metrics.score(cm), metrics.iou(cm)[4]))
        low, high = map(float, line['95 %'].split(' to '))
        assert low <= line.miou <= high and line.seeds == 2


def test_all_records_are_one_csv(built):
    path, = html(built).rglob('records.csv')
    table = pd.read_csv(path)
    assert len(table) == len(built[1]) == 30 and np.allclose(table['test miou'], built[1]['test miou']) and not table.columns.str.contains('path').any()


def test_every_claim_has_a_verdict(built):
    shown, waiting = list(tables(html(built)/'claims.html'))[:2]
    assert sorted([*shown.claim, *waiting.claim]) == sorted(c.claim for c in verdicts.claims()) and list(shown)[:4] == ['claim', 'team', 'verdict',
        'probability'] and 'quotation' in waiting
    words = shown.verdict.str.partition(' (')[0]
    order = [verdicts.VERDICTS.index(w) for w in words]
    assert order == sorted(order) and verdicts.WAITING not in set(words) and len(waiting)
    assert words[shown.probability >= verdicts.CONFIDENCE].isin(['holds', 'seems to hold']).all() and (shown.probability >= verdicts.CONFIDENCE).any()
    text, noted = (html(built)/'claims.html').read_text().replace('’', "'"), [c for c in verdicts.claims() if c.note]
    assert noted and all((c.note in text) == (c.claim in set(shown.claim)) for c in noted)


def test_each_row_stands_beside_the_best_on_the_same_tiles(built):
    records, shown = report.headline_runs(built[1]), the_table(html(built)/'compare.html', 'row')
    of = {report.title(*name): runs for name, runs in records.groupby(['team', 'row'])}
    assert np.isnan(shown['to the best'][0])
    for line in shown[1:].itertuples():
        d = verdicts.difference(of[line.row], of[shown.row[0]])
        assert (line[4], line[5]) == (round(d.value, 3), ladder.span(d.low, d.high, '{:+.3f}'))


def test_each_team_has_a_part_with_its_own_tables(built):
    said = teams.reported()
    for team in said.team.unique():
        page = html(built)/'teams'/f'{team}.html'
        both, theirs = the_table(page, 'row'), pd.concat([t for t in tables(page) if 'source' in t])
        assert set(theirs.row) == set(said[said.team == team].row.str.replace('_', ' ')) and {'reported', 'measured'} <= set(both)
        text = page.read_text(encoding='utf-8')  # metric and part of each figure: a column or, where they are all the same, a sentence above
        assert all((f'{how} as' in both) != (f'{how} as <em>' in text) for how in ('reported', 'measured')), team
        assert 'difference' not in both, 'the data is not the same'


def test_real_data_comes_first_and_quick_runs_are_marked(built):
    contents = (built[0]/'_build'/'src'/'_toc.yml').read_text()
    assert contents.index('ai4mars-gpu') < contents.index('Further runs: synthetic-quick')
    assert 'Made-up' not in (html(built)/'index.html').read_text()
    assert 'far too short to judge by' in (html(built)/'runs'/'synthetic-quick'/'cortex_creators'/'single_unet.html').read_text()


def test_a_page_is_that_of_its_record_whatever_notebook_lies_beside_it(built):
    folder, table = built
    run = table[table.row == 'baseline'].iloc[:1]; kept = folder/'kept'
    before = book.run_page(run, kept, 'baseline')
    older = run.path.iloc[0]/'page.ipynb'
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell('# of an older record')]), older)
    try: assert book.run_page(run, folder/'other', 'baseline') == before and 'of an older record' not in before
    finally: older.unlink()


def test_a_moved_record_is_another(built, tmp_path):
    folder, table = built
    run = table[table.row == 'baseline'].iloc[:1]; home = run.path.iloc[0]
    moved = tmp_path.joinpath(*home.parts[-4:-2], 'renamed', '0'); shutil.copytree(home, moved)
    kept = tmp_path/'kept'
    book.run_page(run, kept, 'x'); book.run_page(report.records(tmp_path), kept, 'x')
    assert len(list(kept.iterdir())) == 2


NO_RESULTS = {'references': '.', 'network': '128 pixels wide', 'clusters': 'to 1 in|16 GB a run'}  # years and titles; settings


@pytest.mark.parametrize('page', sorted((ROOT/'book').glob('*.md')), ids=lambda p: p.stem)
def test_no_figure_is_typed_into_prose(page):
    "What stands in code, and digits in names such as AI4Mars or Apache-2.0, are none."
    prose = re.sub(r'^---\n.*?\n---\n|```.*?```|`[^`\n]*`', '', page.read_text(encoding='utf-8'), flags=re.S)
    prose = re.sub(rf'{NO_RESULTS.get(page.stem, "(?!)")}|[A-Za-z][\w.-]*', '', prose)
    assert not re.findall(r'\d.{,30}', prose)


def test_every_picture_says_what_is_seen(built):
    silent, n = without_alternative(html(built))
    assert n > 15 and not silent


def test_tables_sort_and_filter(built, browser):
    visit(browser, html(built)/'compare.html')
    rows = lambda: [r.text.split('\n')[0] for r in browser.find_elements('css selector', 'table.dataframe tbody tr') if r.is_displayed()]
    heading = lambda name: next(b for b in browser.find_elements('css selector', 'table.dataframe thead button') if b.text.startswith(name))
    figures = lambda: [float(c.text) for c in browser.find_elements('css selector', 'table.dataframe tbody td:nth-child(2)')]
    before = figures()
    def click(name): browser.execute_script('arguments[0].scrollIntoView({block: "center", behavior: "instant"})', heading(name)); heading(name).click()
    click('miou')
    assert figures() == sorted(before) and heading('miou').find_element('xpath', '..').get_attribute('aria-sort') == 'ascending'
    heading('miou').send_keys('\n')
    assert figures() == sorted(before, reverse=True) and [e.text.split()[0] for e in browser.find_elements('css selector', 'th[aria-sort]')] == ['miou']
    click('parameters')
    assert figures() == sorted(before), 'made up so that larger networks are better; numbers sort as numbers'
    browser.find_element('css selector', '.table-filter input').send_keys('hendrix')
    assert len(rows()) == 2 and all('Hendrix' in r for r in rows()) and browser.find_element('css selector',
        '.table-filter [role=status]').text == '2 of 14 rows'


def test_pages_fit_a_phone(built, browser):
    for page in pages(html(built)):
        visit(browser, page, 400)
        assert browser.execute_script('return document.documentElement.scrollWidth') <= 400, page
        boxes = browser.execute_script('return [...document.querySelectorAll(".table-box")].map(b => [b.getBoundingClientRect().right, b.scrollWidth > '
            'b.clientWidth, b.tabIndex])')
        assert all(right <= 400 and (not wide or tab == 0) for right, wide, tab in boxes), page


def hostile(folder):
    "Records with markup and scripts in every text field, in the names of folders and in the notebook of a run."
    made_up.suite(folder, rows=4)
    name = '<img src=x onerror=window.hacked=1>'
    for home in (folder/'ai4mars-gpu'/'hendrix'/name/'0', folder/'ai4mars-gpu'/name/'baseline'/'0', folder/f'{name}-gpu'/'hendrix'/'baseline'/'0'):
        made_up.record(home, 0, .5, note=EVIL, backend=EVIL, device=EVIL, revision=EVIL, packages={EVIL: EVIL},
            **({'data_sha256': EVIL} if name in home.parts[-4] else {}))  # rows on other data than most are not shown beside others
        record = json.loads((home/'record.json').read_text())
        record |= {k: EVIL for k in ('suite', 'team', 'row', 'digest')} | {'recipe': {'note': EVIL + FENCE, EVIL: {EVIL: [EVIL]}}}
        (home/'record.json').write_text(json.dumps(record))
    out = nbformat.v4.new_output
    outputs = [out('display_data', {k: v}) for k, v in (('text/html', EVIL), ('text/markdown', EVIL + '\n\n' + FENCE),
        ('application/javascript', 'window.hacked=1'), ('image/svg+xml', f'<svg xmlns="http://www.w3.org/2000/svg">{ACTS}</svg>'), ('text/plain', EVIL))]
    outputs += [out('stream', text=EVIL), out('error', ename=EVIL, evalue=EVIL, traceback=[EVIL])]
    cells = [nbformat.v4.new_markdown_cell('# x'), nbformat.v4.new_markdown_cell(EVIL + '\n\n' + FENCE), nbformat.v4.new_raw_cell(FENCE),
        nbformat.v4.new_code_cell(EVIL, outputs=outputs, metadata={'tags': ['hide-input', EVIL]})]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={'widgets': {'application/vnd.jupyter.widget-state+json': {'state': EVIL}}}),
        folder/'ai4mars-gpu'/'hendrix'/name/'0'/'page.ipynb')
    return report.records(folder)


def test_nothing_in_a_file_acts_in_the_browser(tmp_path, browser, monkeypatch):
    monkeypatch.setattr(verdicts, 'CACHE', tmp_path/'draws')
    row = {'team': 'hendrix', 'row': 'baseline', 'value': .5, 'metric': EVIL, 'part': EVIL, 'source': EVIL}
    said = pd.DataFrame([row, row | {'team': EVIL, 'row': EVIL}], columns=teams.COLUMNS)
    claim = verdicts.Claim(EVIL, EVIL, EVIL + FENCE, [((EVIL, EVIL), ('hendrix', EVIL))], 1, size=[None], source=EVIL)
    monkeypatch.setattr(teams, 'reported', lambda: said); monkeypatch.setattr(verdicts, 'claims', lambda: [claim])
    built = book.build(hostile(tmp_path/'records'), tmp_path, library=[]).parent
    assert len(pages(built)) > 15
    for page in pages(built):
        visit(browser, page)
        assert not browser.execute_script('return window.hacked'), page
        planted = browser.execute_script('''return [...document.querySelectorAll('*')].filter(e => e.matches('iframe, img[src="x"], [href^="javascript"]')
                                            || [...e.attributes].some(a => a.name.startsWith('on') && a.value.includes('window.hacked'))
                                            || (e.matches('script') && e.textContent.includes('window.hacked'))).map(e => e.outerHTML)''')
        assert not planted and not complaints(browser), (page, planted)
    assert 'def pytest_collection_modifyitems' not in ''.join(p.read_text(errors='ignore') for p in built.rglob('*')
        if p.is_file()), 'no file of the machine gets into the book'


def contents(folder): return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob('*')) if p.is_file()}


def test_built_twice_is_the_same(built, tmp_path):
    again = book.build(built[1], tmp_path, library=[]).parent
    one, two = contents(html(built)), contents(again)
    assert set(one) == set(two) and not [p for p in one if one[p] != two[p]]


def spent():
    "Processor seconds of this process and what it started."
    return sum(u.ru_utime + u.ru_stime for u in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)))


@pytest.mark.soak
def test_a_full_report_is_built_in_time(tmp_path, monkeypatch):
    """Ten times the rows, all notebooks being in both reports, take less than four times as long, and less than half of
    that again where one record changed. In processor seconds, so that a busy machine is no excuse and no obstacle."""
    def seconds(table, place):
        monkeypatch.setattr(verdicts, 'CACHE', place/'draws'); monkeypatch.setattr(book, 'PAGES', place/'pages')
        start, clock = spent(), time.monotonic()
        built = book.build(table, place)
        print(f'{len(pages(built.parent))} pages: {spent() - start:.0f} s of processor, {time.monotonic() - clock:.0f} s')
        return spent() - start
    few = seconds(made_up.suite(tmp_path/'few'/'records', rows=7, seeds=3), tmp_path/'few')
    table = made_up.suite(tmp_path/'records', rows=70, seeds=3)
    full = seconds(table, tmp_path)
    made_up.record(table.path[5], int(table.seed[5]), .77)
    again = seconds(report.records(tmp_path/'records'), tmp_path)
    assert full < 4 * few and again < full / 2
    assert len(pages(tmp_path/'_build'/'html')) > 100
