"""Compiled code for CPUs on the threads of torch, and the stamp that keeps its cache honest."""
