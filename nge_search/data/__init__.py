"""Datasets, their division, and batches of augmented images on a device."""

from nge_search.data.augmentation import Augmentation
from nge_search.data.datasets import load_dataset
from nge_search.data.image_transforms import Draw, ImageTransforms
from nge_search.data.loader import Batch, Loader
from nge_search.data.sources import Dataset, FileImages, ImageSource, MemoryImages
from nge_search.data.split import split_train_valid
from nge_search.data.storage import Raw, ResidentImages, Store, StreamedImages, fits, store

__all__ = [
    "Augmentation",
    "Batch",
    "Dataset",
    "Draw",
    "FileImages",
    "ImageSource",
    "ImageTransforms",
    "Loader",
    "MemoryImages",
    "Raw",
    "ResidentImages",
    "Store",
    "StreamedImages",
    "fits",
    "load_dataset",
    "split_train_valid",
    "store",
]
