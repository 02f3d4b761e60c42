"""``attnscope intervene``"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from attnscope.commands.options import RunArgument, Split


@dataclass(frozen=True)
class Intervene:
    """Replace, swap, ablate and randomize a network's gates: what they know, and what is used.

    Two controls of what they know are taken where they were captured: with --pooled-inputs, and the
    --untrained network of a run.
    """

    run: RunArgument
    """A run folder with a recording of the part; or a recording of any network that attnscope
    capture made."""
    split: Split = "test"
    """Which recording of a run."""
    seed_runs: tuple[Path, ...] = ()
    """Runs or recordings of the same network with other seeds: the yardstick of the
    randomization."""
    experiments: tuple[str, ...] = ()
    """Some of decode, replace, ablate, erase and randomize. Default: all that were not made yet."""
    images: int = 1000
    """About how many are scored, of each class at most half; the others lend their gates. Ablate
    takes a tenth of them, erase a fifth, randomize half, but at least 50, 100 and 250."""
    seed: int = 0
    """Random seed."""
    out: Path | None = None
    """Where they go, each as it ends; what lies there of the same images is kept. Default:
    RUN/interventions/SPLIT, or RECORDING-interventions."""
    data_root: Path | None = None
    """Where cifar10 and cifar100 lie. Default: where they lay before."""
    batch_size: int = 64
    """Batch size."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    def __call__(self) -> None:
        from attnscope.recording.places import outcomes_folder
        from attnscope.runs import open_recording

        recording = open_recording(self.run, self.split)

        from attnscope.interventions.run import intervene

        outcomes = intervene(
            recording,
            split=self.split,
            experiments=self.experiments,
            images=self.images,
            seed=self.seed,
            seed_runs=self.seed_runs,
            out=self.out,
            data_root=self.data_root,
            batch_size=self.batch_size,
            device=self.device,
        )
        if "effects" in outcomes.tables:
            table = outcomes.tables["effects"]
            columns = ["target", "edit", "images", "change", "low", "high", "margin_change"]
            print(table[columns].to_string(index=False, float_format="{:+.4f}".format))
        out = outcomes_folder(recording.folder) if self.out is None else self.out
        print(f"{outcomes.about['images']} images scored, {len(recording.gates)} gates: {out}")
        print(f"Next: attnscope report {self.run}")
