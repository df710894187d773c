"Made-up records, for tests of the report: rows of all teams that get more or less right, on the same tiles, without any training."
import json

import numpy as np
import pandas as pd

from marsnb import evaluate, metrics, report
from marsnb.core import rng

TEAMS = {'cortex_creators': ('single_unet', 'double_unet', 'advanced_bottleneck'), 'los_pinguinos': ('first', 'second', 'final'),
    'aaa000': ('unet', 'ms_unet', 'unet3plus'),
    'sofarsogood': ('cce', 'dice', 'focal'), 'hendrix': ('baseline_no_aug', 'baseline', 'flagship'), 'beyond': ('public_best', 'small_se', 'flagship')}


def record(home, seed, right, note='', tiles=376, parameters=10**6, **environment):
    "A record in the folder `home`, with what else a run leaves there: a network that gets about the share `right` of every tile right."
    r, luck = np.random.default_rng(seed), np.random.default_rng([seed, int(1e6 * right)])
    truth, ids = r.choice(5, (tiles, 800), p=[.2, .3, .25, .2, .05]), np.sort(r.choice(2505, tiles, replace=False))
    hard = np.clip(right + r.normal(0, .15, (tiles, 1)), 0, 1)
    cms = 10 * evaluate.per_tile(truth, np.where(luck.random(truth.shape) < hard, truth, luck.choice([1, 2, 3, 4], truth.shape)))
    judged = lambda cm: metrics.figures(cm) | {'confusion': cm.tolist()}
    said = {'format': 1, 'suite': home.parts[-4], 'team': home.parts[-3], 'row': home.parts[-2], 'seed': seed, 'digest': 'made up',
        'recipe': {'note': note, 'widths': [16, 32], 'model': 'unet'}, 'parts': {'train': 1752, 'val': 376, 'test': tiles},
        'result': {'val': judged(cms[::2].sum(0)), 'test': judged(cms.sum(0)), 'epochs': 30, 'best_epoch': 20},
        'cost': {'parameters': parameters, 'passes': 50_000, 'seconds': 600 * right, 'tiles_per_second': 500., 'memory_mb': 1234},
        'environment': {'data_sha256': '0' * 64, 'backend': 'tensorflow', 'device': 'a machine, 2 cores', 'python': '3.11', 'packages': {'keras': '3'},
        'revision': 'abc1234'} | environment}
    home.mkdir(parents=True, exist_ok=True)
    epochs = np.arange(1, 31)
    history = {'epoch': epochs, 'loss': 1 / epochs, 'val_loss': 1.2 / epochs, 'miou': right * epochs / 30, 'val_miou': right * epochs / 31}
    pd.DataFrame(history).to_csv(home/'history.csv', index=False)
    np.savez_compressed(home/'test.npz', confusions=cms.astype('uint16'), groups=(ids // 8).astype('int32'), tiles=ids.astype('int32'))
    (home/'record.json').write_text(json.dumps(said))
    return home


def suite(root, rows=18, seeds=1, suite='ai4mars-gpu', **more):
    "Records of `rows` rows x `seeds` seeds below `root`: the first rows of each team by their names, then further ones. The table of them."
    names = [(team, row) for i in range(3) for team, rows_of in TEAMS.items() for row in rows_of[i:i + 1]]
    names += [(team, f'more_{i}') for i in range(rows) for team in TEAMS]
    for i, (team, row) in enumerate(names[:rows]):
        for seed in range(seeds): record(root/suite/team/row/str(seed), seed, .35 + .5 * i / rows, parameters=10**5 * (i + 1), **more)
    return report.records(root)


def two_teams(root, n=60):
    """Records below `root` of three rows of Hendrix, two of Los Pinguinos and ours, that get
    more and more of every tile right, on the same tiles, two seeds each. The table of them."""
    def made_up(team, row, seed, right):
        r, home = rng(seed, 'tiles'), root/'ai4mars-cpu'/team/row/str(seed); home.mkdir(parents=True)
        truth, luck, tiles = r.integers(1, 5, (n, 2500)), r.random((n, 2500)) + r.normal(0, .2, (n, 1)), np.sort(r.choice(500, n, replace=False))
        cms = evaluate.per_tile(truth, np.where(luck < right, truth, 1 + truth % 4))
        judged = lambda cm: metrics.figures(cm) | {'confusion': cm.tolist()}
        said = {'format': 1, 'digest': row, 'recipe': {}, 'parts': {'train': 300, 'val': n // 2, 'test': n}, 'result': {'val': judged(cms[::2].sum(0)),
            'test': judged(cms.sum(0)), 'epochs': 2, 'best_epoch': 1}, 'cost': {'parameters': int(1e5 * right), 'passes': 1, 'seconds': 90. * right,
            'tiles_per_second': 1., 'memory_mb': 1},
            'environment': {'data_sha256': 'x', 'backend': 'tensorflow', 'device': 'a machine', 'packages': {}, 'revision': None}}
        (home/'record.json').write_text(json.dumps(said))
        np.savez_compressed(home/'test.npz', confusions=cms.astype('uint16'), groups=tiles // 10, tiles=tiles)
    for seed in range(2):
        for team, row, right in (('hendrix', 'baseline_no_aug', .4), ('hendrix', 'baseline', .5), ('hendrix', 'flagship', .8), ('los_pinguinos', 'first', .45),
                ('los_pinguinos', 'second', .6), ('beyond', 'flagship', .9)): made_up(team, row, seed, right)
    return report.records(root)
