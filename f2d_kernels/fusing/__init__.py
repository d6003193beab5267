"""Fuse the group norms and SiLUs of any network, if its source proves that they are a pair."""
