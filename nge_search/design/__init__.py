"""Architectures drawn link by link from what good and bad ones teach, without a search (NAL)."""
