"""The processes that decode images for this one, by whoever started them, so that none outlives the job."""

from autosparse.storage.image_loader import ImageLoader

_OPEN: list[ImageLoader] = []


def kept(loader: ImageLoader) -> ImageLoader:
    """The same loader, whose processes end with the job."""
    _OPEN.append(loader)
    return loader


def close_all() -> None:
    """End them all; called behind every job, whatever came of it."""
    while _OPEN:
        _OPEN.pop().close()
