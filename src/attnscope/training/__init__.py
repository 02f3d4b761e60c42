"""Train networks: `train_run` builds and trains one from settings, `fit` trains a given network.

>>> from attnscope.training import TrainConfig, train_run
>>> train_run(TrainConfig(data="digits", attention="se", epochs=2, out="runs/se"))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attnscope.lazy import lazy_names

if TYPE_CHECKING:
    from attnscope.training.config import TrainConfig as TrainConfig
    from attnscope.training.fitting import fit as fit
    from attnscope.training.recipe import Recipe as Recipe
    from attnscope.training.recipe_file import read_recipe as read_recipe
    from attnscope.training.recipes import RECIPES as RECIPES
    from attnscope.training.recipes import register_recipe as register_recipe
    from attnscope.training.run import train_run as train_run

_HOMES = {
    "RECIPES": "recipes",
    "Recipe": "recipe",
    "TrainConfig": "config",
    "fit": "fitting",
    "read_recipe": "recipe_file",
    "register_recipe": "recipes",
    "train_run": "run",
}
__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
