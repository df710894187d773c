"Every loss alone teaches a U-Net something."
import numpy as np
import pytest

from marsnb import losses, train
from marsnb.data import Parts, synthetic
from marsnb.models.unet import unet

pytestmark = pytest.mark.soak
PARTS = Parts(np.arange(48), np.arange(48, 72), np.arange(0))


@pytest.fixture(scope='module')
def tiles():
    t = synthetic(72, 1)
    return t.images[:, ::2, ::2], t.masks[:, ::2, ::2]


def val_miou(tiles, loss, epochs, lr):
    train.deterministic(0)
    model = train.Resident(unet((32, 64, 1), 5, widths=(8, 16)), *tiles, losses.mix({loss: 1.}, class_weights=[0, 1, 1, 1, 1]))
    return train.fit(model, PARTS, epochs=epochs, batch=4, lr=lr)[-1]['val_miou']


@pytest.fixture(scope='module')
def untrained(tiles): return val_miou(tiles, 'ce', 1, 0.)


@pytest.mark.parametrize('loss', [f.__name__ for f in losses.LOSSES])
def test_trains(loss, tiles, untrained): assert val_miou(tiles, loss, 12, 3e-3) > untrained + .15
