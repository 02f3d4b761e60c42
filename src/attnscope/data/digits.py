"""The 1,797 handwritten digits that scikit-learn includes."""

from __future__ import annotations

from attnscope.data.sources import DataRequest, DataSource, LoadedSplits, register_data_source


def load(request: DataRequest) -> LoadedSplits:
    """Load the training split and the test split; the test split does not depend on the seed."""
    import torch
    from sklearn.datasets import load_digits

    from attnscope.data.images import LabeledImages, check_memory, resize_images
    from attnscope.data.splits import stratified_split

    image_size = request.image_size
    assert image_size is not None  # the source has a default

    check_memory(1797, image_size)
    digits = load_digits()
    small = torch.from_numpy(digits.images).float()[:, None] * (255 / 16)  # 8×8, values 0 to 16
    images = resize_images(small, image_size).expand(-1, 3, -1, -1).contiguous()
    digit_images = LabeledImages(
        images,
        torch.from_numpy(digits.target).long(),
        [f"digits/{i}" for i in range(len(images))],
        [str(c) for c in digits.target_names],
    )
    # The test split is the same for every seed, so that runs of several seeds can be compared.
    train, test = stratified_split(digits.target, digit_images.classes, 0.2, seed=0)
    return LoadedSplits([digit_images[train], digit_images[test]], [])


register_data_source("digits", DataSource(load, help="included in scikit-learn", may_flip=False))
