"""ONNX files: read without the package of that name, and made a `Network`.

`wire` reads the format, `tensors` and `messages` what stands in it. `reader` walks the nodes: with `names` of what it
meets, what is `known` of tensors, and a network that grows in `building`. `inputs` settles what comes in. `ops` says
what layer an op is, `functions` which others it is put together of; `branches`, `loops` and `sequences` decide what is
read, and `evaluation` with `folding` works out what computes shapes. `parameters` tells weights from other constants.
`file` is the way in.
"""
