"""Restore folders, lists and Parquet files on a Ray cluster, from and to local disks or object storage."""

from .job import Actors, Outcome, restore_on_ray
from .sources import Found, Item, Storage, find_items

__all__ = ["Actors", "Found", "Item", "Outcome", "Storage", "find_items", "restore_on_ray"]
