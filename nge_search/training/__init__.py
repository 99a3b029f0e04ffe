"""Trainings of derived networks: classification and semantic segmentation."""
