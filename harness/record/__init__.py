"""What a run leaves behind, written by `harness.run` and read by everybody else."""
