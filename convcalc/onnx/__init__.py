"""ONNX files: read without the package of that name, and made a `Network`.

`wire` reads the format, `tensors` and `messages` what stands in it; `ops` and `functions` say what each op is,
`folding` works out what computes shapes, and `reader` walks the nodes. `file` is the way in.
"""
