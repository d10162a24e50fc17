"""Renderers: a `Report` goes in, text comes out. Only `render.table` and what draws pictures import rich."""
