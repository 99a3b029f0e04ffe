"""What is counted while a task is trained and tested, and adds up over the processes of a run."""
