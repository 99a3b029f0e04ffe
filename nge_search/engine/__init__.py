"""What every run shares: processes, checkpoints, the loop, logs."""
