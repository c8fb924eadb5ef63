"""The second front door: the Open Inference Protocol, as Triton's clients speak it."""
