"""
Networks of loudinthecloud/pytorch-ntm (https://github.com/loudinthecloud/pytorch-ntm) as models.

`checkpoint` reads the tensors, `network` computes the step in PyTorch for the graph, `equations`
computes it again in plain numpy to verify the graph by, and `folder` writes the model.
"""
