"""``attnscope intervene``"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from attnscope.commands.options import RunArgument, verify_folder
from attnscope.errors import InputError


@dataclass(frozen=True)
class Intervene:
    """Replace, swap, ablate and randomise a run's gates: what they know, and what is used of it.

    Two controls of what they know are taken where they were captured: with --pooled-inputs, and the
    --untrained network.
    """

    run: RunArgument
    """A run folder with a recording of the part."""
    part: str = "test"
    """train, validation or test."""
    seed_runs: tuple[Path, ...] = ()
    """Runs of the same network with other seeds: the yardstick of the randomisation."""
    experiments: tuple[str, ...] = ()
    """Some of decode, replace, ablate, erase and randomize. Default: all that were not made yet."""
    images: int = 1000
    """About how many are scored, of each class at most half; the others lend their gates. Ablate
    takes a tenth of them, erase a fifth, randomize half, but at least 50, 100 and 250."""
    seed: int = 0
    """Of all that is drawn."""
    out: Path | None = None
    """Where they go, each as it ends; what lies there of the same images is kept. Default:
    RUN/interventions/PART."""
    data_root: Path | None = None
    """Where cifar10 and cifar100 lie. Default: where they lay at the training."""
    batch_size: int = 64
    """Images a forward."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    def __call__(self) -> None:
        from attnscope.recording.outcomes import outcomes_folder

        if not (self.run / "model.safetensors").is_file():
            raise InputError(f"{self.run} is no run with a network; intervene needs one")
        folder = self.run / "recordings" / self.part
        out = outcomes_folder(folder) if self.out is None else self.out
        if not folder.is_dir():
            raise InputError(
                f"{folder} does not exist; make it with attnscope capture {self.run} "
                f"--part {self.part}"
            )

        import torch

        from attnscope.capturing.subjects import load_run
        from attnscope.interventions import EXPERIMENTS, Bench, intervene_in
        from attnscope.recording.recording import Recording
        from attnscope.statistics.comparison import expect_same_images
        from attnscope.training.devices import choose_device

        verify_folder(folder)
        recording = Recording(folder)
        skip = bool(recording.about.get("skipped"))
        subject = load_run(self.run, self.part, self.data_root, skip_unreadable=skip)
        bench = Bench(
            subject.model.to(choose_device(self.device)).to(memory_format=torch.channels_last),
            subject.images,
            recording,
            normalization=subject.normalization,
            images=self.images,
            seed=self.seed,
            batch_size=self.batch_size,
        )
        seeds = [Recording(run / "recordings" / self.part) for run in self.seed_runs]
        untrained, control = None, self.run / "untrained" / self.part
        if control.is_dir():
            verify_folder(control)
            untrained = Recording(control)
            expect_same_images(bench.recording, untrained)
        outcomes = intervene_in(
            out,
            bench,
            seeds,
            untrained=untrained,
            experiments=self.experiments or EXPERIMENTS,
        )
        if "effects" in outcomes.tables:
            table = outcomes.tables["effects"]
            columns = ["target", "edit", "images", "change", "low", "high", "margin_change"]
            print(table[columns].to_string(index=False, float_format="{:+.4f}".format))
        print(f"{len(bench.scored)} images scored, {len(bench.gates)} gates: {out}")
        print(f"Next: attnscope report {self.run}")
