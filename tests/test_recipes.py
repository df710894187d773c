"Every row of the reports has a recipe that builds; every figure and every claim belongs to a row."
import dataclasses, re

import pytest, yaml

from conftest import ROOT
from marsnb import recipes

SHARED = ROOT.parent/'shared'  # the reports and the table of their rows lie beside the repository, not in it
RECIPES = {f'{p.parent.name}/{p.stem}': p for p in sorted(recipes.RECIPES.glob('*/*.yml'))}
TEAMS = ('cortex_creators', 'los_pinguinos', 'aaa000', 'sofarsogood', 'hendrix')  # in the order of their reports' numbers
PARTS = ('train', 'val', 'test', 'leaderboard', 'evaluation')
book = lambda name: yaml.safe_load((ROOT/'book'/name).read_text(encoding='utf-8'))
FIGURES, CLAIMS = book('reported.yml'), book('claims.yml')


def shared(name):
    if not (SHARED/name).exists(): pytest.skip(f'{SHARED/name} is not here')
    return SHARED/name


def rows_of(text):
    "team/row for each row in the first columns of the tables in the Markdown `text`, below headings that begin with a team."
    team, found = None, set()
    for line in text.splitlines():
        if line.startswith('## '): team = line[3:].split()[0]
        elif line.startswith('|') and not re.match(r'\|\s*(row|---)', line): found |= {f'{team}/{r}' for r in re.findall(r'[a-z0-9_]+', line.split('|')[1])}
    return found


def test_every_row_has_a_recipe_and_every_recipe_a_row():
    rows = rows_of(shared('rows.md').read_text(encoding='utf-8'))
    assert {r.split('/')[0] for r in rows} == {*TEAMS, 'beyond'} and len(rows) > 60
    assert rows == set(RECIPES)


@pytest.mark.parametrize('row', RECIPES)
def test_recipe(row):
    "Loads, is what its place says, says it in a sentence, and what it names exists."
    recipe = recipes.load(RECIPES[row])
    assert f'{recipe.team}/{recipe.row}' == row
    assert recipe.note.endswith('.') and len(recipe.note) < 200
    from marsnb import balance, clean, infer, train
    assert all(callable(getattr(infer, e if isinstance(e, str) else next(iter(e)), None)) for e in recipe.tta + recipe.post)
    list(recipes._steps(recipe.clean, clean.STEPS, 3, 'cleaning step'))
    list(recipes._steps([{k: v} for k, v in recipe.balance.items()], balance.STEPS, 5, 'balancing step'))
    assert recipe.schedule in [getattr(s, '__name__', s) for s in train.SCHEDULES] and not (recipe.reduce and recipe.schedule != 'constant')
    for_the_sweep = recipe.epochs, recipe.width, recipe.data, recipe.out, recipe.seed
    assert not any(for_the_sweep) and recipe.profile == 'quick' and recipe.split == -1, 'that is for the sweep to say'


_built = {}
def parameters(recipe):
    "Parameters of the network of `recipe`, four channels wide; rows that share a network build it once."
    key = str([recipe.model, recipe.widths, recipe.model_args])
    if key not in _built: _built[key] = recipes.build(dataclasses.replace(recipe, width=4)).count_params()
    return _built[key]


@pytest.mark.parametrize('row', RECIPES)
def test_recipe_builds(row):
    recipe = recipes.load(RECIPES[row])
    assert {m if isinstance(m, str) else m['recipe'] for m in recipe.members} <= set(RECIPES) and len(recipe.member_weights) in (0, len(recipe.members))
    if not recipes.trains(recipe): return
    assert parameters(recipe) > 0 and callable(recipes.loss(recipe))
    assert bool(recipe.augment) == (recipes.augmentation(recipe) is not None)


