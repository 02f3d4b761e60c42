"""CIFAR-10 and CIFAR-100, as torchvision downloads them."""

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
    """CIFAR-10 or CIFAR-100: the training split and the test split.

    Raises:
        InputError: it lies nowhere, and cannot be downloaded.
    """
    import torch
    from torchvision.datasets import CIFAR10, CIFAR100

    from attnscope.data.images import LabeledImages, check_memory, resize_images

    root, image_size = request.root, request.image_size
    assert image_size is not None  # the source has a default

    check_memory(60_000, image_size)
    # torchvision unpickles these files, but only where their MD5 is that of the published ones.
    source = CIFAR10 if name == "cifar10" else CIFAR100
    try:
        datasets = [source(root, train) for train in (True, False)]
    except Exception as error:  # RuntimeError says that files are missing or changed
        if not request.download:
            raise InputError(
                f"{name} does not lie whole under {root} ({first_line(error)}); "
                "set --data-root to where it lies, or download it there"
            ) from None
        missing = not root.exists()
        try:
            datasets = [source(root, train, download=True) for train in (True, False)]
        except Exception as error:  # URLError, OSError: whatever a download meets
            if missing and root.is_dir() and not any(root.iterdir()):
                root.rmdir()  # torchvision makes it before it has anything to put there
            raise InputError(
                f"{name} is neither under {root} nor could it be downloaded "
                f"({first_line(error)}); set --data-root to where it lies"
            ) from None
    parts = []
    for part, dataset in zip(("train", "test"), datasets, strict=True):
        images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2)
        if image_size != 32:
            images = resize_images(images, image_size)
        parts.append(
            LabeledImages(
                images.contiguous(),
                torch.tensor(dataset.targets),
                [f"{part}/{i}" for i in range(len(images))],
                list(dataset.classes),
            )
        )
    return LoadedSplits(parts, [])


for _name, _normalization in _NORMALIZATIONS.items():
    register_data_source(
        _name,
        DataSource(
            partial(_load, _name),
            help="downloaded to --data-root where it does not lie there",
            normalization=_normalization,
        ),
    )
