"""``attnscope intervene``"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from attnscope.commands.options import RunArgument, Split, expect_whole
from attnscope.commands.parsing import Argument


@dataclass(frozen=True)
class Intervene:
    """Measure which information the gates of a network contain, and how much of it is used.

    The experiments decode the class from each gate, and replace, ablate and randomize gates. Two
    controls are included if they were recorded: the inputs of the gates (attnscope capture
    --pooled-inputs) and an untrained network (attnscope capture --untrained).
    """

    run: RunArgument
    """Run folder with a recording of the split, or a recording of any network."""
    split: Split = "test"
    """Split whose recording is used, if RUN is a run folder."""
    seed_runs: Annotated[tuple[Path, ...], Argument(metavar="RUN")] = ()
    """Runs or recordings of the same network with other seeds. Their differences are the reference
    for the experiment randomize."""
    experiments: Annotated[tuple[str, ...], Argument(metavar="EXPERIMENT")] = ()
    """Experiments to run: decode, replace, ablate, erase, randomize. Default: all that are not
    finished yet."""
    images: int = 1000
    """Number of images to score, at most half of each class; the other images supply the gates for
    replacement. Some experiments use a share of them: ablate a tenth (at least 50), erase a fifth
    (at least 100), randomize half (at least 250)."""
    seed: int = 0
    """Random seed."""
    out: Path | None = None
    """Output folder. Finished experiments are reused. Default: RUN/interventions/SPLIT, or
    RECORDING-interventions."""
    data_root: Path | None = None
    """Folder that contains CIFAR-10 or CIFAR-100. Default: the folder used for training."""
    batch_size: int = 64
    """Batch size."""
    device: str = "auto"
    """Device: auto, cpu, cuda or cuda:N."""

    def __call__(self) -> None:
        from attnscope.recording.places import outcomes_folder
        from attnscope.runs import open_recording, open_untrained

        recording = open_recording(self.run, self.split)
        expect_whole(recording)

        import torch

        from attnscope.interventions import EXPERIMENTS, InterventionSetup, intervene_in
        from attnscope.statistics.comparison import expect_same_images
        from attnscope.training.devices import choose_device

        out = outcomes_folder(recording.folder) if self.out is None else self.out
        device = choose_device(self.device)
        setup = InterventionSetup(
            recording.network().to(device).to(memory_format=torch.channels_last),
            recording.images(self.data_root),
            recording,
            normalization=recording.source().network.normalization,
            images=self.images,
            seed=self.seed,
            batch_size=self.batch_size,
        )
        untrained = open_untrained(recording)
        if untrained is not None:
            expect_whole(untrained)
            expect_same_images(recording, untrained)
        outcomes = intervene_in(
            out,
            setup,
            [open_recording(run, self.split) for run in self.seed_runs],
            untrained=untrained,
            experiments=self.experiments or EXPERIMENTS,
        )
        if "effects" in outcomes.tables:
            table = outcomes.tables["effects"]
            columns = ["target", "edit", "images", "change", "low", "high", "margin_change"]
            print(table[columns].to_string(index=False, float_format="{:+.4f}".format))
        print(f"{len(setup.scored)} images scored, {len(setup.gates)} gates: {out}")
        print(f"Next: attnscope report {self.run}")
