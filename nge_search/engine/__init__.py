"""What every training shares: processes, checkpoints, the loop, logs."""
