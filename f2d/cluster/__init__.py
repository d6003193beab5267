"""Restore folders, lists and Parquet files on a Ray cluster, from and to local disks or object storage."""

from .job import restore_on_ray
from .sources import Item, Storage, find_items

__all__ = ["Item", "Storage", "find_items", "restore_on_ray"]
