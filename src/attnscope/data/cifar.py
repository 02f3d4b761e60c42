"""CIFAR-10 and CIFAR-100, read and downloaded by torchvision."""

from __future__ import annotations

from functools import partial

from attnscope.data.normalization import Normalization
from attnscope.data.sources import DataRequest, DataSource, LoadedSplits, register_data_source
from attnscope.errors import InputError, first_line

_NORMALIZATIONS = {
    "cifar10": Normalization((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": Normalization((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}


def _load(name: str, request: DataRequest) -> LoadedSplits:
    """Load the training split and the test split of CIFAR-10 or CIFAR-100.

    Raises:
        InputError: The data set is missing and must not, or cannot, be downloaded.
    """
    import torch
    from torchvision.datasets import CIFAR10, CIFAR100

    from attnscope.data.images import LabeledImages, check_memory, resize_images

    root, image_size = request.root, request.image_size
    assert image_size is not None  # the source has a default

    check_memory(60_000, image_size)
    # torchvision unpickles these files, but only after it has compared their MD5 hashes with those
    # of the published files.
    source = CIFAR10 if name == "cifar10" else CIFAR100
    try:
        datasets = [source(root, train) for train in (True, False)]
    except Exception as error:  # a RuntimeError if files are missing or changed
        if not request.download:
            raise InputError(
                "AS202",
                f"{name} is missing or incomplete in {root} ({first_line(error)}); set --data-root "
                "to the folder that contains it, or download it into that folder",
            ) from None
        missing = not root.exists()
        try:
            datasets = [source(root, train, download=True) for train in (True, False)]
        except Exception as error:  # URLError, OSError and others
            if missing and root.is_dir() and not any(root.iterdir()):
                root.rmdir()  # torchvision creates it before the download
            raise InputError(
                "AS203",
                f"{name} is not in {root} and cannot be downloaded ({first_line(error)}); "
                "check the network connection, or set --data-root to the folder that contains it",
            ) from None
    splits = []
    for split, dataset in zip(("train", "test"), datasets, strict=True):
        images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2)
        if image_size != 32:
            images = resize_images(images, image_size)
        splits.append(
            LabeledImages(
                images.contiguous(),
                torch.tensor(dataset.targets),
                [f"{split}/{i}" for i in range(len(images))],
                list(dataset.classes),
            )
        )
    return LoadedSplits(splits, [])


for _name, _normalization in _NORMALIZATIONS.items():
    register_data_source(
        _name,
        DataSource(
            partial(_load, _name),
            help="downloaded to --data-root if missing",
            normalization=_normalization,
        ),
    )
