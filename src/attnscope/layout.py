"""The names of the files and folders of runs and recordings. Imports nothing.

A run folder::

    config.json               source, recipe, seed, normalization, classes, images of each split
    model.safetensors         the weights that the run is about
    model.json                how the network is built
    best.safetensors, last.safetensors   other weights of the same training
    metrics.csv, steps.csv    one row an epoch; one row for some of the steps
    result.json               how the training ended
    fold.json                 of a folded run: what became of each gate
    checkpoint.safetensors    while it trains: where ``--resume`` goes on
    training_images.safetensors   some training images as the network got them, not normalized
    tensorboard/
    recordings/SPLIT/         recordings of this network
    moments/SPLIT/            sums over the images of each class
    untrained/SPLIT/          recordings of the same architecture with fresh weights: a control,
                              which nothing takes for the run
    untrained/moments/SPLIT/
    interventions/SPLIT/      outcomes of interventions
    figures/                  of the test split; figures/SPLIT of another one

A recording, or moments::

    manifest.json             what it holds, with a SHA-256 of each file, and where it comes from
    plan.json                 what was to be recorded; its SHA-256 is the recording's id
    shards/00000/             arrays.safetensors, rows.parquet, shard.json

While it is written, ``NAME`` is ``.NAME.partial``, locked by ``.NAME.lock``. Outcomes of
interventions on a recording outside a run lie beside it in ``NAME-interventions``::

    about.json                of which recording they are, and which experiments were made
    replacement.parquet       one row an image and edit
    effects.csv, decoding.csv and so on   one table for each other experiment
"""

SPLITS = ("train", "validation", "test")

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
MODEL = "model.json"
BEST_WEIGHTS = "best.safetensors"
LAST_WEIGHTS = "last.safetensors"
METRICS = "metrics.csv"
STEPS = "steps.csv"
RESULT = "result.json"
FOLD = "fold.json"
CHECKPOINT = "checkpoint.safetensors"
TRAINING_IMAGES = "training_images.safetensors"
TENSORBOARD = "tensorboard"

RECORDINGS = "recordings"
MOMENTS = "moments"
UNTRAINED = "untrained"
INTERVENTIONS = "interventions"
FIGURES = "figures"

MANIFEST = "manifest.json"
PLAN = "plan.json"
SHARDS = "shards"
ARRAYS = "arrays.safetensors"
ROWS = "rows.parquet"
SHARD = "shard.json"

ABOUT = "about.json"
REPLACEMENT = "replacement.parquet"
OUTCOMES_SUFFIX = "-interventions"

PARTIAL_SUFFIX = ".partial"
LOCK_SUFFIX = ".lock"
