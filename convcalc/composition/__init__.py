"""Composition: linear layers merged, folded and split, with their weights, and the proof of it.

`geometry` says what layers are along the axes, `pieces` which of them are convolutions, `maps` how they make one layer,
`kernels` and `parameters` with which weights; `merging` walks a network. `compose` reports on chains, `models` writes
merged ONNX files, `splitting` is the converse, and `verification` runs both sides.
"""
