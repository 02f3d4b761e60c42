"""``attnscope intervene``"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from attnscope.commands.options import MovedDataArgument, RunArgument, Split, counted
from attnscope.commands.parsing import Argument
from attnscope.shell import shell_command


@dataclass(frozen=True)
class Intervene:
    """Test whether the class is decodable from the gates, and whether the gates are used.

    The experiments decode the class from each gate, and replace, ablate and randomize gates. What
    they cost is printed first. After an interruption, the same command continues. Two controls are
    included if they were recorded: the features that the gates multiply (attnscope capture
    --pooled-inputs) and an untrained network (attnscope capture --untrained).
    """

    run: RunArgument
    """Run folder with a recording of the split, or a recording of any network."""
    split: Split = "test"
    """Split whose recording is used, if RUN is a run folder."""
    seed_runs: Annotated[tuple[Path, ...], Argument(metavar="RUN")] = ()
    """Runs or recordings of the same configuration with other seeds. Their similarity is the
    reference for the experiment randomize."""
    experiments: Annotated[tuple[str, ...], Argument(metavar="EXPERIMENT")] = ()
    """Experiments to run: decode, replace, concept, sufficiency, pairs, ablate, erase, randomize.
    Default: decode and replace."""
    edits: Annotated[tuple[str, ...], Argument(metavar="EDIT")] = ()
    """Edits of the experiment replace: neutral, mean, median, constant, predicted, true, random,
    swap_any, swap_same, swap_other, matched_same, matched_other. Default: mean constant swap_any
    swap_same swap_other matched_same matched_other."""
    images: int | None = None
    """Number of images on which accuracy is measured, at most half of each class. The other images
    supply the replacement gates. Some experiments use only a share of the measured images: ablate a
    tenth (at least 50), erase a fifth (at least 100), concept half (at least 100), randomize half
    (at least 250). Default: that of the output folder, else 250, or as many as fit into
    --minutes."""
    minutes: float = 3
    """Time in minutes for the experiment replace, which limits the default of --images."""
    smallest_effect: float | None = None
    """Smallest change in accuracy that matters, in percentage points, such as 0.5. With it, gates
    whose removal is shown to change less are called not needed. State it before you look at the
    results. Default: that of the output folder."""
    smallest_log_loss: float | None = None
    """The same for the log loss, in nats."""
    seed: int = 0
    """Random seed."""
    out: Path | None = None
    """Output folder. Finished experiments are reused. Default: RUN/interventions/SPLIT, or
    RECORDING-interventions."""
    data: MovedDataArgument = None
    """Where the images are now, if they have moved, such as folder:PATH. Default: where they
    were."""
    data_root: Path | None = None
    """Folder that contains CIFAR-10 or CIFAR-100. Default: the folder used for training."""
    batch_size: int = 64
    """Batch size."""
    device: str = "auto"
    """Device: auto, cpu, cuda or cuda:N."""

    def __call__(self) -> None:
        from attnscope.recording.places import outcomes_folder
        from attnscope.runs import open_recording

        recording = open_recording(self.run, self.split)

        from attnscope.interventions.run import intervene

        outcomes = intervene(
            recording,
            split=self.split,
            experiments=self.experiments,
            edits=self.edits,
            images=self.images,
            minutes=self.minutes,
            seed=self.seed,
            seed_runs=self.seed_runs,
            out=self.out,
            data=self.data,
            data_root=self.data_root,
            batch_size=self.batch_size,
            device=self.device,
            smallest_effect=self.smallest_effect,
            smallest_log_loss=self.smallest_log_loss,
        )
        from attnscope.plots.verdict_table import in_columns, verdict_table

        verdicts = verdict_table(outcomes)
        if len(verdicts):
            print(in_columns(verdicts))
        out = outcomes_folder(recording.folder) if self.out is None else self.out
        if "effects" in outcomes.tables:
            print(f"Every edit of each gate, of each block and of all gates: {out / 'effects.csv'}")
        images = counted(outcomes.about["images"], "image")
        print(f"Scored {images}, {counted(len(recording.gates), 'gate')}: {out}")
        print(f"Next: {shell_command('report', self.run)}")
