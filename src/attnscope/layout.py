"""The names of the files and folders of runs and recordings. Imports nothing.

A run folder::

    config.json               source, recipe, seed, normalization, classes, images of each split
    model.safetensors         the weights that the run is evaluated with
    model.json                the architecture of the network
    best.safetensors, last.safetensors   the other weights of the same run
    metrics.csv, steps.csv    one row per epoch; one row per logged step
    gates.jsonl               with ``--monitor``: the gates over training, one line per observation
    gates.start.safetensors   their values at the first observation; suffix ``.start.safetensors``
    result.json               losses and accuracies at the end of training
    fold.json                 of a folded run: how each gate was replaced
    folded.safetensors        only beside the ``fold.json`` of another folded network
    checkpoint.safetensors    only during training: the state from which ``--resume`` continues
    hashes.json               of a finished run: the SHA-256 of each of these files
    images.parquet            a fingerprint of each image of each split
    training_images.safetensors   some augmented training images, not normalized
    tensorboard/
    recordings/SPLIT/         recordings of this network
    moments/SPLIT/            sums over the images of each class
    untrained/SPLIT/          recordings of the same architecture with fresh weights, as a control
    untrained/draw-K/SPLIT/   the same with other fresh weights, K = 1, 2, ...
    untrained/moments/SPLIT/
    interventions/SPLIT/      outcomes of interventions
    masks/SPLIT/              masks of the images, in an arrays.safetensors
    explored/SPLIT/           results that were asked for in the dashboard, a JSON file for each
    figures/                  figures of the test split; figures/SPLIT of another split
    statistics/               tables of ``attnscope analyze``; statistics/SPLIT of another split
    report.html               report of ``attnscope analyze``; report-SPLIT.html of another split
    NAME-methods.md, NAME.bib with ``report --methods``: the methods paragraph of NAME.html, BibTeX
    analysis.json             which stages of ``attnscope analyze`` are finished, and for what

``attnscope analyze`` writes a folder of the same form for a network that attnscope did not train,
without the files of the training.

A recording, or moments::

    manifest.json             contents, origin, and a SHA-256 of each file
    images.parquet            a fingerprint of each image, if they are those of a data source
    plan.json                 what is to be recorded; its SHA-256 is the id of the recording
    shards/00000/             arrays.safetensors, rows.parquet, shard.json

While a recording is being written, ``NAME`` is called ``.NAME.partial`` and locked by
``.NAME.lock``. Outcomes of interventions on a recording outside a run are stored beside it in
``NAME-interventions``::

    about.json                which recording they belong to, and which experiments were run
    replacement.parquet       one row per image and edit
    replacement.safetensors   the logits of each of its rows
    effects.csv, decoding.csv and so on   one table for each other experiment

Masks of the images of such a recording are stored beside it in ``NAME-masks``, and results that
were asked for in the dashboard in ``NAME-explored``.

While an experiment runs, its finished pieces are kept in ``.NAME.partial/EXPERIMENT/`` beside the
outcomes, with a ``plan.json``. ``.NAME.lock`` locks the outcomes, and likewise every other output
while it is written. The folder of ``attnscope demo`` has a file ``.unfinished`` until it is
complete.
"""

SPLITS = ("train", "validation", "test")

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
MODEL = "model.json"
BEST_WEIGHTS = "best.safetensors"
LAST_WEIGHTS = "last.safetensors"
METRICS = "metrics.csv"
STEPS = "steps.csv"
GATE_HISTORY = "gates.jsonl"
GATE_START_SUFFIX = ".start.safetensors"
RESULT = "result.json"
FOLD = "fold.json"
FOLDED = "folded.safetensors"
CHECKPOINT = "checkpoint.safetensors"
TRAINING_IMAGES = "training_images.safetensors"
TENSORBOARD = "tensorboard"
HASHES = "hashes.json"
IMAGES = "images.parquet"

RECORDINGS = "recordings"
MOMENTS = "moments"
UNTRAINED = "untrained"
DRAW_PREFIX = "draw-"
INTERVENTIONS = "interventions"
MASKS = "masks"
EXPLORED = "explored"
FIGURES = "figures"
STATISTICS = "statistics"
REPORT = "report.html"
METHODS_SUFFIX = "-methods.md"
ANALYSIS = "analysis.json"

MANIFEST = "manifest.json"
PLAN = "plan.json"
SHARDS = "shards"
ARRAYS = "arrays.safetensors"
ROWS = "rows.parquet"
SHARD = "shard.json"

ABOUT = "about.json"
REPLACEMENT = "replacement.parquet"
REPLACEMENT_LOGITS = "replacement.safetensors"
OUTCOMES_SUFFIX = "-interventions"
MASKS_SUFFIX = "-masks"
EXPLORED_SUFFIX = "-explored"

PARTIAL_SUFFIX = ".partial"
LOCK_SUFFIX = ".lock"
UNFINISHED = ".unfinished"
