"""Fit a linear SVM to the features of a network: python analysis/features_svm.py folder:PATH.

The network is frozen and its classifier is not used. scikit-learn fits a support vector machine to
the pooled features of the last layer. The penalty is chosen on the validation split; the test split
is used once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from torch import nn

from attnscope.data.images import LabeledImages, batches
from attnscope.data.load import load_data
from attnscope.errors import InputError
from attnscope.networks.build import build_model
from attnscope.networks.pretrained import read_pretrained, start_from
from attnscope.runs import Run
from attnscope.training.devices import choose_device

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)


def main(
    data: Annotated[str, tyro.conf.Positional],
    run: Path | None = None,
    model: str = "resnet18",
    weights: str = "imagenet",
    image_size: int | None = None,
) -> None:
    """Fit a linear SVM on the pooled features of a frozen network, and print its accuracies.

    Args:
        data: digits, cifar10, cifar100, folder:PATH or another registered source.
        run: a run whose network is used. Default: a network is built from model and weights.
        model: resnet18, resnet34, resnet50, resnet101 or resnet152.
        weights: imagenet (torchvision downloads them), or a file.
        image_size: height and width of the images in pixels. Default: those of the run, or else
            224, cropped from 256.
    """
    if run is not None:
        network = Run(run).model()
        image_size = image_size or Run(run).image_size
        resize = image_size
    else:
        network = build_model(model, stem="imagenet", num_classes=1000)
        start_from(network, read_pretrained(weights, model))
        image_size = image_size or 224
        resize = round(image_size * 256 / 224)
    network.fc = nn.Identity()
    device = choose_device("auto")
    network = network.to(device).eval()
    images = load_data(data, image_size=image_size, resize=resize)

    def features(split: LabeledImages) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        with torch.inference_mode():
            found = [
                network(images.normalization.apply(x.to(device))).cpu()
                for x, _ in batches(split.center_crop(images.image_size), 64)
            ]
        return torch.cat(found).numpy(), split.labels.numpy()

    x, y = features(images.train)
    held_out = features(images.validation)
    fitted = {
        penalty: make_pipeline(StandardScaler(), LinearSVC(C=penalty, random_state=0)).fit(x, y)
        for penalty in PENALTIES
    }
    best = max(PENALTIES, key=lambda penalty: fitted[penalty].score(*held_out))
    for penalty, svm in fitted.items():
        print(f"C = {penalty:g}: validation accuracy {svm.score(*held_out):.2%}")
    print(f"test accuracy {fitted[best].score(*features(images.test)):.2%} with C = {best:g}")


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
