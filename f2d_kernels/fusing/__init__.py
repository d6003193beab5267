"""Fusion of the group norms and SiLUs of any network, where its source proves them a pair."""
