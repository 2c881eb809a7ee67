"""All self-supervised methods on the digits, under the same views, encoder and number of steps.

Only MAE has another encoder, a small vision transformer: it needs patches to hide. `untrained` and
`untrained_vit` are these encoders before training, except for 30 steps of BatchNorm's statistics.

  kdjax --config=configs/ssl/table.py --workdir=DIR
  kdjax --config=configs/ssl/table.py:seeds=1,tune --workdir=DIR    (never tested on test)
"""

import barlow_twins
import byol
import dcl
import dino
import mae
import moco_v2
import moco_v3
import rotation
import simclr
import simsiam
import swav
import vicreg
from ml_collections import ConfigDict
from ssl_digits import run


def get_config(arg: str | None = None) -> ConfigDict:
    still = dict(steps=30, optimizer=dict(name="frozen"))
    return run(
        arg,
        untrained=simclr.STAGE | still,
        simclr=simclr.STAGE,
        dcl=dcl.STAGE,
        moco_v2=moco_v2.STAGE,
        moco_v3=moco_v3.STAGE,
        byol=byol.STAGE,
        simsiam=simsiam.STAGE,
        barlow_twins=barlow_twins.STAGE,
        vicreg=vicreg.STAGE,
        swav=swav.STAGE,
        dino=dino.STAGE,
        rotation=rotation.STAGE,
        mae=mae.STAGE,
        untrained_vit=mae.STAGE | still,
    )