def test_rows_that_isolate_a_change_differ_in_nothing_else():
    differ = lambda a, b: {k for k in recipes.FIELDS if getattr(recipes.load(RECIPES[a]), k) != getattr(recipes.load(RECIPES[b]), k)} - {'row', 'note'}
    alone = [('cortex_creators/oversample', 'cortex_creators/advanced_bottleneck', {'balance'}), ('los_pinguinos/second_depth', 'los_pinguinos/first',
        {'widths', 'pictures'}), ('los_pinguinos/second_flip', 'los_pinguinos/first', {'augment', 'pictures'}),
             ('los_pinguinos/second_bottleneck', 'los_pinguinos/first', {'model_args', 'pictures'}), ('los_pinguinos/third', 'los_pinguinos/second',
             {'class_weights'}),
             ('los_pinguinos/final', 'los_pinguinos/third', {'model_args'}), ('los_pinguinos/final_dropout', 'los_pinguinos/third', {'model_args'}),
             ('los_pinguinos/final_l2', 'los_pinguinos/third', {'model_args'}),
             *[(f'los_pinguinos/aug_{a}', 'los_pinguinos/second', {'augment'}) for a in ('contrast', 'brightness', 'shift', 'noise')],
             ('aaa000/unet_norm', 'aaa000/unet', {'model_args'}), ('aaa000/unet_aug', 'aaa000/unet', {'balance'}),
             ('aaa000/patches', 'aaa000/unet', {'model_args'}), ('aaa000/deeper_unet', 'aaa000/unet', {'widths'}),
             *[(f'aaa000/{a}', 'aaa000/unet', {'model'}) for a in ('unet_pp', 'attention_unet', 'marsseg', 'gated_unet')],
             ('aaa000/batch128', 'aaa000/unet3plus', {'batch'}), ('aaa000/dataset_weights', 'aaa000/unet3plus', {'weights_from', 'class_weights'}),
             *[(f'sofarsogood/{a}', 'sofarsogood/cce', {'losses'}) for a in ('dice', 'focal', 'jaccard', 'ssim', 'focal_tversky', 'focal_dice', 'cce_dice')],
             ('sofarsogood/tversky', 'sofarsogood/cce', {'losses', 'loss_args'}), ('sofarsogood/cce_static', 'sofarsogood/cce', {'adaptive'}),
             ('sofarsogood/dice_static', 'sofarsogood/dice', {'adaptive'}),
             ('sofarsogood/cce_tta', 'sofarsogood/cce', {'tta'}), ('sofarsogood/cce_post', 'sofarsogood/cce', {'post'}),
             ('hendrix/improved_masks', 'hendrix/baseline_no_aug', {'refine'}), ('hendrix/bad_masks_removed', 'hendrix/baseline_no_aug', {'clean'}),
             ('hendrix/baseline', 'hendrix/baseline_no_aug', {'balance'}),
             ('hendrix/larger', 'hendrix/baseline', {'widths'}), ('hendrix/attention_unet', 'hendrix/baseline', {'model'}),
             ('hendrix/se_bottleneck', 'hendrix/baseline', {'model_args'}),
             ('hendrix/larger_se', 'hendrix/larger', {'model_args'}), ('hendrix/larger_se_pyramid', 'hendrix/larger_se', {'model_args'}),
             ('hendrix/gate_concat', 'hendrix/gate_add', {'model_args'}),
             ('hendrix/baseline_transpose', 'hendrix/baseline', {'model_args'}), ('hendrix/flagship_ce', 'hendrix/flagship', {'losses'}),
             ('hendrix/small_train', 'hendrix/baseline', {'share', 'balance'}), ('hendrix/small_train_larger', 'hendrix/small_train', {'widths'})]
    wrong = {(a, b): differ(a, b) for a, b, what in alone if differ(a, b) != what}
    assert not wrong


def test_figures_are_whole_and_belong_to_rows():
    for f in FIGURES:
        assert set(f) == {'team', 'row', 'metric', 'part', 'value', 'source'}, f
        assert f"{f['team']}/{f['row']}" in RECIPES and f['part'] in PARTS and f['metric'] and f['source'], f
        assert isinstance(f['value'], float) and 0 < f['value'] < (10 if f['metric'] == 'loss' else 1), f
    keys = [(f['team'], f['row'], f['metric'], f['part']) for f in FIGURES]
    assert len(keys) == len(set(keys)), 'a figure stands there twice'
    heads = {}
    for f in FIGURES: heads.setdefault((f['team'], f['row']), (f['team'], f['metric'], f['part']))
    assert len(set(heads.values())) == len({team for team, _ in heads}), 'the headlines of a team are of one metric and part'


def test_figures_stand_in_the_reports():
    reports = sorted(shared('seeds').glob('*.txt'))
    assert len(reports) == len(TEAMS)
    for team, path in zip(TEAMS, reports):
        numbers = [float(n) for n in re.findall(r'(?<![\w.])\d+\.\d+(?![\w.]*\w)', path.read_text(encoding='utf-8'))]
        known = {round(n, 5) for n in numbers} | {round(n / 100, 6) for n in numbers}
        missing = [f for f in FIGURES if f['team'] == team and round(f['value'], 6) not in known]
        assert not missing
    four_digits = lambda name: set(re.findall(r'\b0\.\d{4,}\b', next(p for p in reports if p.name.startswith(name)).read_text(encoding='utf-8')))
    for number, team in (('000', 'cortex_creators'), ('002', 'aaa000'), ('004', 'hendrix')):  # the other way round: no figure is forgotten
        assert {float(n) for n in four_digits(number)} <= {f['value'] for f in FIGURES if f['team'] == team}


def test_claims_are_whole_and_name_rows():
    for c in CLAIMS:
        assert set(c) - {'metric', 'judge', 'note'} == {'team', 'claim', 'quotation', 'rows', 'sign', 'size', 'source'}, c
        assert c['team'] in TEAMS and c['sign'] in (-1, 0, 1) and len(c['size']) == len(c['rows']), c
        assert bool(c['rows']) != (c.get('judge') == 'validation_predicts_test'), c
        assert all(len(pair) == 2 and set(pair) <= set(RECIPES) and all(r.startswith(c['team']) for r in pair) for pair in c['rows']), c
        assert all(s is None or -1 < s < 1 for s in c['size']), c
    assert {c['team'] for c in CLAIMS} == set(TEAMS) and len({c['claim'] for c in CLAIMS}) == len(CLAIMS)


def test_sizes_of_claims_follow_from_the_headlines():
    head = {}
    for f in FIGURES: head.setdefault(f"{f['team']}/{f['row']}", f['value'])
    both = [(c, a, b, s) for c in CLAIMS for (a, b), s in zip(c['rows'], c['size']) if a in head and b in head]
    assert len(both) > 20
    for c, a, b, s in both: assert s is not None and abs(head[a] - head[b] - s) < 1e-9, (c['claim'], a, b)


def test_quotations_are_literal():
    plain = lambda t: re.sub(r'\s+', ' ', re.sub(r'[*\\`]', '', t))
    for team, path in zip(TEAMS, sorted(shared('seeds').glob('*.txt'))):
        report = plain(path.read_text(encoding='utf-8'))
        missing = [c['quotation'] for c in CLAIMS if c['team'] == team and plain(c['quotation']) not in report]
        assert not missing
